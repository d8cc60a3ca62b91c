"""Discrete wavelet transforms of maps: PyWavelets' filters, borders and layout, on tensors, batched, with gradients.

A transform along one axis is a banded matrix. Both axes of a map take two matrix products, for all four bands at once.
For sides of feature maps a product is faster than a strided convolution, although it multiplies by zeros. It also keeps
float32, while a GPU's convolutions round to TF32. A longer axis is cut into windows, which share one matrix.

The matrices are PyWavelets' own transforms of unit impulses. So its rules at borders hold here by construction.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import pywt
import torch
from torch import Tensor

from transpike.checks import choice, listed, near, whole
from transpike.errors import ConfigError, DataError
from transpike.spectral.fourier import full_precision

__all__ = ["dwt2", "idwt2", "wavedec2", "waverec2"]

Details: TypeAlias = tuple[Tensor, Tensor, Tensor]

# The samples of a long axis for each window; even. Shorter axes are one dense matrix.
_STRIDE = 32


def wavedec2(x: Tensor, wavelet: str | pywt.Wavelet, mode: str = "symmetric", level: int | None = None) -> list[Any]:
    r"""Multi-level wavelet decomposition of the last two axes, as ``pywt.wavedec2``.

    One level filters and halves each axis, ``a[k] = sum_j h[j] x[2k + 1 - j]`` with low-pass ``h``, and in the same way
    with high-pass ``g``. The next level does this with the approximation (Mallat, "A theory for multiresolution signal
    decomposition", IEEE PAMI 1989).

    Args:
        x: real, [*, H, W] of any rank. float64 stays; all else is computed and returned in float32.
        wavelet: a discrete wavelet of PyWavelets, by name (``pywt.wavelist(kind="discrete")``) or as an object.
        mode: how maps continue beyond their borders, one of ``pywt.Modes.modes``.
        level: the number of levels. By default the largest with a coefficient free of border effects
            (``pywt.dwt_max_level`` of the smaller side). More levels give a warning.

    Returns:
        ``[cA_n, (cH_n, cV_n, cD_n), ..., (cH_1, cV_1, cD_1)]``, coarse to fine. cH is high-pass along H, cV along W,
        cD along both. A side of n samples gives ``(n + filter_length - 1) // 2`` coefficients, or ``ceil(n / 2)`` with
        ``mode="periodization"``.

    Raises:
        ConfigError: The wavelet is unknown or continuous, the mode is unknown, or the level is negative.
        DataError: `x` has fewer than two axes, an empty map, or complex values; or one sample along a side with mode
            reflect or antireflect.

    Example:
        >>> low, (horizontal, vertical, _) = wavedec2(torch.arange(16.0).view(4, 4), "haar", level=1)
        >>> low.round(decimals=4)
        tensor([[ 5.,  9.],
                [21., 25.]])
        >>> [round(float(band.mean()), 4) for band in (horizontal, vertical)]
        [-4.0, -1.0]
    """
    wavelet, mode = _wavelet(wavelet), _mode(mode)
    low = _maps(x)
    deepest = min(pywt.dwt_max_level(side, wavelet.dec_len) for side in low.shape[-2:])
    if level is None:
        level = deepest
    elif whole("level", level, least=0) > deepest:
        warnings.warn(
            f"level={level} is too high for maps of {low.shape[-2]} x {low.shape[-1]} and {wavelet.name}: beyond "
            f"{deepest} all coefficients have border effects",
            stacklevel=2,
        )
    details: list[Details] = []
    for _ in range(level):
        low, high = _analyse2(low, wavelet, mode)
        details.append(high)
    return [low, *reversed(details)]


def waverec2(coeffs: Sequence[Any], wavelet: str | pywt.Wavelet, mode: str = "symmetric") -> Tensor:
    """Return the maps [*, H, W] with these coefficients of `wavedec2`, as ``pywt.waverec2``.

    Odd sides return one sample longer. dmey, whose filters are rounded, inverts to a few per cent; all others are
    exact.

    Args:
        coeffs: ``[cA_n, (cH_n, cV_n, cD_n), ..., (cH_1, cV_1, cD_1)]``. None stands for a band of zeros.
        wavelet: as in `wavedec2`.
        mode: as in `wavedec2`. It only matters whether it is ``"periodization"``.

    Raises:
        ConfigError: The wavelet is unknown or continuous, or the mode is unknown.
        DataError: A level does not have three details, or shapes do not fit together.

    Example:
        >>> maps = torch.arange(35.0).view(5, 7)
        >>> torch.allclose(waverec2(wavedec2(maps, "db2"), "db2")[:5, :7], maps, atol=1e-4)
        True
    """
    wavelet, mode = _wavelet(wavelet), _mode(mode)
    if not len(coeffs):
        raise DataError("no coefficients: give [cA_n, (cH_n, cV_n, cD_n), ..., (cH_1, cV_1, cD_1)]")
    low, depth = coeffs[0], len(coeffs) - 1
    for number, details in enumerate(coeffs[1:]):
        where = f"level {depth - number}"
        if not isinstance(details, (tuple, list)) or len(details) != 3:
            raise DataError(f"{where}: expected three details (cH, cV, cD), found {type(details).__name__}")
        shape = next((band.shape for band in details if band is not None), None)
        if low is not None and shape is not None:
            # The decomposition extended an odd side by one sample.
            rows, columns = (side - (side == other + 1) for side, other in zip(low.shape[-2:], shape[-2:], strict=True))
            low = low[..., :rows, :columns]
        low = _synthesise2(low, details, wavelet, mode, where)
    if low is None:
        raise DataError("the only band is None: without shapes there is nothing to reconstruct")
    return _maps(low)


def dwt2(x: Tensor, wavelet: str | pywt.Wavelet, mode: str = "symmetric") -> tuple[Tensor, Details]:
    """Compute one level of `wavedec2`: ``(cA, (cH, cV, cD))``, as ``pywt.dwt2``.

    Arguments and errors are those of `wavedec2`.

    Example:
        >>> low, _ = dwt2(torch.ones(2, 4), "haar")
        >>> low.round(decimals=4)
        tensor([[2., 2.]])
    """
    return _analyse2(_maps(x), _wavelet(wavelet), _mode(mode))


def idwt2(coeffs: tuple[Any, Sequence[Any]], wavelet: str | pywt.Wavelet, mode: str = "symmetric") -> Tensor:
    """Compute one level of `waverec2`, from ``(cA, (cH, cV, cD))``, as ``pywt.idwt2``.

    Arguments and errors are those of `waverec2`.

    Example:
        >>> idwt2((torch.tensor([[2.0]]), (None, None, None)), "haar").round(decimals=4)
        tensor([[1., 1.],
                [1., 1.]])
    """
    low, details = coeffs
    return _synthesise2(low, details, _wavelet(wavelet), _mode(mode), "level 1")


def _analyse2(x: Tensor, wavelet: pywt.Wavelet, mode: str) -> tuple[Tensor, Details]:
    with torch.autocast(x.device.type, enabled=False):
        y = _analyse(_analyse(x, wavelet, mode, -1), wavelet, mode, -2)
    (low, vertical), (horizontal, diagonal) = (half.chunk(2, -1) for half in y.chunk(2, -2))
    return low, (horizontal, vertical, diagonal)


def _synthesise2(low: Tensor | None, details: Sequence[Any], wavelet: pywt.Wavelet, mode: str, where: str) -> Tensor:
    bands = [None if band is None else _maps(band) for band in (low, *details)]
    found = [band for band in bands if band is not None]
    if not found or any(band.shape != found[0].shape for band in found):
        shapes = ", ".join(
            f"{name} {None if band is None else list(band.shape)}"
            for name, band in zip(("cA", "cH", "cV", "cD"), bands, strict=True)
        )
        raise DataError(f"{where}: the bands must have one shape, found {shapes}; pass them as wavedec2 returned them")
    least = 1 if mode == "periodization" else wavelet.rec_len // 2
    if min(found[0].shape[-2:]) < least:
        raise DataError(
            f"{where}: bands of {list(found[0].shape[-2:])} are smaller than {wavelet.name} makes any, {least} a side; "
            "name the wavelet and mode that made them"
        )
    cA, cH, cV, cD = (torch.zeros_like(found[0]) if band is None else band for band in bands)
    y = torch.cat([torch.cat([cA, cV], -1), torch.cat([cH, cD], -1)], -2)
    with torch.autocast(y.device.type, enabled=False):
        return _synthesise(_synthesise(y, wavelet, mode, -2), wavelet, mode, -1)


def _analyse(x: Tensor, wavelet: pywt.Wavelet, mode: str, axis: int) -> Tensor:
    """Transform one axis of n samples to 2 m coefficients: the m low-pass ones, then the m high-pass ones."""
    size, taps = x.shape[axis], wavelet.dec_len
    if size == 1 and mode in ("reflect", "antireflect"):
        raise DataError(f"mode={mode!r} needs two samples a side, found 1; halve less often, or use mode='symmetric'")
    if size <= _longest(taps):
        return _multiply(_analysis(wavelet, mode, size, x.dtype, x.device), x, axis)
    if axis == -2:
        return _analyse(x.mT, wavelet, mode, -1).mT
    periodic = mode == "periodization"
    count = -(-size // 2) if periodic else (size + taps - 1) // 2
    left = taps // 2 - 1 if periodic else taps - 2
    windows = _windows(x, mode, left=left, width=_STRIDE + taps - 2, step=_STRIDE, length=2 * count)
    # Away from borders a transform does not depend on the place, so any block of such rows is every window's matrix.
    matrix = _analysis(wavelet, "zero", windows.shape[-1], x.dtype, x.device)
    inner = matrix.unflatten(0, (2, -1))[:, taps // 2 - 1 :][:, : _STRIDE // 2].flatten(0, 1)
    y: Tensor = _flat_product(windows, inner).unflatten(-1, (2, -1))
    return y.transpose(-3, -2).flatten(-2)[..., :count].flatten(-2)


def _synthesise(y: Tensor, wavelet: pywt.Wavelet, mode: str, axis: int) -> Tensor:
    """Compute the inverse of `_analyse`."""
    count, taps = y.shape[axis] // 2, wavelet.rec_len
    if 2 * count <= _longest(taps):
        return _multiply(_synthesis(wavelet, mode, count, y.dtype, y.device), y, axis)
    if axis == -2:
        return _synthesise(y.mT, wavelet, mode, -1).mT
    periodic = mode == "periodization"
    left, mode = (taps // 4, "periodic") if periodic else (0, "zero")
    skip = 2 * left - taps // 2 + 1 if periodic else 0
    length = 2 * count if periodic else 2 * count - taps + 2
    width, step = (_STRIDE + taps) // 2 - 1, _STRIDE // 2
    bands = y.unflatten(-1, (2, count))
    windows = _windows(bands, mode, left=left, width=width, step=step, length=-(-(skip + length) // 2))
    matrix = _synthesis(wavelet, "zero", width, y.dtype, y.device)
    x = _flat_product(windows.transpose(-3, -2).flatten(-2), matrix)
    return x.flatten(-2)[..., skip : skip + length]


def _longest(taps: int) -> int:
    """Return the longest axis that is one dense matrix. A longer one has room for both borders of `_windows`."""
    return 2 * (_STRIDE + taps + 2)


def _multiply(matrix: Tensor, x: Tensor, axis: int) -> Tensor:
    return matrix @ x if axis == -2 else x @ matrix.mT


def _flat_product(windows: Tensor, matrix: Tensor) -> Tensor:
    # Flat, because matmul over overlapping windows would run one product for each row of the map.
    return (windows.flatten(0, -2) @ matrix.mT).view(*windows.shape[:-1], len(matrix))


def _windows(x: Tensor, mode: str, *, left: int, width: int, step: int, length: int) -> Tensor:
    """Return windows [*, count, width] of the extended last axis, `step` apart, that hold `length` steps' samples."""
    size, count = x.shape[-1], -(-length // step)
    right = (count - 1) * step + width - left - size
    reach = max(left, right) + 2
    ends = torch.cat([x[..., :reach], x[..., size - reach - size % 2 :]], -1)
    beyond = ends @ _borders(mode, ends.shape[-1], left, right, x.dtype, x.device).mT
    return torch.cat([beyond[..., :left], x, beyond[..., left:]], -1).unfold(-1, width, step)


@lru_cache(maxsize=64)
def _analysis(wavelet: pywt.Wavelet, mode: str, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    bands = pywt.dwt(np.eye(size), wavelet, mode, axis=0)
    return _constant(np.concatenate(bands), dtype, device)


@lru_cache(maxsize=64)
def _synthesis(wavelet: pywt.Wavelet, mode: str, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    low, high = (pywt.idwt(*bands, wavelet, mode, axis=0) for bands in ((np.eye(count), None), (None, np.eye(count))))
    return _constant(np.concatenate([low, high], 1), dtype, device)


@lru_cache(maxsize=64)
def _borders(mode: str, size: int, left: int, right: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the samples before and after `size` samples, as linear maps of them: [left + right, size]."""
    around = np.stack([pywt.pad(column, (left + 1, right + 1), mode) for column in np.eye(size)], 1)
    return _constant(np.concatenate([around[1 : left + 1], around[left + 1 + size :][:right]]), dtype, device)


def _constant(matrix: np.ndarray[Any, Any], dtype: torch.dtype, device: torch.device) -> Tensor:
    # Cached. A tensor from inference mode could not be used in a later training step.
    with torch.inference_mode(False):
        return torch.from_numpy(np.ascontiguousarray(matrix)).to(device=device, dtype=dtype)


def _maps(x: Tensor) -> Tensor:
    if x.ndim < 2 or 0 in x.shape[-2:] or x.is_complex():
        raise DataError(f"expected real maps [*, H, W], found {list(x.shape)} of {x.dtype}")
    return full_precision(x)


def _mode(mode: str) -> str:
    return choice("mode", mode, pywt.Modes.modes)


def _wavelet(wavelet: str | pywt.Wavelet) -> pywt.Wavelet:
    if isinstance(wavelet, pywt.Wavelet):
        return wavelet
    if isinstance(wavelet, pywt.ContinuousWavelet):
        raise ConfigError(f"{wavelet.name} is a continuous wavelet; maps need a discrete one")
    if not isinstance(wavelet, str):
        raise ConfigError(f"wavelet={wavelet!r}: expected the name of a discrete wavelet, such as 'haar'")
    return _by_name(wavelet)


@lru_cache
def _by_name(name: str) -> pywt.Wavelet:
    discrete = pywt.wavelist(kind="discrete")
    if name.lower() in discrete:
        return pywt.Wavelet(name)
    try:
        pywt.ContinuousWavelet(name)
    except ValueError:
        guess = near(name.lower(), discrete, most=3) or f" Name one of {listed(discrete[:7])}, ..."
        raise ConfigError(f"wavelet {name!r} is unknown.{guess}") from None
    raise ConfigError(f"{name} is a continuous wavelet; maps need a discrete one, such as {', '.join(discrete[:5])}")
