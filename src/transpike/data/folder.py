"""Image files in class folders: ImageNet, Tiny-ImageNet and any set with the same layout."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from transpike.data.batches import seed_of
from transpike.data.image_files import read_image
from transpike.errors import DataError

__all__ = ["FolderImages", "class_names", "list_images"]

Samples = Sequence[tuple[str, int]]

# The formats that Pillow reads and image sets use.
_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class FolderImages(Dataset[tuple[Tensor, int]]):
    """Image files, read and transformed one at a time, in worker processes if there are any.

    Item ``epoch * len(self) + index`` is image ``index`` with that epoch's augmentation. The augmentation depends only
    on ``seed`` and on the item, not on the process that reads it.

    Args:
        samples: Each image's path and label.
        transform: A function from an RGB Pillow image to a float32 tensor ``[3, H, W]``.
        seed: Determines the transform's random choices.
    """

    def __init__(self, samples: Samples, transform: Callable[[Any], Tensor], *, seed: int = 0) -> None:
        self.samples = samples
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        path, label = self.samples[item % len(self)]
        # torchvision's transforms draw from the CPU's global generator. Seeding only this one leaves CUDA's unchanged.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_of(self.seed, item))
            return self.transform(read_image(path)), label


def list_images(folder: Path) -> dict[str, list[str]]:
    """Return each class folder's image files, sorted.

    Raises:
        DataError: There is no such folder, it has no class folders, or a class folder has no image.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist: a folder set has train/ and val/, each with one folder per class.")
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise DataError(f"{folder} holds no class folders: put the images of each class into a separate folder.")
    images = {path.name: sorted(_image_files(path)) for path in classes}
    empty = [name for name, files in images.items() if not files]
    if empty:
        raise DataError(f"{folder}: no images in the class folders {', '.join(empty[:5])}. Fill or remove them.")
    return images


def class_names(folders: Sequence[str], outputs: int | None) -> tuple[str, ...]:
    """Return the classes in the order of their labels: the folders in sorted order, or ImageNet's 1000 synsets.

    They are ImageNet's if every folder is named by a synset id (``n01440764``) and the network has 1000 ``outputs``. So
    a published network can be tested on some of its classes.

    Raises:
        DataError: A synset is not among ImageNet's 1000.

    Example:
        >>> class_names(["dog", "cat"], None)
        ('cat', 'dog')
        >>> class_names(["n01443537"], 1000).index("n01443537")
        1
    """
    if outputs != 1000 or not all(re.fullmatch(r"n\d{8}", name) for name in folders):
        return tuple(sorted(folders))
    from timm.data.imagenet_info import ImageNetInfo

    synsets = tuple(ImageNetInfo().label_names())
    foreign = sorted(set(folders) - set(synsets))
    if foreign:
        raise DataError(
            f"{', '.join(foreign[:5])}: not among ImageNet's 1000 classes, which the network distinguishes."
        )
    return synsets


def _image_files(folder: Path) -> Iterator[str]:
    # Strings instead of paths, because ImageNet has 1.3 million of them.
    for place, _, files in os.walk(folder):
        for name in files:
            if name.lower().endswith(_SUFFIXES) and not name.startswith("."):
                yield os.path.join(place, name)
