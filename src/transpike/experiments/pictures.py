"""Images as small PNG files in base64, which result files can hold."""

from __future__ import annotations

import base64
import io

import torch
from torch import Tensor

from transpike.data import ImageSets

__all__ = ["pixels_of", "png"]


def pixels_of(images: Tensor, sets: ImageSets) -> Tensor:
    """Images [*, C, H, W] as they were before normalisation, in [0, 1]."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (sets.mean, sets.std))
    return (images.cpu() * std + mean).clamp(0, 1)


def png(pixels: Tensor) -> str:
    """Pixels [C, H, W] in [0, 1], grey or of colours, as PNG in base64.

    >>> png(torch.zeros(1, 2, 2))[:11]
    'iVBORw0KGgo'
    """
    from PIL import Image

    shown = pixels.cpu().expand(3, -1, -1) if len(pixels) == 1 else pixels.cpu()[:3]
    file = io.BytesIO()
    Image.fromarray((255 * shown.clamp(0, 1)).round().byte().movedim(0, -1).numpy()).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()
