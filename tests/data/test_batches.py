"""Order of an epoch, its shares among processes, and batches from memory."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor
from torch.utils.data import DataLoader

from transpike.data import EpochSampler, MemoryImages, batches
from transpike.data.augment import random_flip, random_shift


def noise(images: Tensor, generator: Generator) -> Tensor:
    return torch.randint(0, 256, images.shape, dtype=torch.uint8, generator=generator)


@given(images=st.integers(0, 40), world=st.integers(1, 5), shuffle=st.booleans(), epoch=st.integers(0, 3))
def test_shares_make_up_the_epoch(images: int, world: int, shuffle: bool, epoch: int) -> None:
    shares = []
    with pytest.MonkeyPatch.context() as patch:
        for rank in range(world):
            patch.setattr(batches, "_place", lambda rank=rank: (rank, world))
            sampler = EpochSampler(images, seed=3, shuffle=shuffle)
            sampler.set_epoch(epoch)
            length = len(sampler)
            shares.append(list(sampler))
            assert len(shares[-1]) == length
    together = sorted(item % images for share in shares for item in share)
    assert len(set(together)) == len(together)
    if shuffle:
        assert {len(share) for share in shares} == {images // world}
        assert all(item // images == epoch for share in shares for item in share)
    else:
        assert together == list(range(images))


def test_epochs_differ_and_come_back() -> None:
    sampler = EpochSampler(50, seed=1)
    first, second = list(sampler), list(sampler)
    assert sorted(second) == list(range(50, 100))
    assert [item % 50 for item in first] != [item % 50 for item in second]
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert list(EpochSampler(50, seed=2)) != first


def test_a_resumed_epoch_sees_the_same_batches() -> None:
    pixels = torch.randint(0, 256, (20, 1, 6, 6), dtype=torch.uint8)
    images = MemoryImages(pixels, torch.arange(20), (0.5,), (0.2,), augment=noise, seed=5)

    def loader() -> DataLoader[tuple[Tensor, Tensor]]:
        return DataLoader(images, batch_size=8, sampler=EpochSampler(20, seed=5), collate_fn=lambda batch: batch)

    whole = loader()
    first, second = list(whole), list(whole)
    resumed = loader()
    resumed.sampler.set_epoch(1)
    for (x, y), (again, labels) in zip(second, resumed, strict=True):
        torch.testing.assert_close(x, again, rtol=0, atol=0)
        assert y.tolist() == labels.tolist()
    assert not torch.equal(first[0][0], second[0][0])


def test_pixels_are_normalised_per_channel() -> None:
    pixels = torch.tensor([[0, 255], [51, 102]], dtype=torch.uint8).reshape(1, 2, 1, 2)
    image, label = MemoryImages(pixels, torch.tensor([7]), (0.5, 0.2), (0.25, 0.1))[0]
    torch.testing.assert_close(image.flatten(), torch.tensor([-2.0, 2.0, 0.0, 2.0]))
    assert label == 7


def test_a_size_resizes_the_batch() -> None:
    pixels = torch.full((3, 1, 8, 8), 255, dtype=torch.uint8)
    images, _ = MemoryImages(pixels, torch.zeros(3).long(), (0.0,), (1.0,), size=12).__getitems__([0, 2])
    torch.testing.assert_close(images, torch.ones(2, 1, 12, 12))


@given(pixels=st.integers(0, 3), seed=st.integers(0, 99), height=st.integers(1, 7), width=st.integers(1, 7))
def test_a_shift_is_a_crop_of_the_padded_image(pixels: int, seed: int, height: int, width: int) -> None:
    images = torch.randint(1, 256, (3, 2, height, width), dtype=torch.uint8)
    shifted = random_shift(images, pixels=pixels, generator=Generator().manual_seed(seed))
    padded = torch.zeros(3, 2, height + 2 * pixels, width + 2 * pixels, dtype=torch.uint8)
    padded[:, :, pixels : pixels + height, pixels : pixels + width] = images
    places = range(2 * pixels + 1)
    for image, wide in zip(shifted, padded, strict=True):
        crops = [wide[:, top : top + height, left : left + width] for top in places for left in places]
        assert any(torch.equal(image, crop) for crop in crops)


def test_shifts_and_flips_are_drawn_evenly() -> None:
    images = torch.zeros(9000, 1, 3, 3)
    images[:, :, 1, 1] = 1
    shifted = random_shift(images, pixels=1, generator=Generator().manual_seed(0))
    torch.testing.assert_close(shifted.mean(0), torch.full((1, 3, 3), 1 / 9), atol=0.015, rtol=0)
    images[:, :, 1, :] = torch.tensor([1.0, 0.0, 0.0])
    flipped = random_flip(images, generator=Generator().manual_seed(0))
    torch.testing.assert_close(flipped.mean(0)[0, 1], torch.tensor([0.5, 0.0, 0.5]), atol=0.02, rtol=0)
