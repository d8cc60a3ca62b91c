"""Augmentation of whole batches of uint8 images ``[N, C, H, W]``, on the device on which they lie.

The random numbers are drawn on the CPU, a few per image, so that a seed gives the same batch on every device.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

__all__ = ["random_flip", "random_shift"]


def random_shift(images: Tensor, *, pixels: int, generator: Generator) -> Tensor:
    """Pad with zeros by ``pixels`` on each side and crop each image at a random place of its own.

    Args:
        images: ``[N, C, H, W]``.
        pixels: The largest shift in either direction, up and left as likely as down and right.
        generator: A CPU generator; two integers are drawn per image.

    >>> images = torch.ones(1, 1, 4, 4)
    >>> random_shift(images, pixels=1, generator=Generator()).sum().item() in {9, 12, 16}
    True
    """
    count, _, height, width = images.shape
    corners = torch.randint(0, 2 * pixels + 1, (2, count, 1), generator=generator).to(images.device)
    rows = corners[0] + torch.arange(height, device=images.device)
    columns = corners[1] + torch.arange(width, device=images.device)
    padded = F.pad(images, (pixels,) * 4).movedim(1, -1)
    batch = torch.arange(count, device=images.device)[:, None, None]
    return padded[batch, rows[:, :, None], columns[:, None, :]].movedim(-1, 1).contiguous()


def random_flip(images: Tensor, *, generator: Generator) -> Tensor:
    """Mirror each image left to right with probability one half.

    >>> images = torch.tensor([1, 2, 3]).expand(100, 1, 1, 3)
    >>> random_flip(images, generator=Generator()).flatten(1).unique(dim=0)
    tensor([[1, 2, 3],
            [3, 2, 1]])
    """
    flipped = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    return torch.where(flipped.to(images.device), images.flip(-1), images)
