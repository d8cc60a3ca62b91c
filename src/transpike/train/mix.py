"""Mixes pairs of images of a batch, and their targets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Mixture", "mix"]


@dataclass(frozen=True)
class Mixture:
    """Image i consists of `share` of image i and the rest of image `partner[i]`."""

    partner: Tensor
    share: float

    def target(self, labels: Tensor, num_classes: int) -> Tensor:
        """Return probabilities [N, classes] for class indices [N].

        Example:
            >>> Mixture(torch.tensor([1, 0]), 0.75).target(torch.tensor([0, 2]), 3)
            tensor([[0.7500, 0.0000, 0.2500],
                    [0.2500, 0.0000, 0.7500]])
        """
        own = F.one_hot(labels, num_classes).float()
        return self.share * own + (1 - self.share) * own[self.partner]


def mix(images: Tensor, *, mixup: float = 0.0, cutmix: float = 0.0, dim: int = 0) -> tuple[Tensor, Mixture]:
    """Blend each image with a partner (mixup), or paste a rectangle of the partner into it (cutmix).

    Args:
        images: [*, C, H, W].
        mixup: alpha of Beta(alpha, alpha), which draws the share. 0 for none.
        cutmix: alpha of Beta(alpha, alpha), which draws the area of the first image. 0 for none. With both, each batch
            draws one.
        dim: the axis of the samples: 1 for frames [T, N, C, H, W], so that all frames of a recording mix alike.

    Returns:
        The mixed images, and the pairs and shares of the mixture.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018; Yun et al., "CutMix", ICCV 2019.
    """
    paste = cutmix > 0 and (mixup == 0 or bool(torch.rand(()) < 0.5))
    alpha = cutmix if paste else mixup
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    partner = torch.randperm(images.shape[dim]).to(images.device)
    others = images.index_select(dim, partner)
    if not paste:
        return share * images + (1 - share) * others, Mixture(partner, share)
    height, width = images.shape[-2:]
    middle = torch.rand(2)
    half = (1 - share) ** 0.5 / 2
    top, bottom = _span(float(middle[0]), half, height)
    left, right = _span(float(middle[1]), half, width)
    mixed = images.clone()
    mixed[..., top:bottom, left:right] = others[..., top:bottom, left:right]
    return mixed, Mixture(partner, 1 - (bottom - top) * (right - left) / (height * width))


def _span(middle: float, half: float, length: int) -> tuple[int, int]:
    return max(0, round((middle - half) * length)), min(length, round((middle + half) * length))
