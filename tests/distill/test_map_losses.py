"""Losses of two maps against NumPy's full Fourier transform, Parseval's theorem and formulas spelt out."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from transpike.distill.map_losses import (
    focal_frequency_loss,
    gaussian_frequency_loss,
    gaussian_low_pass,
    gaussian_response,
    info_nce,
    pooled_info_nce,
)
from transpike.errors import ConfigError, DataError

INFINITY = float("inf")

shapes = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(0, 999))


def two_maps(samples: int, channels: int, height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, samples, channels, height, width, generator=generator, dtype=torch.float64).unbind()


def numpy_spectrum(student: Tensor, teacher: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The full spectrum of the difference, zero frequency in the middle, and every place's distance from there."""
    spectrum = np.fft.fftshift(np.fft.fft2((student - teacher).numpy(), norm="ortho"), axes=(-2, -1))
    rows, columns = (np.arange(side) - side // 2 for side in spectrum.shape[-2:])
    return spectrum, np.hypot(rows[:, None] / len(rows), columns / len(columns))


@settings(max_examples=40, deadline=None)
@given(shapes, st.sampled_from([0.02, 0.25, 1.0, INFINITY]))
def test_gaussian_equals_numpy(shape: tuple[int, ...], sigma: float) -> None:
    student, teacher = two_maps(*shape)
    spectrum, distance = numpy_spectrum(student, teacher)
    expected = np.mean(np.abs(np.exp(-(distance**2) / (2 * sigma**2)) * spectrum) ** 2)
    loss = gaussian_frequency_loss(student, teacher, sigma=sigma)
    assert loss.item() == pytest.approx(expected, rel=1e-5, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(shapes)
def test_gaussian_without_end_is_the_mean_square(shape: tuple[int, ...]) -> None:
    """Parseval."""
    student, teacher = two_maps(*shape)
    loss = gaussian_frequency_loss(student, teacher, sigma=INFINITY)
    assert loss.item() == pytest.approx(F.mse_loss(student, teacher).item(), rel=1e-6)
    assert gaussian_frequency_loss(teacher, teacher, sigma=0.1) == 0


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 6)])
def test_gaussian_is_monotone_in_sigma(size: tuple[int, int]) -> None:
    fast = torch.tensor([1.0, -1.0]).repeat(4)[: size[1]].expand(1, 1, *size).double()
    sigmas = [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, INFINITY]
    losses = [gaussian_frequency_loss(fast, 0 * fast, sigma=sigma).item() for sigma in sigmas]
    assert all(low < high for low, high in pairwise(losses))
    constant = torch.ones(1, 1, *size)
    assert gaussian_frequency_loss(constant, 0 * constant, sigma=0.05).item() == pytest.approx(1)


def test_gaussian_sees_phase() -> None:
    wave = torch.cos(torch.arange(8) * torch.pi / 4).expand(1, 1, 8, 8)
    assert gaussian_frequency_loss(wave, wave.roll(4, -1)).item() > 1  # equal magnitudes


def test_response_is_one_at_zero_and_falls() -> None:
    passed = gaussian_response(6, sigma=0.3)
    assert passed[0] == 1 and passed[3] == passed.min()
    torch.testing.assert_close(passed[1:], passed[1:].flip(0))  # f and -f
    assert passed[3].item() == pytest.approx(np.exp(-0.25 / 0.18))


@pytest.mark.parametrize("size", [(6, 5), (9, 8)])  # one product, and one an axis
def test_low_pass_equals_numpy(size: tuple[int, int]) -> None:
    maps, _ = two_maps(2, 3, *size)
    row, column = np.fft.fftfreq(size[0])[:, None], np.fft.fftfreq(size[1])
    spectrum = np.fft.fft2(maps.numpy()) * np.exp(-(row**2 + column**2) / (2 * 0.2**2))
    np.testing.assert_allclose(gaussian_low_pass(maps, sigma=0.2).numpy(), np.fft.ifft2(spectrum).real, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(shapes, st.sampled_from([0.5, 1.0, 2.0]))
def test_focal_equals_numpy(shape: tuple[int, ...], alpha: float) -> None:
    student, teacher = two_maps(*shape)
    magnitude = np.abs(numpy_spectrum(student, teacher)[0])
    weight = (magnitude / magnitude.max((-2, -1), keepdims=True)) ** alpha
    loss = focal_frequency_loss(student, teacher, alpha=alpha)
    assert loss.item() == pytest.approx(np.mean(weight * magnitude**2), rel=1e-6)
    assert focal_frequency_loss(student, teacher, alpha=0).item() == pytest.approx(
        F.mse_loss(student, teacher).item(), rel=1e-9
    )


def test_focal_at_identity_has_no_gradient() -> None:
    student = torch.ones(1, 1, 4, 4, requires_grad=True)
    loss = focal_frequency_loss(student, torch.ones(1, 1, 4, 4))
    loss.backward()
    assert loss == 0 and student.grad is not None and torch.equal(student.grad, torch.zeros(1, 1, 4, 4))


def test_info_nce_spelt_out() -> None:
    student, teacher = two_maps(3, 2, 4, 4)
    cosine = np.array([[F.cosine_similarity(s.flatten(), t.flatten(), dim=0) for t in teacher] for s in student])
    likelihood = np.exp(cosine / 0.2)
    expected = -np.log(np.diag(likelihood) / likelihood.sum(1)).mean()
    assert info_nce(student, teacher, temperature=0.2).item() == pytest.approx(expected)
    assert info_nce(teacher, teacher) < info_nce(teacher.roll(1, 0), teacher)
    assert info_nce(student[:1], teacher[:1]) == 0


def test_pooled_info_nce_sees_means_alone() -> None:
    student, teacher = two_maps(3, 2, 4, 4)
    own, other = (maps.mean((2, 3)) for maps in (student, teacher))
    cosine = np.array([[F.cosine_similarity(s, t, dim=0) for t in other] for s in own])
    likelihood = np.exp(cosine / 0.2)
    expected = -np.log(np.diag(likelihood) / likelihood.sum(1)).mean()
    loss = pooled_info_nce(student, teacher, temperature=0.2)
    assert loss.item() == pytest.approx(expected)
    torch.testing.assert_close(pooled_info_nce(student.flip(-1), teacher, temperature=0.2), loss)


@pytest.mark.parametrize("loss", [gaussian_frequency_loss, info_nce, pooled_info_nce])
@pytest.mark.parametrize("size", [(3, 4), (4, 3)])
def test_gradients(loss: Callable[[Tensor, Tensor], Tensor], size: tuple[int, int]) -> None:
    student, teacher = two_maps(2, 2, *size)
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher), student.requires_grad_())


def test_focal_gradient_holds_the_weight_constant() -> None:
    """d/dD of w |D|^2 = 2 w D, back through the orthonormal transform."""
    student, teacher = two_maps(1, 1, 4, 5)
    focal_frequency_loss(student.requires_grad_(), teacher).backward()
    spectrum = np.fft.fft2((student.detach() - teacher).numpy(), norm="ortho")
    weight = np.abs(spectrum) / np.abs(spectrum).max()
    expected = np.fft.ifft2(2 * weight * spectrum, norm="ortho").real / student.numel()
    assert student.grad is not None
    np.testing.assert_allclose(student.grad.numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("loss", [gaussian_frequency_loss, focal_frequency_loss, info_nce])
def test_float32_within_mixed_precision(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    student, teacher = (maps.bfloat16() for maps in two_maps(3, 2, 5, 5))
    exact = loss(student.double(), teacher.double())
    with torch.autocast("cpu", torch.bfloat16):
        mixed = loss(student, teacher)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed.double(), exact, rtol=1e-5, atol=0)


def test_refusals() -> None:
    maps = torch.zeros(2, 3, 4, 4)
    for sigma in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match=f"sigma={sigma}"):
            gaussian_frequency_loss(maps, maps, sigma=sigma)
    for loss in (gaussian_frequency_loss, focal_frequency_loss, info_nce):
        with pytest.raises(DataError, match=r"one shape, found \[2, 3, 4, 4\] and \[1, 3, 4, 4\]"):
            loss(maps, maps[:1])
