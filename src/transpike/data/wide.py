"""An augmentation of event frames, used to train spiking transformers: one of six operations for each image."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

__all__ = ["wide"]

OPERATIONS = ("identity", "shear", "across", "down", "turn", "cutout")
BINS = 31
SHEAR, SHIFT, TURN = math.degrees(0.3), 5, 30.0
"""The largest magnitudes: degrees, pixels, degrees."""

CUT = (0.001, 0.11)
"""The shares of the image's area that the cut square may have."""


def wide(images: Tensor, generator: Generator) -> Tensor:
    """Apply one random operation to each image: nothing, a shear, a shift, a rotation, or a cut square.

    All are equally likely. A magnitude is one of 31 steps from the largest in one direction to the largest in the
    other: shears up to 17 degrees, shifts up to 5 pixels horizontally or vertically, rotations up to 30 degrees. Pixels
        are the nearest ones, and black outside the image. The square has 0.1 to 11 % of the image's area.

    Source: ``SNNAugmentWide`` in the public code of Spikformer, Spikingformer and QKFormer for CIFAR10-DVS, after
        Müller and Hutter, "TrivialAugment", ICCV 2021.

    Args:
        images: [N, C, H, W]. The frames of a recording are channels, so that all of them move alike.
        generator: a generator on the CPU.

    Example:
        >>> wide(torch.ones(3, 2, 8, 8), Generator().manual_seed(0)).shape
        torch.Size([3, 2, 8, 8])
    """
    return torch.stack([_one(image, generator) for image in images])


def _one(image: Tensor, generator: Generator) -> Tensor:
    from torchvision.transforms.v2 import functional

    operation = OPERATIONS[_drawn(len(OPERATIONS), generator)]
    middle = BINS // 2
    magnitude = (_drawn(BINS, generator) - middle) / middle
    if operation == "identity":
        return image
    if operation == "cutout":
        return _cut(image, generator)
    shift = int(magnitude * SHIFT)
    moved: Tensor = functional.affine(
        image,
        angle=magnitude * TURN if operation == "turn" else 0.0,
        translate=[shift if operation == "across" else 0, shift if operation == "down" else 0],
        scale=1.0,
        shear=[magnitude * SHEAR if operation == "shear" else 0.0, 0.0],
    )
    return moved


def _cut(image: Tensor, generator: Generator) -> Tensor:
    height, width = image.shape[-2:]
    share = CUT[0] + (CUT[1] - CUT[0]) * float(torch.rand((), generator=generator))
    side = min(round(math.sqrt(share * height * width)), height, width)
    top, left = _drawn(height - side + 1, generator), _drawn(width - side + 1, generator)
    image = image.clone()
    image[..., top : top + side, left : left + side] = 0
    return image


def _drawn(count: int, generator: Generator) -> int:
    return int(torch.randint(count, (), generator=generator))
