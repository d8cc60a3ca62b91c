"""The augmentation of frames of events with which spiking transformers are trained: one operation of six an image."""

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
"""Shares of the image's area that a cut square has."""


def wide(images: Tensor, generator: Generator) -> Tensor:
    """Do one operation with each image, of a random magnitude: nothing, a shear, a shift, a turn, or a cut square.

    Each is as likely. Magnitudes are one of 31 steps from the largest to one side to that to the other: shears to 17
    degrees, shifts to 5 pixels across or down, turns to 30 degrees; nearest pixels, and black where there is none. The
    square's area is 0.1 to 11 % of the image's.

    Source: ``SNNAugmentWide`` of Spikformer's, Spikingformer's and QKFormer's public code for CIFAR10-DVS, after Müller
    and Hutter, "TrivialAugment", ICCV 2021.

    Args:
        images: [N, C, H, W]; frames of a recording as channels, so that all of them move alike.
        generator: on the CPU.

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
