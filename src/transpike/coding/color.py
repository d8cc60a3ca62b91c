"""Converts colour images to luma and chroma and back."""

from __future__ import annotations

import torch
from torch import Tensor

from transpike.errors import DataError

__all__ = ["rgb", "ycbcr"]

# ITU-R BT.601, as in JPEG, without offsets: luma, then the scaled differences of blue and red from luma.
_YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.299 / 1.772, -0.587 / 1.772, 0.5),
    (0.5, -0.587 / 1.402, -0.114 / 1.402),
)


def ycbcr(images: Tensor) -> Tensor:
    """Return luma and two chroma channels of RGB images (ITU-R BT.601, as in JPEG, without offsets).

    The map is linear. So the chroma of grey stays about 0 if one mean and deviation normalised all three colours.

    Shapes: [N, 3, H, W] -> [N, 3, H, W].

    Raises:
        DataError: The images do not have three channels.

    Example:
        >>> ycbcr(torch.ones(1, 3, 1, 1)).flatten().round(decimals=4).abs()
        tensor([1., 0., 0.])
    """
    return _mix(images, torch.tensor(_YCBCR, dtype=torch.float64))


def rgb(images: Tensor) -> Tensor:
    """Return RGB images from luma and chroma, the inverse of `ycbcr`.

    Example:
        >>> rgb(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)).flatten().round(decimals=4)
        tensor([1., 1., 1.])
    """
    return _mix(images, torch.tensor(_YCBCR, dtype=torch.float64).inverse())


def _mix(images: Tensor, matrix: Tensor) -> Tensor:
    if images.ndim != 4 or images.shape[1] != len(matrix):
        raise DataError(f"luma and chroma need RGB images [N, 3, H, W], not shape {list(images.shape)}.")
    with torch.autocast(images.device.type, enabled=False):
        return torch.einsum("dc,nchw->ndhw", matrix.to(images), images)
