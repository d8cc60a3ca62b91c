"""Losses of two feature maps: the Gaussian-filtered frequency loss, and the losses that its paper compares it with.

Source of the first: Wang, Wang, "SFKD: Spatial-Frequency Joint-Aware Heterogeneous Knowledge Distillation via
Multi-Level Wavelet Spectral Interaction", 2026. Its idea is public; the equation is our reading.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from transpike.distill.inputs import feature_pair
from transpike.errors import ConfigError, DataError
from transpike.spectral.fourier import full_precision, half_spectrum_energy, rfft2
from transpike.spectral.wavelet import wavedec2

__all__ = [
    "Loss",
    "band_loss",
    "focal_frequency_loss",
    "gaussian_frequency_loss",
    "gaussian_low_pass",
    "gaussian_response",
    "info_nce",
    "pooled_info_nce",
]

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""A function of two maps [N, C, H, W] that returns a scalar."""

SMALL = 64
"""The largest number of pixels for which one product with a matrix of all pixels beats one for each axis."""


def gaussian_response(size: int, *, sigma: float) -> Tensor:
    """Return the factors of a Gaussian low-pass for the frequencies along one axis: h(f) = exp(-f^2 / (2 sigma^2)).

    Args:
        size: the number of samples along the axis.
        sigma: in cycles per sample, where 1/2 is the highest frequency. Infinity passes all frequencies.

    Shapes: [size], in the order of `torch.fft.fftfreq`.

    Raises:
        ConfigError: sigma is not above 0.

    Example:
        >>> gaussian_response(4, sigma=0.25)
        tensor([1.0000, 0.6065, 0.1353, 0.6065])
    """
    if not sigma > 0:
        raise ConfigError(f"sigma={sigma}: expected a number above 0, in cycles per pixel.")
    return torch.exp(-torch.fft.fftfreq(size).square() / (2 * sigma**2))


def gaussian_low_pass(maps: Tensor, *, sigma: float) -> Tensor:
    """Multiply the spectra of maps by H(u, v) = h(u) h(v) = exp(-D^2 / (2 sigma^2)), D the distance from zero.

    H is a product, so each axis is filtered separately. Transform, factors and inverse are one matrix. For maps of this
    size this is faster than transforms. On the smallest grids one matrix for both axes is faster still.

    Args:
        maps: real, [*, H, W].
        sigma: as in `gaussian_response`.

    Raises:
        ConfigError: sigma is not above 0.

    Example:
        >>> gaussian_low_pass(torch.tensor([[1.0, -1.0, 1.0, -1.0]]) + 5, sigma=0.25)
        tensor([[5.1353, 4.8647, 5.1353, 4.8647]])
    """
    maps = full_precision(maps)
    rows, columns = (_smoothing(side, sigma).to(maps) for side in maps.shape[-2:])
    with torch.autocast(maps.device.type, enabled=False):
        if len(rows) * len(columns) <= SMALL:
            passed: Tensor = maps.flatten(-2) @ torch.kron(rows, columns)
            return passed.view(maps.shape)
        return torch.einsum("ij,...jk,kl->...il", rows, maps, columns)  # both matrices are symmetric


def _smoothing(size: int, sigma: float) -> Tensor:
    response = gaussian_response(size, sigma=sigma)
    matrix: Tensor = torch.fft.ifft(response[:, None] * torch.fft.fft(torch.eye(size), dim=0), dim=0).real
    return matrix


def gaussian_frequency_loss(student: Tensor, teacher: Tensor, *, sigma: float = 0.25) -> Tensor:
    """Return GFFL, the mean squared distance of spectra after a Gaussian low-pass: a scalar.

    L = mean |H (FFT(F_s) - FFT(F_t))|^2,  H = exp(-D^2 / (2 sigma^2))

    The values are complex, so magnitude and phase both count. The transforms are orthonormal. By Parseval's theorem the
    loss equals the mean squared distance of the filtered maps, and is computed in this way. With sigma = infinity it is
    that of the maps. Our reading: D is in cycles per pixel, so that sigma means the same on every grid.

    Args:
        student: [N, C, H, W].
        teacher: [N, C, H, W].
        sigma: as in `gaussian_response`.

    Raises:
        ConfigError: sigma is not above 0.
        DataError: The maps have different shapes.

    Example:
        >>> teacher, fast = torch.zeros(1, 1, 4, 4), torch.tensor([1.0, -1.0, 1.0, -1.0]).expand(1, 1, 4, 4)
        >>> [round(gaussian_frequency_loss(fast, teacher, sigma=s).item(), 4) for s in (0.25, 0.5, float("inf"))]
        [0.0183, 0.3679, 1.0]
    """
    student, teacher = _alike(student, teacher)
    return gaussian_low_pass(student - teacher, sigma=sigma).square().mean()


def focal_frequency_loss(student: Tensor, teacher: Tensor, *, alpha: float = 1.0) -> Tensor:
    """Return the mean squared distance of spectra, weighted by itself: a scalar.

    L = mean w |D|^2,  D = FFT(F_s) - FFT(F_t),  w = (|D| / max |D|)^alpha

    The maximum is taken over each channel of each image. w gets no gradient.

    Source: Jiang et al., "Focal Frequency Loss for Image Reconstruction and Synthesis", ICCV 2021, equations 8 and 9.

    Args:
        student: [N, C, H, W].
        teacher: [N, C, H, W].
        alpha: the exponent. With 0 the loss is the mean squared distance.

    Example:
        >>> maps = torch.eye(4).view(1, 1, 4, 4)
        >>> round(focal_frequency_loss(maps, 0 * maps).item(), 4)
        0.25
    """
    student, teacher = _alike(student, teacher)
    difference = rfft2(student - teacher)
    with torch.no_grad():
        magnitude = difference.abs()
        largest = magnitude.amax((-2, -1), keepdim=True).clamp(min=torch.finfo(magnitude.dtype).tiny)
        root = (magnitude / largest) ** (alpha / 2)
    return half_spectrum_energy(root * difference, width=student.shape[-1]) / student.numel()


def info_nce(student: Tensor, teacher: Tensor, *, temperature: float = 0.1) -> Tensor:
    """Return how hard it is to find, by cosine similarity, the teacher's maps of the same image: a scalar.

    L = -1 / N * sum_n log softmax_m(cos(F_s[n], F_t[m]) / tau)[n]

    Source: van den Oord, Li, Vinyals, "Representation Learning with Contrastive Predictive Coding", 2018, equation 4.
    Our reading: the other images of the batch are the negatives, and an image's maps are one vector. The loss of equal
    maps is not 0.

    Args:
        student: [N, C, H, W].
        teacher: [N, C, H, W].
        temperature: tau.

    Example:
        >>> maps = torch.eye(3).view(3, 3, 1, 1)
        >>> round(info_nce(maps, maps, temperature=1.0).item(), 4)  # log(1 + 2 / e)
        0.5514
    """
    student, teacher = _alike(student, teacher)
    with torch.autocast(student.device.type, enabled=False):
        own, other = F.normalize(student.flatten(1)), F.normalize(teacher.flatten(1))
        return F.cross_entropy(own @ other.mT / temperature, torch.arange(len(own), device=own.device))


def pooled_info_nce(student: Tensor, teacher: Tensor, *, temperature: float = 0.1) -> Tensor:
    """Return `info_nce` of maps averaged over space: vectors of channels, so that places need not match.

    Args:
        student: [N, C, H, W].
        teacher: [N, C, H, W].
        temperature: tau.

    Example:
        >>> maps = torch.eye(3).view(3, 3, 1, 1).expand(3, 3, 2, 2)
        >>> round(pooled_info_nce(maps, maps, temperature=1.0).item(), 4)
        0.5514
    """
    student, teacher = _alike(student, teacher)
    means = (maps.mean((-2, -1), keepdim=True) for maps in (student, teacher))
    return info_nce(*means, temperature=temperature)


def band_loss(student: Tensor, teacher: Tensor, *, loss: Loss, wavelet: str = "haar", levels: int = 2) -> Tensor:
    """Return a loss of maps on each sub-band of their wavelet transforms, averaged over the bands: a scalar.

    L = mean_b loss(DWT(F_s)_b, DWT(F_t)_b),  b = LL_J, and LH, HL, HH at each of J levels

    Args:
        student: [N, C, H, W], whose sides are multiples of 2^levels.
        teacher: [N, C, H, W].
        loss: a loss of two maps, such as `gaussian_frequency_loss`. Its sigma is then in cycles per coefficient.
        wavelet: a discrete wavelet of PyWavelets, by name.
        levels: J. With 0 this is the loss of the maps.

    Example:
        >>> maps = torch.eye(4).view(1, 1, 4, 4)
        >>> round(band_loss(maps, 0 * maps, loss=F.mse_loss, levels=1).item(), 4)  # of 16 squares a fourth is 1
        0.25
    """
    student, teacher = _alike(student, teacher)
    own, other = (_bands(wavedec2(maps, wavelet, "periodization", levels)) for maps in (student, teacher))
    return torch.stack([loss(*pair) for pair in zip(own, other, strict=True)]).mean()


def _bands(coeffs: Sequence[Any]) -> list[Tensor]:
    return [coeffs[0], *(band for level in coeffs[1:] for band in level)]


def _alike(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    if student.shape != teacher.shape or student.ndim != 4:
        raise DataError(
            f"expected two maps [N, C, H, W] of one shape, found {list(student.shape)} and {list(teacher.shape)}."
        )
    return feature_pair(student, teacher)
