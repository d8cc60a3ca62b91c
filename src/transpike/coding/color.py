"""Luma and chroma of images in colour."""

from __future__ import annotations

import torch
from torch import Tensor

from transpike.errors import DataError

__all__ = ["rgb", "ycbcr"]

# ITU-R BT.601, as in JPEG, without offsets: luma, and the scaled differences of blue and red from it.
_YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.299 / 1.772, -0.587 / 1.772, 0.5),
    (0.5, -0.587 / 1.402, -0.114 / 1.402),
)


def ycbcr(images: Tensor) -> Tensor:
    """Luma and two chroma channels of RGB, [N, 3, H, W] -> [N, 3, H, W] (ITU-R BT.601, as JPEG, without offsets).

    Linear, so that grey and colours normalised by one mean and deviation stay about 0.

    Raises:
        DataError: for another number of channels.

    >>> ycbcr(torch.ones(1, 3, 1, 1)).flatten().round(decimals=4).abs()
    tensor([1., 0., 0.])
    """
    return _mix(images, torch.tensor(_YCBCR, dtype=torch.float64))


def rgb(images: Tensor) -> Tensor:
    """The inverse of `ycbcr`.

    >>> rgb(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)).flatten().round(decimals=4)
    tensor([1., 1., 1.])
    """
    return _mix(images, torch.tensor(_YCBCR, dtype=torch.float64).inverse())


def _mix(images: Tensor, matrix: Tensor) -> Tensor:
    if images.ndim != 4 or images.shape[1] != len(matrix):
        raise DataError(f"luma and chroma need RGB images [N, 3, H, W], not shape {list(images.shape)}.")
    with torch.autocast(images.device.type, enabled=False):
        return torch.einsum("dc,nchw->ndhw", matrix.to(images), images)
