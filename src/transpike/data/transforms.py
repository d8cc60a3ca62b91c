"""Transforms from one Pillow image to one normalised tensor, for training and for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from transpike.data.augment import Augment

__all__ = ["evaluation_transform", "training_transform"]

Transform = Callable[[Any], Tensor]


def training_transform(
    size: int, mean: Sequence[float], std: Sequence[float], *, interpolation: str, augment: Augment | None = None
) -> Transform:
    """Return a random resized crop to ``[3, size, size]``, mirrored at random, with torchvision's scales and shapes."""
    from torchvision import transforms as T

    crop = T.RandomResizedCrop(size, interpolation=T.InterpolationMode(interpolation))
    return _compose(T.Compose([crop, T.RandomHorizontalFlip()]), mean, std, augment)


def evaluation_transform(
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    crop: float,
    interpolation: str,
    augment: Augment | None = None,
) -> Transform:
    """Return a transform that resizes the shorter side to ``size / crop``, then crops ``[3, size, size]`` centrally."""
    from torchvision import transforms as T

    resize = T.Resize(round(size / crop), interpolation=T.InterpolationMode(interpolation))
    return _compose(T.Compose([resize, T.CenterCrop(size)]), mean, std, augment)


def _compose(
    geometry: Callable[[Any], Any], mean: Sequence[float], std: Sequence[float], augment: Augment | None
) -> Transform:
    from torchvision import transforms as T

    between = [] if augment is None else [partial(_alone, augment=augment)]
    transform: Transform = T.Compose(
        [geometry, T.PILToTensor(), *between, T.ConvertImageDtype(torch.float32), T.Normalize(mean, std)]
    )
    return transform


def _alone(image: Tensor, *, augment: Augment) -> Tensor:
    generator = Generator().manual_seed(int(torch.randint(2**62, ())))
    return augment(image[None], generator)[0]
