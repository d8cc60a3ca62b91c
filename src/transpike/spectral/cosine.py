"""Orthonormal cosine transforms of maps, whole and block by block, and the zigzag order of their frequencies."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from transpike.checks import whole
from transpike.errors import DataError
from transpike.spectral.fourier import full_precision

__all__ = ["block_count", "block_dct", "block_idct", "dctn", "idctn", "zigzag"]

# Up to 8 x 8, one product covers both axes. It needs a few more multiplications, but no transpose of many small blocks.
_SMALL = 8**4


def dctn(x: Tensor) -> Tensor:
    r"""Orthonormal 2-D DCT-II over the last two axes::

        F[u, v] = 2 / sqrt(M N) C(u) C(v) sum_xy S[x, y] cos(u pi (2x + 1) / 2M) cos(v pi (2y + 1) / 2N)

    with C(0) = 1 / sqrt(2) and C = 1 otherwise. This is Eq. 12 of the DCT-SNN supplement, and SciPy's ``dctn(x,
    axes=(-2, -1), norm="ortho")``. It uses matrix products, in float64 for float64 and otherwise in float32. On a GPU,
    float32 products follow `torch.set_float32_matmul_precision`.

    Args:
        x: real maps [*, M, N] of any sizes.

    Returns:
        [*, M, N], the lowest frequency first on both axes. The sum of squares is that of x.

    Example:
        >>> dctn(torch.ones(4, 4))[0]
        tensor([4., 0., 0., 0.])
    """
    return _separable(x, inverse=False)


def idctn(x: Tensor) -> Tensor:
    """Return the inverse of `dctn`: an orthonormal 2-D DCT-III of the last two axes, [*, M, N] -> [*, M, N].

    Example:
        >>> x = torch.arange(15.0).view(3, 5)
        >>> torch.allclose(idctn(dctn(x)), x, atol=1e-5)
        True
    """
    return _separable(x, inverse=True)


def _separable(x: Tensor, *, inverse: bool) -> Tensor:
    if x.ndim < 2 or x.is_complex() or 0 in x.shape[-2:]:
        raise DataError(f"a 2-D cosine transform takes real maps [*, M, N], not {x.dtype} of shape {list(x.shape)}.")
    x = full_precision(x)
    rows, columns = (_matrix(n, x, inverse=inverse) for n in x.shape[-2:])
    with torch.autocast(x.device.type, enabled=False):
        if rows.numel() * columns.numel() <= _SMALL:
            return _along_last(x.flatten(-2), torch.kron(rows, columns)).view(x.shape)
        return _along_last(_along_last(x, columns).mT, rows).mT


def _matrix(n: int, like: Tensor, *, inverse: bool) -> Tensor:
    """Return the DCT-II matrix [n, n] with one frequency in each row. Its transpose is the inverse."""
    position = torch.arange(n, dtype=torch.float64, device=like.device)
    matrix = torch.cos(position[:, None] * (2 * position + 1) * (math.pi / (2 * n))) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return (matrix.mT if inverse else matrix).to(like.dtype)


def _along_last(x: Tensor, matrix: Tensor) -> Tensor:
    # Flat, because matmul broadcast over many small blocks would run one product for each block.
    return (x.reshape(-1, x.shape[-1]) @ matrix.mT).view(x.shape)


def zigzag(block: int) -> tuple[tuple[int, int], ...]:
    """Return JPEG's order of the (row, column) frequencies of a block x block transform, from lowest to highest.

    Raises:
        ConfigError: The block is below 1.

    Example:
        >>> zigzag(4)[:6]
        ((0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (0, 2))
    """
    _check(block, None)
    pairs = [(u, v) for u in range(block) for v in range(block)]
    return tuple(sorted(pairs, key=lambda pair: (sum(pair), pair[sum(pair) % 2 == 0])))


def block_count(length: int, *, block: int, stride: int | None = None) -> int:
    """Return how many blocks `block_dct` needs along an axis to reach its end. The last may need padding.

    Example:
        >>> block_count(32, block=4, stride=2), block_count(28, block=8)
        (15, 4)
    """
    return 1 + math.ceil(max(0, length - block) / _check(block, stride))


def block_dct(images: Tensor, *, block: int = 4, stride: int | None = None) -> Tensor:
    """Return `dctn` of every block x block square whose corner lies on a grid of `stride` pixels.

    If the last blocks extend beyond the image, its last row and column are repeated below and to the right.
    `block_idct` removes this padding.

    Args:
        images: real, [*, H, W], of any size of at least 1 x 1.
        block: side of a block in pixels.
        stride: pixels from one block to the next, from 1 to `block`, the default. Smaller strides overlap.

    Returns:
        [*, rows, columns, block, block]: frequencies last. `block_count` counts rows and columns.

    Raises:
        ConfigError: The block is below 1, or the stride is outside 1 to `block`.
        DataError: The images are not real maps [*, H, W].

    Example:
        >>> block_dct(torch.ones(3, 32, 32), block=4, stride=2).shape
        torch.Size([3, 15, 15, 4, 4])
    """
    stride = _check(block, stride)
    for axis in (-2, -1):
        length = images.shape[axis] if images.ndim >= 2 else 0
        if length == 0:
            raise DataError(
                f"block_dct takes images [*, H, W] of at least one pixel, not of shape {list(images.shape)}."
            )
        padded = (block_count(length, block=block, stride=stride) - 1) * stride + block
        if padded > length:
            images = images.index_select(axis, torch.arange(padded, device=images.device).clamp_(max=length - 1))
    return dctn(images.unfold(-2, block, stride).unfold(-2, block, stride))


def block_idct(coefficients: Tensor, *, stride: int | None = None, size: tuple[int, int] | None = None) -> Tensor:
    """Return the images with these coefficients of `block_dct`. If blocks overlap, take the mean of their values.

    Because the transform is orthonormal, the mean is the least-squares solution. It is exact for all coefficients of an
    image, and the nearest image if coefficients were changed.

    Args:
        coefficients: [*, rows, columns, block, block].
        stride: the stride of `block_dct`.
        size: (H, W) of the images, to remove the padding. By default it stays.

    Returns:
        [*, H, W].

    Raises:
        ConfigError: The stride is outside 1 to `block`.
        DataError: The coefficients have another shape, or the size does not belong to these blocks.

    Example:
        >>> image = torch.arange(35.0).view(5, 7)
        >>> restored = block_idct(block_dct(image, block=4, stride=3), stride=3, size=(5, 7))
        >>> torch.allclose(restored, image, atol=1e-5)
        True
    """
    if coefficients.ndim < 4 or coefficients.shape[-1] != coefficients.shape[-2]:
        raise DataError(
            f"block_idct takes coefficients [*, rows, columns, block, block], not of shape {list(coefficients.shape)}."
        )
    *batch, rows, columns, _, block = coefficients.shape
    stride = _check(block, stride)
    full = ((rows - 1) * stride + block, (columns - 1) * stride + block)
    height, width = size or full
    if [block_count(n, block=block, stride=stride) for n in (height, width)] != [rows, columns]:
        raise DataError(
            f"size={(height, width)} does not make {rows} x {columns} blocks of {block} pixels, {stride} apart."
        )
    patches = idctn(coefficients).reshape(-1, rows * columns, block * block).mT
    summed = F.fold(patches, full, block, stride=stride)
    covering = F.fold(torch.ones_like(patches[:1]), full, block, stride=stride)
    return (summed / covering)[:, 0, :height, :width].reshape(*batch, height, width)


def _check(block: int, stride: int | None) -> int:
    """Check both numbers and return the stride."""
    stride = block if stride is None else stride
    return whole("stride", stride, most=whole("block", block))
