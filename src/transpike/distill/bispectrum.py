"""The methods of bi-spectrum distillation: logits KD with the spectral residual, with sorted logits, or with both.

Source: Zhang, Sun, Yao, Deng, Li, "Bi-Spectrum Distillation: Addressing Spectral Mismatch in ANN-SNN
Knowledge Transfer", Eq. 7 and Table 4. `transpike.distill.bsd` contains the equations of the parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from transpike.distill.adapter import Pairs
from transpike.distill.bsd import (
    Domain,
    Norm,
    Reduction,
    SpectralResidualDistillation,
    SpectralSemanticDistillation,
)
from transpike.distill.feature_method import FeatureMethod
from transpike.distill.logits import knowledge_distillation
from transpike.distill.method import NONE, Features, Method
from transpike.distill.settings import check_weights
from transpike.distill.taps import Stage

__all__ = ["BiSpectrumDistillation", "SRDDistillation", "SSDDistillation"]


class SSDDistillation(Method):
    """alpha * KD + gamma * `spectral_semantic`: the part of BSD for logits, the row "+SSD" of its Table 4.

    Args:
        stages: not used.
        alpha: weight of logits KD. A term with weight 0 is left out.
        gamma: weight of SSD.
        temperature: the temperature of logits KD.
        keep: the share of frequencies that SSD compares.
        reduction: how SSD reduces over classes: "mean" or "sum".

    Shapes: student logits [T, N, classes] or [N, classes], teacher logits [N, classes] -> weighted scalars "kd" and
    "ssd".

    Example:
        >>> terms = SSDDistillation()(torch.zeros(4, 2, 10), torch.zeros(2, 10))
        >>> {name: term.item() for name, term in terms.items()}
        {'kd': 0.0, 'ssd': 0.0}
    """

    def __init__(
        self,
        stages: Sequence[Stage] = (),
        *,
        alpha: float = 0.5,
        gamma: float = 0.5,
        temperature: float = 2.0,
        keep: float = 0.5,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(alpha=alpha, gamma=gamma, temperature=temperature)
        self.ssd = SpectralSemanticDistillation(keep, reduction=reduction)

    def answer(self, student: Tensor, teacher: Tensor, target: Tensor | None) -> dict[str, Tensor]:
        terms = {}
        if alpha := self.weights["alpha"]:
            terms["kd"] = alpha * knowledge_distillation(student, teacher, temperature=self.temperature)
        if gamma := self.weights["gamma"]:
            terms["ssd"] = gamma * self.ssd(student, teacher)
        return terms


class SRDDistillation(FeatureMethod):
    """alpha * KD + beta * `spectral_residual`, summed over stages: the row "+SRD" of BSD's Table 4.

    Args:
        stages: pairs of taps; see `transpike.distill.taps`.
        alpha: weight of logits KD. A term with weight 0 is left out.
        beta: weight of SRD: in the paper 7e-4 for ResNets on CIFAR and 7e-5 elsewhere. Its best value depends on the
            size and scale of the teacher's maps. Look at the terms of the first step, or set `normalize`.
        temperature: the temperature of logits KD.
        penalty: weight of the residual's size in SRD.
        domain: "spatial" computes SRD without Fourier transforms.
        normalize: divide the teacher's maps by their root mean square.
        norm: the norm of SRD's Fourier transform: "ortho", or "backward", with which the penalty weighs H W times as
            much.

    Shapes and errors: as `FeatureMethod` -> weighted scalars "kd" and "srd".

    Example:
        >>> method = SRDDistillation([Stage("a", "b", 4, 6, (8, 8), (8, 8))], beta=7e-4)
        >>> logits = torch.zeros(2, 3, 10)
        >>> terms = method(logits, logits[0], {"a": torch.zeros(2, 3, 4, 8, 8)}, {"b": torch.ones(3, 6, 8, 8)})
        >>> {name: round(term.item(), 4) for name, term in terms.items()}
        {'kd': 0.0, 'srd': 0.2688}
    """

    adapts = "SRD projects them to the teacher’s channels and adds its residual."

    def __init__(
        self,
        stages: Sequence[Stage] = (),
        *,
        alpha: float = 0.5,
        beta: float = 7e-5,
        temperature: float = 2.0,
        penalty: float = 0.01,
        domain: Domain = "frequency",
        normalize: bool = False,
        norm: Norm = "ortho",
    ) -> None:
        super().__init__(stages, alpha=alpha, temperature=temperature, beta=beta)
        check_weights(penalty=penalty)
        self.srd = nn.ModuleList(
            SpectralResidualDistillation(
                stage.student_channels,
                stage.teacher_channels,
                size=stage.size,
                penalty=penalty,
                domain=domain,
                normalize=normalize,
                norm=norm,
            )
            for stage in self.stages
        )

    def pairs(self, student: Features, teacher: Features) -> Pairs:
        """Return the compared maps of each stage: the student's with the residual, and the teacher's."""
        return {
            stage: loss.pair(student[stage.student], teacher[stage.teacher])  # type: ignore[operator]
            for loss, stage in zip(self.srd, self.stages, strict=True)
        }

    def compare(self, student: Features, teacher: Features) -> dict[str, Tensor]:
        distances = [
            loss(student[stage.student], teacher[stage.teacher])
            for loss, stage in zip(self.srd, self.stages, strict=True)
        ]
        return {"srd": self.weights["beta"] * torch.stack(distances).sum()}


class BiSpectrumDistillation(SRDDistillation):
    """alpha * KD + beta * SRD, summed over stages, + gamma * SSD: the terms that BSD adds to the task loss (Eq. 7).

    A term with weight 0 is left out. So the paper's ablations are settings: logits KD (beta = gamma = 0), +SSD (beta =
    0), +SRD (gamma = 0).

    Args:
        stages: pairs of taps; see `transpike.distill.taps`.
        alpha: weight of logits KD.
        beta: weight of SRD; see `SRDDistillation`.
        gamma: weight of SSD.
        temperature: the temperature of logits KD.
        keep: the share of frequencies that SSD compares.
        penalty: weight of the residual's size in SRD.
        domain: "spatial" computes SRD without Fourier transforms.
        normalize: divide the teacher's maps by their root mean square.
        norm: the norm of SRD's Fourier transform: "ortho", or "backward", with which the penalty weighs H W times as
            much.
        reduction: how SSD reduces over classes: "mean" or "sum".

    Shapes: student logits [T, N, classes] or [N, classes], teacher logits [N, classes]; features by tap, the student's
    [T, N, C, H, W] or [N, C, H, W], the teacher's [N, C', H', W'] -> weighted scalars "kd", "srd" and "ssd".

    Example:
        >>> stages = [Stage("a", "b", 4, 6, (8, 8), (8, 8))]
        >>> bsd = BiSpectrumDistillation(stages, beta=7e-4)
        >>> logits, features = torch.zeros(2, 3, 10), {"a": torch.zeros(2, 3, 4, 8, 8)}
        >>> terms = bsd(logits, logits[0], features, {"b": torch.ones(3, 6, 8, 8)})
        >>> {name: round(term.item(), 4) for name, term in terms.items()}
        {'kd': 0.0, 'srd': 0.2688, 'ssd': 0.0}
    """

    def __init__(
        self,
        stages: Sequence[Stage] = (),
        *,
        alpha: float = 0.5,
        beta: float = 7e-5,
        gamma: float = 0.5,
        temperature: float = 2.0,
        keep: float = 0.5,
        penalty: float = 0.01,
        domain: Domain = "frequency",
        normalize: bool = False,
        norm: Norm = "ortho",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(
            stages,
            alpha=alpha,
            beta=beta,
            temperature=temperature,
            penalty=penalty,
            domain=domain,
            normalize=normalize,
            norm=norm,
        )
        check_weights(gamma=gamma)
        self.gamma = gamma
        self.ssd = SpectralSemanticDistillation(keep, reduction=reduction)

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        student_features: Features = NONE,
        teacher_features: Features = NONE,
        target: Tensor | None = None,
    ) -> dict[str, Tensor]:
        terms = super().forward(student_logits, teacher_logits, student_features, teacher_features, target)
        if self.gamma:
            terms["ssd"] = self.gamma * self.ssd(student_logits, teacher_logits)
        return terms

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, gamma={self.gamma}"
