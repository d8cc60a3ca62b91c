"""Bi-spectrum distillation: features by a spectral residual, logits by the high frequencies of their sorted order.

Source of all equations: Zhang, Sun, Yao, Deng, Li, "Bi-Spectrum Distillation: Addressing Spectral Mismatch in ANN-SNN
Knowledge Transfer". What the paper leaves open is an argument of each function, marked "our reading".
"""

from __future__ import annotations

from math import sqrt
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from transpike.checks import choice, number
from transpike.distill.adapter import Adapter, mean_over_time, on_grid, unit_energy
from transpike.distill.fused import fused_residual
from transpike.distill.inputs import feature_pair, mean_logit_pair
from transpike.distill.settings import check_weights
from transpike.spectral.fourier import full_precision, half_spectrum_energy, high_pass, irfft2, rfft2

__all__ = [
    "Domain",
    "Norm",
    "Reduction",
    "SpectralResidual",
    "SpectralResidualDistillation",
    "SpectralSemanticDistillation",
    "modrelu",
    "spectral_residual",
    "spectral_semantic",
]

Domain = Literal["frequency", "spatial"]
Norm = Literal["ortho", "backward"]
Reduction = Literal["mean", "sum"]


SMALL = 1e-3


def modrelu(z: Tensor, bias: Tensor) -> Tensor:
    """Compute relu(|z| + bias) * z / |z|. It keeps the phase of a complex number, or the sign of a real one.

    In the quotient, |z| is at least 0.001. Otherwise the slope at z = 0 would have no bound if the bias is above 0. A
    frequency that is 0 except for rounding could then send back any gradient.

    Source: Trabelsi et al., "Deep Complex Networks", ICLR 2018.

    Example:
        >>> modrelu(torch.tensor([3 + 4j, 0j]), torch.tensor(-2.5))
        tensor([1.5000+2.j, 0.0000+0.j])
    """
    magnitude = z.abs()
    return torch.relu(magnitude + bias) / magnitude.clamp(min=SMALL) * z


def spectral_residual(student: Tensor, teacher: Tensor, residual: SpectralResidual, *, penalty: float = 0.01) -> Tensor:
    """Return the distance of the teacher's maps from the student's after a learned spectral residual: a scalar.

    L_SRD = ||F^ - F_t||^2 / N + penalty * ||R||^2 / N,  F^ = IFFT(F~ + R),  F~ = FFT(F_s),  R = residual(F~)

    Equations 9 to 11. Our reading: the norms are sums over features, divided by the batch size N.

    Args:
        student: [N, C, H, W], averaged over time and projected to the teacher's channels.
        teacher: [N, C, H, W].
        residual: computes R; see `SpectralResidual`.
        penalty: weight of the residual's size, lambda in the paper.

    Example:
        >>> student, teacher = torch.zeros(2, 4, 8, 8), torch.ones(2, 4, 8, 8)
        >>> spectral_residual(student, teacher, SpectralResidual((8, 8))).item()
        256.0
    """
    student, teacher = feature_pair(student, teacher)
    adapted, size = residual.adapt(student)
    return ((adapted - teacher).square().sum() + penalty * size) / len(student)


def spectral_semantic(
    student_logits: Tensor, teacher_logits: Tensor, *, keep: float = 0.5, reduction: Reduction = "mean"
) -> Tensor:
    """Return the mean squared distance of the high frequencies of logits in the teacher's sorted order: a scalar.

    L_SSD = mean (HP(z_s[phi]) - HP(z_t[phi]))^2,  phi sorts z_t in descending order

    Equations 12 to 15. Our reading is the mean over classes and batch. Eq. 15 may also be read as a sum over classes.
    Relabelling the classes changes nothing, and neither does a constant added to all logits of an image.

    Args:
        student_logits: [N, classes], or [T, N, classes], which is averaged over time.
        teacher_logits: [N, classes].
        keep: the share of frequencies that passes: those above (1 - keep) / 2 cycles per class.
        reduction: "mean" over classes, or "sum", which is the mean times their number.

    Raises:
        ConfigError: `keep` is outside (0, 1), or the reduction is unknown.
        DataError: The shapes do not fit.

    Example:
        >>> teacher = torch.tensor([[4.0, 1.0, 3.0, 2.0]])
        >>> spectral_semantic(teacher + 7, teacher).item(), spectral_semantic(-teacher, teacher).item()
        (0.0, 1.0)
    """
    choice("reduction", reduction, get_args(Reduction))
    student_logits, teacher_logits = mean_logit_pair(mean_over_time(student_logits), teacher_logits)
    order = teacher_logits.argsort(dim=-1, descending=True, stable=True)
    # The filter is linear, and so is sorting by a fixed order: one transform of the difference is enough.
    difference = (student_logits - teacher_logits).gather(-1, order)
    squares = high_pass(difference, keep=keep).square()
    return squares.mean() if reduction == "mean" else squares.sum(-1).mean()


class SpectralResidual(nn.Module):
    """The learned residual R = W2 * modReLU(W1 * X + B1) + B2, one number for a frequency, the same for all channels.

    Equation 9. It begins as zero, W2 = B2 = 0, so that it first changes nothing.

    Args:
        size: (H, W) of the maps.
        domain: "frequency": complex, on half spectra [H, W // 2 + 1]; "spatial", the paper's control experiment: real,
            on the maps [H, W] themselves, without Fourier transforms.
        norm: the norm of the Fourier transform. "ortho" keeps the energy of the maps, "backward" multiplies it by H W.
            The penalty of a residual then weighs H W times as much. With "ortho" it is 0.01 of what the residual saves,
            for any size.

    Shapes: half spectra or maps [N, C, *] -> the same shape.

    Example:
        >>> residual = SpectralResidual((8, 8))
        >>> residual(rfft2(torch.rand(2, 4, 8, 8))).abs().sum().item()
        0.0
        >>> sum(parameter.numel() for parameter in residual.parameters())  # four complex maps of 8 x 5 and a real one
        360
    """

    def __init__(self, size: tuple[int, int], *, domain: Domain = "frequency", norm: Norm = "ortho") -> None:
        super().__init__()
        choice("domain", domain, get_args(Domain))
        choice("norm", norm, get_args(Norm))
        self.size = (size[0], size[1])
        self.norm = norm
        self.domain = domain
        height, width = size
        places = (height, width // 2 + 1) if domain == "frequency" else (height, width)
        # Complex numbers are pairs of reals, which every optimiser, DDP backend and file format supports.
        shape = (*places, 2) if domain == "frequency" else places
        unit = torch.zeros(shape)
        unit.select(-1, 0).fill_(1.0) if domain == "frequency" else unit.fill_(1.0)
        self.w1 = nn.Parameter(unit)
        self.b1 = nn.Parameter(torch.zeros(shape))
        self.w2 = nn.Parameter(torch.zeros(shape))
        self.b2 = nn.Parameter(torch.zeros(shape))
        self.bias = nn.Parameter(torch.zeros(places))

    def forward(self, x: Tensor) -> Tensor:
        w1, b1, w2, b2 = (self._values(p) for p in (self.w1, self.b1, self.w2, self.b2))
        return torch.addcmul(b2, w2, modrelu(torch.addcmul(b1, w1, x), self.bias))

    @property
    def scale(self) -> float:
        """The factor by which the transform exceeds the orthonormal one."""
        return 1.0 if self.norm == "ortho" else sqrt(self.size[0] * self.size[1])

    def adapt(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the maps [N, C, H, W] with the residual added, and the sum of squares of the residual."""
        if self.domain == "spatial":
            residual = self(maps)
            return maps + residual, residual.square().sum()
        spectrum = rfft2(maps) * self.scale
        residual = self(spectrum)
        width = maps.shape[-1]
        return irfft2((spectrum + residual) / self.scale, width=width), half_spectrum_energy(residual, width=width)

    def _values(self, parameter: Tensor) -> Tensor:
        return torch.view_as_complex(parameter) if self.domain == "frequency" else parameter

    def extra_repr(self) -> str:
        return f"{self.size}, domain={self.domain!r}, norm={self.norm!r}"


class SpectralResidualDistillation(nn.Module):
    """`spectral_residual` of a student's maps over time, with its projection and its learned filter, for training.

    The steps are: mean over time, 1x1 convolution to the teacher's channels (first the identity if the channels match),
    pooling of the larger maps to the smaller (our reading), then the spectral residual. Value and gradients are
    computed together, a few images at a time. A second derivative is not possible.

    Args:
        student_channels: channels of the student's maps.
        teacher_channels: channels of the teacher's maps.
        size: (H, W) of the grid on which both are compared; neither map may be smaller.
        penalty: weight of the residual's size, lambda in the paper.
        domain: "frequency", or "spatial" for the paper's control experiment.
        normalize: divide the teacher's maps by the root of their mean square over the batch, so that the loss does not
            depend on the teacher's scale. The paper does not do this.
        norm: of the Fourier transform; see `SpectralResidual`.

    Shapes: student [T, N, C, H, W] or [N, C, H, W], teacher [N, C', H', W'] -> a scalar.

    Raises:
        DataError: On call: the maps do not fit.

    Example:
        >>> loss = SpectralResidualDistillation(4, 4, size=(8, 8))
        >>> student, teacher = torch.ones(2, 3, 4, 8, 8), torch.zeros(3, 4, 16, 16)
        >>> round(loss(student, teacher).item(), 3)
        256.0
    """

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        *,
        size: tuple[int, int],
        penalty: float = 0.01,
        domain: Domain = "frequency",
        normalize: bool = False,
        norm: Norm = "ortho",
    ) -> None:
        super().__init__()
        check_weights(penalty=penalty)
        self.adapter = Adapter(student_channels, teacher_channels)
        self.residual = SpectralResidual(size, domain=domain, norm=norm)
        self.penalty = penalty
        self.normalize = normalize

    def pair(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Return the compared maps: the student's with the residual and the teacher's, both [N, C', H, W]."""
        with torch.autocast(student.device.type, enabled=False):
            projected, teacher = self.adapter(student, teacher, size=self.residual.size)
            adapted, _ = self.residual.adapt(projected)
            return adapted, self._target(teacher)

    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        adapter, residual = self.adapter, self.residual
        with torch.autocast(student_features.device.type, enabled=False):
            adapter.check(student_features, teacher_features)
            teacher = self._target(on_grid(full_precision(teacher_features), residual.size))
            if residual.domain == "spatial" or not torch.is_grad_enabled():
                student, _ = adapter(student_features, teacher_features, size=residual.size)
                return spectral_residual(student, teacher, residual, penalty=self.penalty)
            student = student_features if student_features.ndim == 5 else student_features[None]
            if student.shape[-2:] != residual.size:
                student = on_grid(mean_over_time(full_precision(student)), residual.size)[None]
            assert adapter.projection.bias is not None
            projection = (adapter.projection.weight, adapter.projection.bias)
            parts = (residual.w1, residual.b1, residual.w2, residual.b2, residual.bias)
            return fused_residual(
                student, teacher, projection, parts, penalty=self.penalty, small=SMALL, scale=residual.scale
            )

    def _target(self, teacher: Tensor) -> Tensor:
        return unit_energy(teacher) if self.normalize else teacher

    def extra_repr(self) -> str:
        return f"penalty={self.penalty}, normalize={self.normalize}"


class SpectralSemanticDistillation(nn.Module):
    """`spectral_semantic` as a module.

    Args:
        keep: the share of frequencies that passes, in (0, 1).
        reduction: how to reduce over classes: "mean" or "sum".

    Shapes: student [T, N, classes] or [N, classes], teacher [N, classes] -> a scalar.

    Example:
        >>> SpectralSemanticDistillation()(torch.zeros(4, 2, 10), torch.zeros(2, 10)).item()
        0.0
    """

    def __init__(self, keep: float = 0.5, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.keep = number("keep", keep, above=0, below=1)
        self.reduction: Reduction = reduction
        choice("reduction", reduction, get_args(Reduction))

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        with torch.autocast(student_logits.device.type, enabled=False):
            return spectral_semantic(student_logits, teacher_logits, keep=self.keep, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"keep={self.keep}, reduction={self.reduction!r}"
