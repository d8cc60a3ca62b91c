"""Class folders of image files, named freely or by ImageNet's synsets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from transpike.data import Loading, load_images
from transpike.errors import DataError

TENCH, SPRINGER, PARACHUTE = "n01440764", "n02102040", "n03888257"  # ImageNet's 0, 217 and 701
PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3}


def lay_out(root: Path, classes: dict[str, int], *, train: int = 6, val: int = 2) -> Path:
    """Images of one grey level per class, 40x30 pixels, each part in class folders."""
    for part, count in (("train", train), ("val", val)):
        for name, grey in classes.items():
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (40, 30), (grey, grey, grey)).save(folder / f"{number}.JPEG")
    return root


def labels_by_grey(root: Path, loading: Loading) -> dict[int, int]:
    images, labels = next(iter(load_images("folder", root=root, loading=loading).test))
    assert images.dtype == torch.float32 and labels.dtype == torch.int64
    return {round(float(image.mean()) * 255): int(label) for image, label in zip(images, labels, strict=True)}


def test_folders_become_labels_in_sorted_order(tmp_path: Path) -> None:
    root = lay_out(tmp_path, {"owl": 50, "auk": 100, "emu": 200})
    loading = Loading(size=16, **PLAIN)
    assert labels_by_grey(root, loading) == {100: 0, 200: 1, 50: 2}
    sets = load_images("folder", root=root, loading=loading)
    assert sets.class_names == ("auk", "emu", "owl") and sets.classes == 3
    assert (len(sets.train.dataset), len(sets.validation.dataset), len(sets.test.dataset)) == (16, 2, 6)
    assert next(iter(sets.train))[0].shape == (16, 3, 16, 16)


def test_synsets_get_imagenets_indices_when_the_network_has_1000_outputs(tmp_path: Path) -> None:
    root = lay_out(tmp_path, {PARACHUTE: 50, TENCH: 100, SPRINGER: 200})
    assert labels_by_grey(root, Loading(size=16, outputs=1000, **PLAIN)) == {50: 701, 100: 0, 200: 217}
    assert labels_by_grey(root, Loading(size=16, outputs=3, **PLAIN)) == {50: 2, 100: 0, 200: 1}
    assert load_images("folder", root=root, loading=Loading(outputs=1000)).classes == 1000


def test_a_synset_outside_imagenet_is_refused(tmp_path: Path) -> None:
    root = lay_out(tmp_path, {TENCH: 50, "n00000001": 60})
    with pytest.raises(DataError, match="n00000001: not among ImageNet's 1000"):
        load_images("folder", root=root, loading=Loading(outputs=1000))


def test_evaluation_cuts_the_centre(tmp_path: Path) -> None:
    root = lay_out(tmp_path, {"a": 0, "b": 0}, val=1)
    image = Image.new("RGB", (40, 20))
    image.paste((255, 255, 255), (10, 0, 30, 20))
    image.save(root / "val" / "a" / "0.JPEG", quality=100)
    bright = Loading(size=20, crop=1.0, **PLAIN)
    assert next(iter(load_images("folder", root=root, loading=bright).test))[0][0].mean() > 0.99
    half = Loading(size=20, crop=0.5, **PLAIN)  # the image at 80x40, its middle 20x20
    assert next(iter(load_images("folder", root=root, loading=half).test))[0][0].min() > 0.99


def test_augmentation_depends_on_seed_and_epoch_not_on_the_workers(tmp_path: Path) -> None:
    root = lay_out(tmp_path, {"a": 0, "b": 0}, train=3)
    for number in range(3):
        Image.linear_gradient("L").save(root / "train" / "a" / f"{number}.JPEG")

    def epochs(workers: int, seed: int = 0) -> list[torch.Tensor]:
        loading = Loading(size=8, batch_size=2, validation=0, workers=workers, seed=seed)
        train = load_images("folder", root=root, loading=loading).train
        return [torch.cat([images for images, _ in train]) for _ in range(2)]

    alone, helped = epochs(0), epochs(1)
    for one, other in zip(alone, helped, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert not torch.equal(alone[0].sort(0).values, alone[1].sort(0).values)
    assert not torch.equal(alone[0].sort(0).values, epochs(0, seed=1)[0].sort(0).values)


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train does not exist: .* train/ and val/"):
        load_images("folder", root=tmp_path)
    root = lay_out(tmp_path, {"a": 0, "b": 0})
    (root / "train" / "c").mkdir()
    with pytest.raises(DataError, match=r"no images in the class folders c\."):
        load_images("folder", root=root)
    (root / "train" / "c").rmdir()
    (root / "val" / "d").mkdir()
    Image.new("RGB", (4, 4)).save(root / "val" / "d" / "0.png")
    with pytest.raises(DataError, match="classes that train/ lacks: d"):
        load_images("folder", root=root)


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="holds no class folders"):
        load_images("folder", root=tmp_path)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named(tmp_path: Path, workers: int) -> None:
    root = lay_out(tmp_path, {"a": 0, "b": 0})
    whole = (root / "val" / "a" / "0.JPEG").read_bytes()
    (root / "val" / "a" / "0.JPEG").write_bytes(whole[: len(whole) // 2])
    sets = load_images("folder", root=root, loading=Loading(size=8, workers=workers))
    with pytest.raises(DataError, match=r"0\.JPEG is not a readable image"):
        list(sets.test)
