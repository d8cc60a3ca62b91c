"""Computes the spectral residual's loss and its gradients in one pass over a few images at a time, by hand.

`transpike.distill.bsd.spectral_residual` states what is computed. Its automatic differentiation moves about forty
arrays of the features' size through memory. Here they stay in the cache.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from transpike.spectral.fourier import irfft2, rfft2

__all__ = ["fused_residual"]

TOGETHER = 2**17
"""The numbers of a feature map that are processed at once on a CPU: half a megabyte of float32. A GPU takes all."""


def fused_residual(
    student: Tensor,
    teacher: Tensor,
    projection: tuple[Tensor, Tensor],
    residual: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    *,
    penalty: float,
    small: float,
    scale: float = 1.0,
) -> Tensor:
    """Return `spectral_residual` of the projected mean over time, with gradients for all arguments but the teacher.

    Args:
        student: [T, N, C, H, W].
        teacher: [N, C', H, W].
        projection: weight [C', C, 1, 1] and bias [C'] of the 1x1 convolution.
        residual: W1, B1, W2, B2, pairs of reals [H, W // 2 + 1, 2], and modReLU's bias [H, W // 2 + 1].
        penalty: weight of the residual's size.
        small: the least magnitude in modReLU's quotient.
        scale: the scale of the spectra, 1 for the orthonormal transform.

    Example:
        >>> maps, spectra = torch.ones(2, 3, 4, 8, 8), [torch.zeros(8, 5, 2) for _ in range(4)]
        >>> projection = (torch.eye(4).view(4, 4, 1, 1), torch.zeros(4))
        >>> parts = (*spectra, torch.zeros(8, 5))
        >>> loss = fused_residual(maps, torch.zeros(3, 4, 8, 8), projection, parts, penalty=0.01, small=1e-3)
        >>> round(loss.item(), 3)
        256.0
    """
    loss: Tensor = _Fused.apply(student, teacher, penalty, small, scale, *projection, *residual)
    return loss


class _Context(Protocol):
    """The context that PyTorch passes from the forward to the backward pass."""

    steps: int
    samples: int
    dtype: torch.dtype
    saved_tensors: tuple[Tensor, ...]

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _Context, student: Tensor, teacher: Tensor, penalty: float, small: float, scale: float, *parameters: Tensor
    ) -> Tensor:
        dtype = parameters[0].dtype
        steps, samples = student.shape[:2]
        # In the student's own layout (perhaps channels-last): adding it to other gradients then reads memory in order.
        back = torch.empty_like(student[0], dtype=dtype)
        sums = [torch.zeros_like(parameter) for parameter in parameters]
        total = torch.zeros((), dtype=dtype, device=student.device)
        count = max(1, TOGETHER // teacher[0].numel()) if student.device.type == "cpu" else samples
        for start in range(0, samples, count):
            part = slice(start, start + count)
            mean = student[:, part].to(dtype).mean(0)
            loss, back[part], *gradients = _chunk(mean, teacher[part].to(dtype), parameters, penalty, small, scale)
            total += loss
            for total_gradient, gradient in zip(sums, gradients, strict=True):
                total_gradient += gradient
        ctx.save_for_backward(back, *sums)
        ctx.steps, ctx.samples, ctx.dtype = steps, samples, student.dtype
        return total / samples

    @staticmethod
    def backward(ctx: _Context, upstream: Tensor) -> tuple[Tensor | None, ...]:
        back, *sums = ctx.saved_tensors
        scale = upstream / ctx.samples
        student = (back * (scale / ctx.steps)).to(ctx.dtype)
        return student.expand(ctx.steps, *student.shape), None, None, None, None, *(total * scale for total in sums)


def _chunk(
    mean: Tensor, teacher: Tensor, parameters: tuple[Tensor, ...], penalty: float, small: float, scale: float
) -> tuple[Tensor, ...]:
    """Return the sum of the loss over a few images, and its gradients for all arguments but the teacher."""
    weight, shift, w1, b1, w2, b2, bias = parameters
    width = mean.shape[-1]
    columns = torch.full((width // 2 + 1,), 2.0, dtype=mean.dtype, device=mean.device)
    columns[0] = 1.0
    if width % 2 == 0:
        columns[-1] = 1.0
    flat, matrix = mean.flatten(2), weight.flatten(1)
    projected = torch.baddbmm(shift.view(1, -1, 1), matrix.expand(len(mean), -1, -1), flat)
    spectrum = rfft2(projected.view_as(teacher))
    if scale != 1:
        spectrum.mul_(scale)
    w1, b1, w2, b2 = (torch.view_as_complex(part) for part in (w1, b1, w2, b2))

    # R = W2 * gain * Z + B2, gain = relu(|Z| + bias) / max(|Z|, small), Z = W1 * X + B1
    z = torch.view_as_real(torch.addcmul(b1, w1, spectrum))
    magnitude = z.square().sum(-1).sqrt_()
    lifted = torch.relu(magnitude + bias)
    divisor = magnitude.clamp(min=small)
    gain = lifted / divisor
    activated = torch.view_as_complex(z * gain.unsqueeze(-1))
    extra = torch.addcmul(b2, w2, activated)
    difference = irfft2(spectrum + extra, width=width)
    if scale != 1:
        difference.div_(scale)
    difference.sub_(teacher)
    size = torch.view_as_real(extra).square().sum((0, 1, 2, 4))
    loss = difference.square().sum() + penalty * (size * columns).sum()

    # A half spectrum's inner columns count twice in the maps.
    outer = rfft2(difference.mul_(2 / scale)).mul_(columns)
    by_extra = torch.addcmul(outer, extra, (2 * penalty * columns).to(extra.dtype))
    by_activated = torch.view_as_real(by_extra * w2.conj())
    along = (z * by_activated).sum(-1)
    active = lifted > 0
    # The gain's slope by |Z|, divided by |Z|. At 0, `along` is 0 too, so any divisor works.
    slope = torch.where(magnitude < small, 1 / divisor, (1 - gain) / divisor) * active / magnitude.clamp(min=1e-12)
    by_z = torch.view_as_complex(torch.addcmul(by_activated * gain.unsqueeze(-1), z, (along * slope).unsqueeze(-1)))
    by_spectrum = torch.addcmul(outer, by_z, w1.conj())
    by_projected = irfft2(by_spectrum / columns, width=width).flatten(2)
    if scale != 1:
        by_projected.mul_(scale)

    by_matrix = torch.einsum("nop,nip->oi", by_projected, flat)
    by_mean = (matrix.mT @ by_projected).view_as(mean)
    return (
        loss,
        by_mean,
        by_matrix.view_as(weight),
        by_projected.sum((0, 2)),
        torch.view_as_real((by_z * spectrum.conj()).sum((0, 1))),
        torch.view_as_real(by_z.sum((0, 1))),
        torch.view_as_real((by_extra * activated.conj()).sum((0, 1))),
        torch.view_as_real(by_extra.sum((0, 1))),
        (along * active / divisor).sum((0, 1)),
    )
