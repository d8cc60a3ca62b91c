"""From one Pillow image to one normalised tensor, for training and for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

__all__ = ["evaluation_transform", "training_transform"]

Transform = Callable[[Any], Tensor]


def training_transform(size: int, mean: Sequence[float], std: Sequence[float], *, interpolation: str) -> Transform:
    """Random resized crop to ``[3, size, size]`` and mirroring, with torchvision's usual scales and shapes."""
    from torchvision import transforms as T

    crop = T.RandomResizedCrop(size, interpolation=T.InterpolationMode(interpolation))
    return _compose(T.Compose([crop, T.RandomHorizontalFlip()]), mean, std)


def evaluation_transform(
    size: int, mean: Sequence[float], std: Sequence[float], *, crop: float, interpolation: str
) -> Transform:
    """Resize the shorter side to ``size / crop``, then cut ``[3, size, size]`` from the centre."""
    from torchvision import transforms as T

    resize = T.Resize(round(size / crop), interpolation=T.InterpolationMode(interpolation))
    return _compose(T.Compose([resize, T.CenterCrop(size)]), mean, std)


def _compose(geometry: Callable[[Any], Any], mean: Sequence[float], std: Sequence[float]) -> Transform:
    from torchvision import transforms as T

    transform: Transform = T.Compose([geometry, T.ToTensor(), T.Normalize(mean, std)])
    return transform
