"""The fused loss against automatic differentiation of the plain one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from transpike.distill import fused
from transpike.distill.bsd import Norm, SpectralResidualDistillation, spectral_residual


def trained(student: int, teacher: int, size: tuple[int, int], norm: Norm = "ortho") -> SpectralResidualDistillation:
    torch.manual_seed(0)
    loss = SpectralResidualDistillation(student, teacher, size=size, penalty=0.3, norm=norm).double()
    for parameter in loss.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return loss


def plain(loss: SpectralResidualDistillation, student: Tensor, teacher: Tensor) -> Tensor:
    projected, teacher = loss.adapter(student, teacher, size=loss.residual.size)
    return spectral_residual(projected, teacher, loss.residual, penalty=loss.penalty)


@pytest.mark.parametrize("together", [1, 10**9], ids=["an image at a time", "all at once"])
@pytest.mark.parametrize("norm", ["ortho", "backward"])
@pytest.mark.parametrize("size", [(4, 6), (5, 5), (1, 3), (2, 2), (1, 1)])
def test_value_and_gradients_are_those_of_autograd(
    size: tuple[int, int], norm: Norm, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "TOGETHER", together)
    loss = trained(3, 5, size, norm)
    student = torch.randn(2, 4, 3, *size, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(4, 5, *size, dtype=torch.float64)
    wanted = [student, *loss.parameters()]
    expected, value = plain(loss, student, teacher), loss(student, teacher)
    torch.testing.assert_close(value, expected)
    for mine, theirs in zip(
        torch.autograd.grad(3 * value, wanted), torch.autograd.grad(3 * expected, wanted), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_gradients_are_those_of_differences() -> None:
    loss = trained(2, 3, (2, 3))
    student = torch.randn(2, 2, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, 2, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher), (student,))


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-9, 1e-4])
@pytest.mark.parametrize("bias", [-0.1, 0.0, 0.1])
def test_maps_near_silence(scale: float, bias: float) -> None:
    loss = trained(2, 2, (4, 4))
    with torch.no_grad():
        loss.residual.b1.zero_()
        loss.residual.bias.fill_(bias)
        loss.adapter.projection.bias.zero_()  # type: ignore[union-attr]
    student = (scale * torch.randn(2, 3, 2, 4, 4, dtype=torch.float64)).requires_grad_()
    teacher = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    wanted = [student, *loss.parameters()]
    mine = torch.autograd.grad(loss(student, teacher), wanted)
    theirs = torch.autograd.grad(plain(loss, student, teacher), wanted)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_layouts_pooling_and_images_without_time() -> None:
    loss = trained(3, 5, (4, 4))
    teacher = torch.randn(4, 5, 8, 8, dtype=torch.float64)
    for student in (
        torch.randn(2, 4, 3, 4, 4, dtype=torch.float64),
        torch.randn(2, 4, 3, 8, 8, dtype=torch.float64),
        torch.randn(4, 3, 4, 4, dtype=torch.float64),
        torch.randn(8, 4, 4, 3, dtype=torch.float64).movedim(-1, 1).unflatten(0, (2, 4)),
    ):
        student.requires_grad_()
        mine, theirs = loss(student, teacher), plain(loss, student, teacher)
        torch.testing.assert_close(mine, theirs)
        gradients = [torch.autograd.grad(value, student)[0] for value in (mine, theirs)]
        torch.testing.assert_close(*gradients)
        with torch.no_grad():
            torch.testing.assert_close(loss(student, teacher), mine)


def test_half_precision_maps_have_half_precision_gradients() -> None:
    loss = trained(3, 5, (4, 4)).float()
    student = torch.randn(2, 4, 3, 4, 4, dtype=torch.bfloat16, requires_grad=True)
    teacher = torch.randn(4, 5, 4, 4)
    value = loss(student, teacher)
    assert value.dtype == torch.float32
    value.backward()
    whole = student.detach().float().requires_grad_()
    plain(loss, whole, teacher).backward()
    assert student.grad is not None and student.grad.dtype == torch.bfloat16
    torch.testing.assert_close(student.grad.float(), whole.grad, rtol=2e-2, atol=1e-2)
