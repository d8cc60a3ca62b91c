"""Evenly spaced images of a set, and images as small PNG files in base64, which result files can store."""

from __future__ import annotations

import base64
import io

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from transpike.data import EventSets, ImageSets
from transpike.errors import ConfigError

__all__ = ["chosen_loader", "pixels_of", "png"]


def chosen_loader(sets: ImageSets | EventSets, part: str, images: int) -> DataLoader[tuple[Tensor, Tensor]]:
    """Return a loader of so many of the test or validation images, evenly spaced over the set.

    Raises:
        ConfigError: The part is empty.
    """
    loader = sets.test if part == "test" else sets.validation
    most = len(loader.dataset)  # type: ignore[arg-type]
    if most == 0:
        raise ConfigError(f"{sets.name} has no {part} images, because loading.validation is 0. Use --part test.")
    places = torch.linspace(0, most - 1, min(images, most)).round().long().tolist()
    return DataLoader(
        Subset(loader.dataset, places), batch_size=loader.batch_size, collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
    )  # fmt: skip


def pixels_of(images: Tensor, sets: ImageSets) -> Tensor:
    """Return images [*, C, H, W] before normalisation, in [0, 1]."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (sets.mean, sets.std))
    return (images.cpu() * std + mean).clamp(0, 1)


def png(pixels: Tensor) -> str:
    """Return pixels [C, H, W] in [0, 1], grey or coloured, as PNG in base64.

    Example:
        >>> png(torch.zeros(1, 2, 2))[:11]
        'iVBORw0KGgo'
    """
    from PIL import Image

    shown = pixels.cpu().expand(3, -1, -1) if len(pixels) == 1 else pixels.cpu()[:3]
    file = io.BytesIO()
    Image.fromarray((255 * shown.clamp(0, 1)).round().byte().movedim(0, -1).numpy()).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()
