"""Named sets, from files in the published formats, and what is said when these are wrong."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import datasets

from transpike.data import Loading, load_images
from transpike.errors import ConfigError, DataError


def write_idx(path: Path, array: np.ndarray[Any, Any]) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(header + array.tobytes())


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for part, count in (("train", 50), ("t10k", 20)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = draw.integers(0, 200, (count, 28, 28), dtype=np.uint8)
        images[:, 0, 0] = 20 * labels  # so that an image tells its label
        write_idx(raw / f"{part}-images-idx3-ubyte", images)
        write_idx(raw / f"{part}-labels-idx1-ubyte", labels)
    return tmp_path


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-10's seven files with four images each; torchvision is told their checksums in place of the real ones."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()

    def write(name: str, content: dict[str, Any]) -> list[str]:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def batch(first: int) -> dict[str, Any]:
        labels = [(first + index) % 10 for index in range(4)]
        pixels = np.zeros((4, 3, 32, 32), np.uint8)
        pixels[:, 0] = 20 * np.array(labels)[:, None, None]
        pixels[:, 2, 0] = 255
        return {"data": pixels.reshape(4, -1), "labels": labels}

    train = [write(f"data_batch_{number}", batch(4 * number)) for number in range(1, 6)]
    test = [write("test_batch", batch(0))]
    meta = write("batches.meta", {"label_names": [f"class {label}" for label in range(10)]})
    monkeypatch.setattr(datasets.CIFAR10, "train_list", train)
    monkeypatch.setattr(datasets.CIFAR10, "test_list", test)
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})
    return tmp_path


def test_digits_are_split_by_class_and_never_overlap() -> None:
    sets = load_images("digits", loading=Loading(batch_size=2000, augment="none"))
    parts = {"train": sets.train, "validation": sets.validation, "test": sets.test}
    labels = {name: torch.cat([y for _, y in loader]) for name, loader in parts.items()}
    assert {name: len(y) for name, y in labels.items()} == {"train": 1293, "validation": 144, "test": 360}
    counts = torch.bincount(labels["test"])
    assert counts.min() >= 34 and counts.max() <= 37
    images = torch.cat([x for x, _ in [*sets.train, *sets.validation]])
    assert images.mean().abs() < 0.01 and (images.std() - 1).abs() < 0.01
    assert (sets.classes, sets.channels, sets.size) == (10, 1, 8)


def test_the_test_set_is_the_same_for_every_seed_and_validation_is_not() -> None:
    one, other = (load_images("digits", loading=Loading(seed=seed, test_images=50)) for seed in (0, 1))
    torch.testing.assert_close(next(iter(one.test))[0], next(iter(other.test))[0], rtol=0, atol=0)
    assert not torch.equal(next(iter(one.validation))[0], next(iter(other.validation))[0])
    assert len(one.test.dataset) == 50


def test_calibration_draws_plain_training_images_whatever_the_batch() -> None:
    few, many = (load_images("digits", loading=Loading(batch_size=size, validation=0.2)) for size in (7, 300))
    drawn = torch.cat([x for x, _ in few.calibration(100)])
    torch.testing.assert_close(drawn, torch.cat([x for x, _ in many.calibration(100)]), rtol=0, atol=0)
    assert len(drawn) == 100
    train = {image.numpy().tobytes() for image in few.plain.__getitems__(range(len(few.plain)))[0]}
    assert {image.numpy().tobytes() for image in drawn} <= train
    assert sum(len(y) for _, y in few.calibration(10**6)) == len(few.plain) == 1150
    with pytest.raises(ConfigError, match="images=0: expected a whole number of at least 1"):
        few.calibration(0)


def test_training_batches_are_augmented_and_whole() -> None:
    sets = load_images("digits", loading=Loading(batch_size=100))
    batches = list(sets.train)
    assert [len(y) for _, y in batches] == [100] * 12
    plain = {image.numpy().tobytes() for image in sets.plain.__getitems__(range(len(sets.plain)))[0]}
    kept = sum(image.numpy().tobytes() in plain for x, _ in batches for image in x)
    assert 50 < kept < 300  # one shift in nine is none


def test_mnist_is_read_from_idx_files(mnist: Path) -> None:
    sets = load_images("mnist", root=mnist, loading=Loading(batch_size=8, augment="none", mean=(0.0,), std=(1.0,)))
    for loader, count in ((sets.train, 40), (sets.validation, 5), (sets.test, 20)):
        seen = 0
        for images, labels in loader:
            assert images.shape[1:] == (1, 28, 28) and images.dtype == torch.float32 and labels.dtype == torch.int64
            torch.testing.assert_close(images[:, 0, 0, 0] * 255, 20.0 * labels)
            seen += len(labels)
        assert seen == count


def test_cifar10_is_read_from_its_batches(cifar10: Path) -> None:
    sets = load_images("cifar10", root=cifar10, loading=Loading(batch_size=20, validation=0, size=16))
    images, labels = next(iter(sets.test))
    assert images.shape == (4, 3, 16, 16) and sets.size == 16 and sets.class_names[3] == "class 3"
    torch.testing.assert_close(images[:, 0, 8, 8], (20.0 * labels / 255 - 0.4914) / 0.2470)
    torch.testing.assert_close(images[:, 1], torch.full((4, 16, 16), -0.4822 / 0.2435))
    assert len(sets.validation) == 0 and sum(len(y) for _, y in sets.train) == 20


def test_cifar10_is_augmented_by_shift_and_mirror(cifar10: Path) -> None:
    loading = Loading(batch_size=20, validation=0, mean=(0.0,) * 3, std=(1.0,) * 3)
    images, labels = next(iter(load_images("cifar10", root=cifar10, loading=loading).train))
    torch.testing.assert_close(images[:, 0, 16, 16] * 255, 20.0 * labels)
    tops = {int(row[0]) if len(row) else -1 for row in ((image[2, :, 16] == 1).nonzero() for image in images)}
    assert len(tops) > 2


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"CIFAR100: train, test, meta not found in .*cifar-100-python.*--download"):
        load_images("cifar100", root=tmp_path)


@pytest.mark.parametrize("content", [b"", b"\0\0\x08\x03\0\0", b"\0\0\x08\x03" + 12 * b"\1", b"not an IDX file at all"])
def test_a_damaged_mnist_is_refused(mnist: Path, content: bytes) -> None:
    (mnist / "MNIST" / "raw" / "t10k-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DataError, match=r"MNIST: a file in .*raw is damaged"):
        load_images("mnist", root=mnist)


def test_a_file_longer_than_any_published_one_is_not_read(mnist: Path) -> None:
    os.truncate(mnist / "MNIST" / "raw" / "t10k-labels-idx1-ubyte", 2**40)
    with pytest.raises(DataError, match=r"1,099,511,627,776 bytes, more than any published file"):
        load_images("mnist", root=mnist)


def test_labels_beyond_the_classes_are_refused(mnist: Path) -> None:
    write_idx(mnist / "MNIST" / "raw" / "train-labels-idx1-ubyte", np.full(50, 11, np.uint8))
    with pytest.raises(DataError, match="labels from 11 to 11, but 10 classes"):
        load_images("mnist", root=mnist)


def test_a_truncated_cifar10_is_refused(cifar10: Path) -> None:
    path = cifar10 / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"CIFAR10: a file in .* is damaged"):
        load_images("cifar10", root=cifar10)


def test_an_unknown_name_gets_its_neighbours() -> None:
    with pytest.raises(DataError, match=r"'cifar'.*Did you mean cifar1"):
        load_images("cifar")
    with pytest.raises(DataError, match="Known: digits, mnist"):
        load_images("xyz")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"batch_size": 0}, "a whole number of at least 1"),
        ({"batch_size": 1.5}, "a whole number of at least 1"),
        ({"batch_size": True}, "a whole number of at least 1"),
        ({"validation": 1.0}, "a number in [0, 1)"),
        ({"validation": -0.1}, "a number in [0, 1)"),
        ({"validation": float("nan")}, "a number in [0, 1)"),
        ({"workers": -1}, "a whole number from 0 to 1024"),
        ({"seed": 2**80}, "a whole number from 0 to 9223372036854775807"),
        (
            {"augment": "lots"},
            "'none', 'standard', 'shift', 'flip', 'wide', 'autoaugment', 'randaugment', 'cutout' or 'erasing'",
        ),
        ({"augment": 3}, "names joined by +"),
        ({"interpolation": "bilinar"}, "'nearest', 'bilinear' or 'bicubic'. Did you mean 'bilinear'?"),
        ({"crop": 0.0}, "a number in (0, 1]"),
        ({"mean": ()}, "a number for each channel"),
        ({"mean": (0.5, "dark")}, "a finite number"),
        ({"std": (0.0,)}, "a number above 0"),
        ({"std": (float("inf"),)}, "a number above 0"),
        ({"size": 0}, "a whole number from 1 to 32768"),
        ({"size": 10**9}, "a whole number from 1 to 32768"),
        ({"train_images": -4}, "a whole number of at least 1"),
        ({"test_images": 0}, "a whole number of at least 1"),
        ({"outputs": -1}, "a whole number of at least 0"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=rf"^loading\.{next(iter(options))}=.*: expected {re.escape(expected)}\.?$"):
        Loading(**options)


@pytest.mark.parametrize("device", ["meta", "nowhere", 0.5])
def test_a_device_that_holds_nothing_is_refused(device: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^loading\.device={device!r} cannot hold images here \(.*\)\. Take cpu\.$"):
        Loading(device=device)


def test_options_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    for name in ("mnist", "folder"):  # of which there is nothing
        with pytest.raises(ConfigError, match=r"loading\.mean and loading\.std need"):
            load_images(name, root=tmp_path, loading=Loading(mean=(0.5, 0.5)))


def test_a_root_that_no_disk_takes_is_one_error(tmp_path: Path) -> None:
    for name in ("mnist", "folder"):
        with pytest.raises(DataError, match=r"xxx.* cannot be read: its name is too long\. Name a shorter one\."):
            load_images(name, root=tmp_path / ("x" * 300))


def test_statistics_must_fit_the_channels() -> None:
    with pytest.raises(ConfigError, match="1 values, one per channel"):
        load_images("digits", loading=Loading(mean=(0.5, 0.5, 0.5)))


def test_validation_may_not_take_everything() -> None:
    with pytest.raises(DataError, match="leaves no image of 1"):
        load_images("digits", loading=Loading(train_images=1, validation=0.9))
