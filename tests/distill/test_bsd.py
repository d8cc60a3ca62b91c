"""Bi-spectrum distillation against numpy's Fourier transform and its own invariances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from transpike.distill.bispectrum import BiSpectrumDistillation
from transpike.distill.bsd import (
    SpectralResidual,
    SpectralResidualDistillation,
    SpectralSemanticDistillation,
    modrelu,
    spectral_residual,
    spectral_semantic,
)
from transpike.distill.logits import knowledge_distillation
from transpike.distill.taps import Stage
from transpike.errors import ConfigError, DataError


def numpy_semantic(student: np.ndarray, teacher: np.ndarray, keep: float) -> float:
    """Equations 12 to 15 with the full spectrum and an explicit mask."""
    order = np.argsort(-teacher, axis=1, kind="stable")
    passed = []
    for logits in (student, teacher):
        spectrum = np.fft.fft(np.take_along_axis(logits, order, 1), axis=1)
        mask = np.abs(np.fft.fftfreq(logits.shape[1])) > (1 - keep) / 2
        back = np.fft.ifft(spectrum * mask, axis=1)
        assert np.abs(back.imag).max() < 1e-9
        passed.append(back.real)
    return float(np.mean((passed[0] - passed[1]) ** 2))


logits = st.tuples(st.integers(1, 4), st.integers(2, 101), st.integers(0, 999))


@settings(max_examples=40, deadline=None)
@given(logits, st.sampled_from([0.1, 0.3, 0.5, 0.9]))
def test_semantic_equals_numpy(shape: tuple[int, int, int], keep: float) -> None:
    samples, classes, seed = shape
    draw = np.random.default_rng(seed)
    student, teacher = draw.normal(size=(samples, classes)), draw.normal(size=(samples, classes))
    mine = spectral_semantic(torch.from_numpy(student), torch.from_numpy(teacher), keep=keep)
    assert mine.item() == pytest.approx(numpy_semantic(student, teacher, keep), rel=1e-9, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(logits)
def test_semantic_invariances(shape: tuple[int, int, int]) -> None:
    samples, classes, seed = shape
    torch.manual_seed(seed)
    student, teacher = torch.randn(2, samples, classes, dtype=torch.float64)
    loss = spectral_semantic(student, teacher)
    relabelled = torch.randperm(classes)
    torch.testing.assert_close(spectral_semantic(student[:, relabelled], teacher[:, relabelled]), loss)
    torch.testing.assert_close(spectral_semantic(student + 5, teacher - 3), loss)
    assert spectral_semantic(teacher, teacher).item() == 0
    # By Parseval, no more than the whole difference; and its high part alone.
    assert loss <= (student - teacher).square().mean() + 1e-12


def test_semantic_summed_over_classes_by_numpy() -> None:
    draw = np.random.default_rng(0)
    student, teacher = draw.normal(size=(3, 7)), draw.normal(size=(3, 7))
    mine = spectral_semantic(torch.from_numpy(student), torch.from_numpy(teacher), reduction="sum")
    assert mine.item() == pytest.approx(7 * numpy_semantic(student, teacher, 0.5), rel=1e-9)


@pytest.mark.parametrize("size", [(4, 6), (5, 3)])
def test_residual_of_an_unnormalised_transform_by_numpy(size: tuple[int, int]) -> None:
    """F^ = IFFT(FFT(F) + W2 modReLU(FFT(F))), and a penalty on what the unnormalised transform gives: H W times it."""
    draw = np.random.default_rng(1)
    student, teacher = draw.normal(size=(2, 2, 3, *size))
    residual = SpectralResidual(size, norm="backward").double()
    residual.w2.data[..., 0] = 0.5  # real and constant, so that the full spectrum has the same
    spectrum = np.fft.fft2(student)
    adapted = np.fft.ifft2(1.5 * spectrum).real
    expected = (((adapted - teacher) ** 2).sum() + 0.01 * (np.abs(0.5 * spectrum) ** 2).sum()) / 2
    mine = spectral_residual(torch.from_numpy(student), torch.from_numpy(teacher), residual)
    assert mine.item() == pytest.approx(expected, rel=1e-9)
    # By Parseval the penalty is H W times that of the orthonormal transform.
    plain = SpectralResidual(size).double()
    plain.w2.data[..., 0] = 0.5
    area = size[0] * size[1]
    assert mine.item() == pytest.approx(
        spectral_residual(torch.from_numpy(student), torch.from_numpy(teacher), plain, penalty=0.01 * area).item()
    )


@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
def test_semantic_sees_no_slow_difference(classes: int) -> None:
    teacher = torch.arange(classes, 0, -1.0, dtype=torch.float64)[None]
    fast = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(classes)[:classes]
    assert spectral_semantic(teacher + fast, teacher).item() > 0.3
    if classes >= 10:
        slow = torch.cos(2 * torch.pi * torch.arange(classes).double() / classes)
        assert spectral_semantic(teacher + slow, teacher).item() < 1e-15


def test_semantic_of_time_is_that_of_the_mean() -> None:
    student, teacher = torch.randn(4, 3, 10), torch.randn(3, 10)
    assert torch.equal(SpectralSemanticDistillation()(student, teacher), spectral_semantic(student.mean(0), teacher))


@pytest.mark.parametrize("keep", [0.0, 1.0, -0.5, 2.0])
def test_keep_out_of_range(keep: float) -> None:
    with pytest.raises(ConfigError, match=f"keep={keep}"):
        SpectralSemanticDistillation(keep)
    with pytest.raises(ConfigError, match=f"keep={keep}"):
        spectral_semantic(torch.zeros(1, 4), torch.zeros(1, 4), keep=keep)


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (4, 6), (1, 1), (2, 3)])
@pytest.mark.parametrize("domain", ["frequency", "spatial"])
def test_residual_begins_as_the_identity(size: tuple[int, int], domain: str) -> None:
    torch.manual_seed(0)
    loss = SpectralResidualDistillation(3, 3, size=size, domain=domain).double()  # type: ignore[arg-type]
    student, teacher = torch.rand(4, 2, 3, *size).double(), torch.rand(2, 3, *size).double()
    expected = (student.mean(0) - teacher).square().sum() / 2
    torch.testing.assert_close(loss(student, teacher), expected)


def test_residual_of_other_channels_begins_as_its_projection() -> None:
    loss = SpectralResidualDistillation(3, 5, size=(4, 4))
    student, teacher = torch.rand(4, 2, 3, 8, 8), torch.rand(2, 5, 4, 4)
    projected = loss.adapter.projection(nn.functional.avg_pool2d(student.mean(0), 2))
    torch.testing.assert_close(loss(student, teacher), (projected - teacher).square().sum() / 2)


def trained(size: tuple[int, int], domain: str = "frequency") -> SpectralResidual:
    torch.manual_seed(1)
    residual = SpectralResidual(size, domain=domain).double()  # type: ignore[arg-type]
    for parameter in residual.parameters():
        parameter.data = 0.5 * torch.randn_like(parameter)
    return residual


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (6, 5)])
def test_residual_equals_numpy(size: tuple[int, int]) -> None:
    residual, penalty = trained(size), 0.3
    student, teacher = torch.randn(2, 2, 3, *size, dtype=torch.float64)
    mine = spectral_residual(student, teacher, residual, penalty=penalty)
    w1, b1, w2, b2 = (
        p.detach().numpy()[..., 0] + 1j * p.detach().numpy()[..., 1]
        for p in (residual.w1, residual.b1, residual.w2, residual.b2)
    )
    spectrum = np.fft.rfft2(student.numpy(), norm="ortho")
    z = w1 * spectrum + b1
    activated = np.maximum(np.abs(z) + residual.bias.detach().numpy(), 0) * np.exp(1j * np.angle(z))
    extra = w2 * activated + b2
    adapted = np.fft.irfft2(spectrum + extra, s=size, norm="ortho")
    twice = np.full(extra.shape[-1], 2.0)
    twice[0] = 1
    if size[1] % 2 == 0:
        twice[-1] = 1
    expected = np.sum((adapted - teacher.numpy()) ** 2) + penalty * np.sum(np.abs(extra) ** 2 * twice)
    assert mine.item() == pytest.approx(expected / 2, rel=1e-9)


def test_parameters_do_not_grow_with_channels() -> None:
    def count(channels: int) -> int:
        loss = SpectralResidualDistillation(channels, channels, size=(8, 8))
        projection = sum(p.numel() for p in loss.adapter.parameters())
        return sum(p.numel() for p in loss.parameters()) - projection

    assert count(4) == count(64) == 4 * 8 * 5 * 2 + 8 * 5


@pytest.mark.parametrize("domain", ["frequency", "spatial"])
def test_residual_gradients(domain: str) -> None:
    residual = trained((3, 4), domain)
    student = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 2, 3, 4, dtype=torch.float64)
    names = [name for name, _ in residual.named_parameters()]

    def loss(student: Tensor, *values: Tensor) -> Tensor:
        call = torch.func.functional_call
        replaced = dict(zip(names, values, strict=True))

        class Shim:
            size = residual.size

            def adapt(self, maps: Tensor) -> tuple[Tensor, Tensor]:
                return call(Adapts(residual), {f"inner.{k}": v for k, v in replaced.items()}, (maps,))

        return spectral_residual(student, teacher, Shim())  # type: ignore[arg-type]

    values = [p.detach().clone().requires_grad_() for p in residual.parameters()]
    assert torch.autograd.gradcheck(loss, (student, *values))


class Adapts(nn.Module):
    def __init__(self, inner: SpectralResidual) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner.adapt(maps)


def test_semantic_gradients() -> None:
    student = torch.randn(2, 3, 7, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(3, 7, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: spectral_semantic(z, teacher), (student,))


@pytest.mark.parametrize("bias", [-0.1, 0.0, 0.1])
def test_silent_maps_have_finite_gradients(bias: float) -> None:
    loss = SpectralResidualDistillation(2, 2, size=(4, 4))
    with torch.no_grad():
        for parameter in (loss.residual.w2, loss.residual.b2):
            parameter.normal_()
        loss.residual.bias.fill_(bias)
    student = torch.zeros(2, 1, 2, 4, 4, requires_grad=True)
    value = loss(student, torch.ones(1, 2, 4, 4))
    value.backward()
    assert torch.isfinite(value)
    gradients = [student.grad, *(p.grad for p in loss.parameters())]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)


def test_modrelu_of_rounding_noise_sends_no_large_gradient_back() -> None:
    z = torch.full((4,), 1e-9, dtype=torch.complex64).requires_grad_()
    out = modrelu(z, torch.tensor(0.1))
    out.real.sum().backward()
    assert out.abs().max() < 1e-6
    assert z.grad is not None and z.grad.abs().max() < 200


def test_modrelu_of_reals_keeps_the_sign() -> None:
    z = torch.tensor([-2.0, -0.1, 0.0, 0.1, 2.0])
    expected = torch.tensor([-1.5, 0.0, 0.0, 0.0, 1.5])
    torch.testing.assert_close(modrelu(z, torch.tensor(-0.5)), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_computes_in_float32_within_mixed_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    stages = [Stage("a", "b", 4, 6, (7, 7), (7, 7))]
    bsd = BiSpectrumDistillation(stages, beta=1e-3)
    student, maps = torch.rand(2, 3, 10), torch.rand(2, 3, 4, 7, 7)
    teacher, target = torch.rand(3, 10), torch.rand(3, 6, 7, 7)
    exact = bsd(student, teacher, {"a": maps}, {"b": target})
    with torch.autocast("cpu", dtype):
        mixed = bsd(student.to(dtype), teacher, {"a": maps.to(dtype)}, {"b": target.to(dtype)})
    for name, term in mixed.items():
        assert term.dtype == torch.float32
        torch.testing.assert_close(term, exact[name], rtol=0.05, atol=1e-3)


def test_normalized_teacher_has_no_scale() -> None:
    loss = SpectralResidualDistillation(2, 2, size=(4, 4), normalize=True)
    student, teacher = torch.rand(2, 3, 2, 4, 4), torch.rand(3, 2, 4, 4)
    torch.testing.assert_close(loss(student, teacher), loss(student, 100 * teacher))
    torch.testing.assert_close(loss(torch.zeros_like(student), teacher), torch.tensor(2 * 4 * 4.0))


def test_total_is_the_weighted_sum_of_the_parts() -> None:
    torch.manual_seed(0)
    stages = [Stage("a", "x", 2, 2, (4, 4), (8, 8)), Stage("b", "y", 3, 2, (2, 2), (2, 2))]
    bsd = BiSpectrumDistillation(stages, alpha=0.3, beta=0.2, gamma=0.7, temperature=3.0, keep=0.4)
    student, teacher = torch.randn(2, 5, 10), torch.randn(5, 10)
    own = {"a": torch.rand(2, 5, 2, 4, 4), "b": torch.rand(2, 5, 3, 2, 2)}
    other = {"x": torch.rand(5, 2, 8, 8), "y": torch.rand(5, 2, 2, 2)}
    terms = bsd(student, teacher, own, other)
    first, second = bsd.srd
    assert set(terms) == {"kd", "srd", "ssd"}
    torch.testing.assert_close(terms["kd"], 0.3 * knowledge_distillation(student, teacher, temperature=3.0))
    torch.testing.assert_close(terms["srd"], 0.2 * (first(own["a"], other["x"]) + second(own["b"], other["y"])))
    torch.testing.assert_close(terms["ssd"], 0.7 * spectral_semantic(student, teacher, keep=0.4))
    assert set(BiSpectrumDistillation(beta=0.0)(student, teacher, {}, {})) == {"kd", "ssd"}


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"temperature": 0.0, "beta": 0.0}, "temperature=0.0"),
        ({"alpha": -1.0, "beta": 0.0}, "alpha=-1.0"),
        ({"beta": 1.0}, "needs stages"),
        ({"keep": 1.0, "beta": 0.0}, "keep=1.0"),
    ],
)
def test_bad_settings(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BiSpectrumDistillation(**settings)  # type: ignore[arg-type]


def test_bad_maps() -> None:
    loss = SpectralResidualDistillation(2, 3, size=(4, 4))
    good, teacher = torch.zeros(2, 1, 2, 4, 4), torch.zeros(1, 3, 4, 4)
    for student, other, message in [
        (torch.zeros(2, 1, 5, 4, 4), teacher, r"student's maps .*\[T, N, 2, H, W\]"),
        (torch.zeros(2, 4), teacher, "student's maps"),
        (good, torch.zeros(1, 2, 4, 4), r"teacher's maps .*\[1, 3, H, W\]"),
        (good, torch.zeros(2, 3, 4, 4), "teacher's maps"),
        (torch.zeros(2, 1, 2, 3, 3), teacher, r"smaller than the grid \(4, 4\)"),
    ]:
        with pytest.raises(DataError, match=message):
            loss(student, other)
    with pytest.raises(ConfigError, match="domain='time'"):
        SpectralResidual((4, 4), domain="time")  # type: ignore[arg-type]
