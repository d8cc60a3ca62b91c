"""Augmentation by name: what is drawn for each image, what comes back, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Generator, Tensor
from torchvision.transforms import v2

from transpike.data import Loading, load_images
from transpike.data.augment import augmentation, cutout
from transpike.errors import ConfigError


def augmented(text: str, images: Tensor, seed: int = 0) -> Tensor:
    augment = augmentation(text)
    assert augment is not None
    return augment(images, Generator().manual_seed(seed))


@given(side=st.integers(1, 9), seed=st.integers(0, 99), height=st.integers(1, 8), width=st.integers(1, 8))
def test_a_cutout_is_one_square_whose_centre_lies_within(side: int, seed: int, height: int, width: int) -> None:
    images = torch.ones(3, 2, height, width)
    cut = cutout(images, side=side, generator=Generator().manual_seed(seed))
    assert torch.equal(cut[:, 0], cut[:, 1])
    for image in cut[:, 0]:
        rows, columns = (image == 0).any(1).nonzero(), (image == 0).any(0).nonzero()
        assert (image == 0).sum() == len(rows) * len(columns) >= 1
        for found, length in ((rows, height), (columns, width)):
            low, high = int(found[0]), int(found[-1])
            assert len(found) == high - low + 1 <= side
            assert len(found) == min(side, length) or low == 0 or high == length - 1


def test_a_cutout_is_drawn_for_each_image_and_half_the_side_by_default() -> None:
    images = torch.full((200, 1, 16, 16), 255, dtype=torch.uint8)
    cut = (augmented("cutout", images) == 0).sum((1, 2, 3))
    assert cut.max() == 64 and len(cut.unique()) > 5
    assert (augmented("cutout:3", images) == 0).sum((1, 2, 3)).max() == 9


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["autoaugment", "autoaugment:imagenet", "randaugment:20", "erasing:0.5"])
def test_draws_come_back_by_seed_differ_within_a_batch_and_leave_the_global_state(name: str, channels: int) -> None:
    images = torch.randint(0, 256, (1, channels, 12, 12), dtype=torch.uint8).repeat(80, 1, 1, 1)
    state = torch.get_rng_state()
    one = augmented(name, images, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert one.shape == images.shape and one.dtype == torch.uint8
    assert torch.equal(one, augmented(name, images, seed=1))
    assert not torch.equal(one, augmented(name, images, seed=2))
    assert len(one.unique(dim=0)) >= 4


@pytest.mark.parametrize(("text", "count"), [("randaugment", 2), ("randaugment:27", 2), ("randaugment:27/1", 1)])
def test_randaugment_of_so_many_operations(text: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    applied = []
    whole = v2.RandAugment._apply_image_or_video_transform

    def apply(self: Any, *given: Any, **named: Any) -> Any:
        applied.append(given[1])
        return whole(self, *given, **named)

    monkeypatch.setattr(v2.RandAugment, "_apply_image_or_video_transform", apply)
    augmented(text, torch.zeros(8, 3, 8, 8, dtype=torch.uint8))
    assert len(applied) == count


def test_wide_moves_a_point_across_or_down_by_at_most_five_pixels() -> None:
    images = torch.zeros(3000, 4, 33, 33)
    images[:, :, 16, 16] = 1
    moved = augmented("wide", images)
    assert torch.equal(moved, moved[:, :1].expand_as(moved))  # all frames alike
    seen = moved[:, 0].flatten(1)
    left = seen.any(1)
    assert set(seen.sum(1).tolist()) == {0, 1}
    places = seen[left].argmax(1)
    down, across = places // 33 - 16, places % 33 - 16
    assert not (down * across).any() and down.abs().max() == across.abs().max() == 5
    # One in six shifts, and 26 of 31 magnitudes are a pixel or more.
    assert (down != 0).sum() / 3000 == pytest.approx(26 / 31 / 6, abs=0.02)
    assert (across != 0).sum() / 3000 == pytest.approx(26 / 31 / 6, abs=0.02)


def test_wide_cuts_squares_turns_and_shears() -> None:
    images = torch.zeros(3000, 1, 100, 100)
    images[:, :, 50, :] = 1  # a line across, which a turn and a shift down move, and a shear does not
    out = augmented("wide", images)[:, 0]
    kept = (out == images[:, 0]).flatten(1).all(1)
    # nothing; shears; shifts across lose the line's end; a cut that misses the line, of which most do
    assert 1 / 6 < kept.float().mean() < 4 / 6
    whole = augmented("wide", torch.ones(3000, 1, 100, 100))[:, 0]
    shares = []
    for image in whole:
        rows, columns = ((image == 0).any(axis) for axis in (1, 0))
        if rows.any() and not rows.all() and not columns.all() and (image[rows][:, columns] == 0).all():
            sides = {int(rows.sum()), int(columns.sum())}
            inside = not (image[0] == 0).all() and not (image[-1] == 0).all()
            if len(sides) == 1 and inside:
                shares.append(sides.pop() ** 2 / 1e4)
    assert len(shares) / 3000 == pytest.approx(1 / 6, abs=0.03)
    assert min(shares) < 0.01 and 0.09 < max(shares) <= 0.115


def test_a_flip_of_its_own() -> None:
    images = torch.arange(3.0).expand(400, 1, 1, 3)
    flipped = augmented("flip", images)
    assert (flipped[:, 0, 0, 0] == 2).float().mean() == pytest.approx(0.5, abs=0.08)


def test_erasing_meets_the_share_it_is_given() -> None:
    images = torch.full((4000, 1, 8, 8), 9, dtype=torch.uint8)
    erased = (augmented("erasing:0.3", images) == 0).flatten(1).any(1).float().mean()
    assert erased == pytest.approx(0.3, abs=0.06)


def test_names_apply_in_order_and_standard_is_the_sets_own() -> None:
    images = torch.full((4, 1, 8, 8), 9, dtype=torch.uint8)
    doubled = augmentation("standard+cutout:8", standard=lambda x, generator: x * 2)
    assert doubled is not None
    assert set(doubled(images, Generator()).unique().tolist()) == {0, 18}
    assert augmentation("none") is None and augmentation("standard") is None


def test_a_set_is_augmented_as_asked() -> None:
    loading = Loading(batch_size=100, augment="cutout:4", mean=(0.0,), std=(1.0,))
    sets = load_images("digits", loading=loading)
    first = torch.cat([x for x, _ in sets.train])
    sets.train.sampler.set_epoch(0)
    assert torch.equal(first, torch.cat([x for x, _ in sets.train]))
    # Some quarter of 8x8 pixels is black beside what is so in the images.
    whole = torch.cat(
        [x for x, _ in load_images("digits", loading=Loading(augment="none", mean=(0.0,), std=(1.0,))).train]
    )
    assert 0.10 < (first == 0).float().mean() - (whole == 0).float().mean() < 0.15


@pytest.mark.parametrize("workers", [0, 1])
def test_image_files_are_augmented_before_they_are_normalised(tmp_path: Path, workers: int) -> None:
    for part in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("RGB", (20, 20), (255, 255, 255)).save(tmp_path / part / name / "0.png")
    loading = Loading(
        size=8, batch_size=2, validation=0, workers=workers, augment="standard+cutout:3",
        mean=(0.0,) * 3, std=(1.0,) * 3,
    )  # fmt: skip
    sets = load_images("folder", root=tmp_path, loading=loading)
    images, _ = next(iter(sets.train))
    sets.train.sampler.set_epoch(0)
    assert torch.equal(images, next(iter(sets.train))[0])
    assert {int((image == 0).all(0).sum()) for image in images} <= {4, 6, 9} and images.max() == 1
    assert next(iter(sets.test))[0].min() == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "loading.augment='': expected 'none', 'standard', 'shift'"),
        ("standard+mosaic", "loading.augment='mosaic': expected 'none', .*or 'erasing'"),
        ("none+cutout", "'none' stands alone"),
        ("standard:3", "standard takes no value"),
        ("cutout:0", "'0' is no value for cutout"),
        ("cutout:wide", "'wide' is no value for cutout"),
        ("randaugment:31", "'31' is no value for randaugment"),
        ("randaugment:9/0", "'9/0' is no value for randaugment"),
        ("wide:2", "'2' is no value for wide"),
        ("erasing:2", "'2' is no value for erasing"),
        ("erasing:nan", "'nan' is no value for erasing"),
        ("shift:5000", "'5000' is no value for shift"),
        ("autoaugment:cifar", "'cifar' is no value for autoaugment"),
    ],
)
def test_what_is_not_known_is_told(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Loading(augment=text)


def test_a_shift_of_ones_own() -> None:
    image = torch.zeros(200, 1, 5, 5, dtype=torch.uint8)
    image[:, :, 2, 2] = 255
    shifted = augmentation("shift:2")(image, Generator().manual_seed(0))  # type: ignore[misc]
    rows, columns = shifted[:, 0].nonzero()[:, 1:].unbind(1)
    assert len(rows) == 200
    assert {*rows.tolist()} == {*columns.tolist()} == {0, 1, 2, 3, 4}
    for wrong in ("shift:0", "shift:-1", "shift:far"):
        with pytest.raises(ConfigError, match="is no value for shift"):
            augmentation(wrong)
