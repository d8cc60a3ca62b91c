"""Fourier transforms of maps and of sorted logits: half spectra, their energy, high-pass filters."""

from __future__ import annotations

import torch
from torch import Tensor

from transpike.checks import number

__all__ = ["full_precision", "half_spectrum_energy", "high_pass", "irfft2", "rfft2"]


def full_precision(x: Tensor) -> Tensor:
    """Return x in float32 or float64. Half-precision transforms are coarse, and need powers of two and a GPU.

    Example:
        >>> full_precision(torch.zeros(1, dtype=torch.bfloat16)).dtype, full_precision(torch.zeros(1).double()).dtype
        (torch.float32, torch.float64)
    """
    return x if x.dtype == torch.float64 else x.float()


def rfft2(maps: Tensor) -> Tensor:
    """Return the orthonormal 2-D Fourier transform of real maps [*, H, W], as half spectra [*, H, W // 2 + 1].

    Example:
        >>> rfft2(torch.ones(4, 4))[0, 0]
        tensor(4.+0.j)
    """
    spectrum: Tensor = torch.fft.rfft2(full_precision(maps), norm="ortho")
    return spectrum


def irfft2(spectrum: Tensor, *, width: int) -> Tensor:
    """Return the real maps [*, H, width] of half spectra [*, H, width // 2 + 1].

    Example:
        >>> maps = torch.arange(15.0).view(3, 5)
        >>> torch.allclose(irfft2(rfft2(maps), width=5), maps, atol=1e-5)
        True
    """
    maps: Tensor = torch.fft.irfft2(spectrum, s=(spectrum.shape[-2], width), norm="ortho")
    return maps


def half_spectrum_energy(spectrum: Tensor, *, width: int) -> Tensor:
    """Return the sum of squared magnitudes of the full spectrum, from its half [*, H, width // 2 + 1]: a scalar.

    Each column counts twice, except the first and, for even widths, the last. By Parseval's theorem this is the sum of
    squares of the maps.

    Example:
        >>> maps = torch.arange(15.0).view(3, 5)
        >>> half_spectrum_energy(rfft2(maps), width=5).round(), maps.square().sum()
        (tensor(1015.), tensor(1015.))
    """
    power = torch.view_as_real(spectrum).square().flatten(0, -3).sum((0, 2))
    columns = torch.full_like(power, 2.0)
    columns[0] = 1.0
    if width % 2 == 0:
        columns[-1] = 1.0
    return (power * columns).sum()


def high_pass(signals: Tensor, *, keep: float = 0.5) -> Tensor:
    """Return the part of signals [*, N] at the highest frequencies: |f| > (1 - keep) / 2 cycles per sample.

    Frequencies reach from 0 to 1/2. The mask is the same for f and -f, so the result is real.

    Args:
        signals: real signals.
        keep: the share of the frequency range that is kept, in (0, 1).

    Raises:
        ConfigError: `keep` is outside (0, 1).

    Example:
        >>> high_pass(torch.tensor([1.0, -1.0, 1.0, -1.0]) + 5)
        tensor([ 1., -1.,  1., -1.])
    """
    number("keep", keep, above=0, below=1)
    signals = full_precision(signals)
    spectrum = torch.fft.rfft(signals, norm="ortho")
    frequency = torch.fft.rfftfreq(signals.shape[-1], device=signals.device, dtype=signals.dtype)
    passed: Tensor = torch.fft.irfft(spectrum * (frequency > (1 - keep) / 2), n=signals.shape[-1], norm="ortho")
    return passed
