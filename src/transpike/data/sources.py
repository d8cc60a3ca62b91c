"""The named image sets: where their files lie, how to read them, and errors for wrong files."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from transpike.errors import DataError

__all__ = ["SOURCES", "Part", "Raw", "Source"]

LARGEST = 2**28
"""The largest size of a file in bytes. Files are read completely."""

_AGAIN = "Delete that folder and lay the files there again, or pass --download."


class Part(NamedTuple):
    """uint8 images ``[M, C, H, W]`` and their int64 labels ``[M]``."""

    images: Tensor
    labels: Tensor


class Raw(NamedTuple):
    """A set as its files store it."""

    train: Part
    test: Part
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """How to read, normalise and augment a named set.

    Attributes:
        read: A function from the root folder, and whether to download, to the images.
        mean: The mean of the training pixels between 0 and 1, for each channel.
        std: Their standard deviation, likewise.
        shift: The random shift of the standard augmentation, in pixels.
        flip: Whether the standard augmentation mirrors images (a mirrored digit is not a digit).
    """

    read: Callable[[Path, bool], Raw]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    shift: int
    flip: bool


def _digits(root: Path, download: bool) -> Raw:
    """Scikit-learn's 1,797 digits of 8x8 pixels. They have no split, so a fixed fifth of each class is for tests."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = torch.from_numpy(bunch.images * 255 / 16).round().to(torch.uint8)[:, None]
    labels = torch.from_numpy(bunch.target).long()
    train, test = train_test_split(torch.arange(len(labels)).numpy(), test_size=0.2, stratify=labels, random_state=0)
    return Raw(Part(images[train], labels[train]), Part(images[test], labels[test]), tuple(map(str, range(10))))


def _torchvision(kind: str, folder: str, files: tuple[str, ...]) -> Callable[[Path, bool], Raw]:
    """Return a reader of the torchvision data set ``kind``, whose published files lie in ``folder`` under the root."""

    def read(root: Path, download: bool) -> Raw:
        from torchvision import datasets

        missing = [name for name in files if not (root / folder / name).is_file()]
        if missing and not download:
            raise DataError(
                f"{kind}: {', '.join(missing)} not found in {root / folder}. Put the published files there, name "
                "another folder with --root, or pass --download."
            )
        for path in (root / folder / name for name in files if name not in missing):
            if (size := path.stat().st_size) > LARGEST:
                raise DataError(f"{kind}: {path} has {size:,} bytes, more than any published file. {_AGAIN}")
        try:
            train, test = (
                getattr(datasets, kind)(os.fspath(root), train=part, download=download) for part in (True, False)
            )
            return Raw(_part(train), _part(test), tuple(train.classes))
        except OSError as error:
            raise DataError(f"{kind}: cannot read or download {root / folder}: {error}") from error
        except (AssertionError, EOFError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise DataError(
                f"{kind}: a file in {root / folder} is damaged, or not the published one ({error}). {_AGAIN}"
            ) from error

    return read


def _part(dataset: Any) -> Part:
    images = torch.as_tensor(dataset.data)
    images = images[:, None] if images.ndim == 3 else images.movedim(-1, 1).contiguous()
    labels = torch.as_tensor(dataset.targets)
    if not len(images) == len(labels) > 0:
        raise ValueError(f"{len(images)} images but {len(labels)} labels")
    if not 0 <= labels.min() <= labels.max() < len(dataset.classes):
        raise ValueError(f"labels from {labels.min()} to {labels.max()}, but {len(dataset.classes)} classes")
    return Part(images, labels)


_IDX = tuple(f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1"))
_CIFAR10 = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")

SOURCES = {
    "digits": Source(_digits, (0.305,), (0.376,), shift=1, flip=False),
    "mnist": Source(_torchvision("MNIST", "MNIST/raw", _IDX), (0.1307,), (0.3081,), shift=2, flip=False),
    "fashion_mnist": Source(
        _torchvision("FashionMNIST", "FashionMNIST/raw", _IDX), (0.2860,), (0.3530,), shift=2, flip=True
    ),
    "cifar10": Source(
        _torchvision("CIFAR10", "cifar-10-batches-py", _CIFAR10),
        (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), shift=4, flip=True,
    ),
    "cifar100": Source(
        _torchvision("CIFAR100", "cifar-100-python", ("train", "test", "meta")),
        (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), shift=4, flip=True,
    ),
}  # fmt: skip
