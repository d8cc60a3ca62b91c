"""Distillation of feature maps from one artificial network to another: FitNets, attention transfer and OFD.

Spiking students are averaged over time. Transformers and MLPs use the grid of their tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transpike.distill.adapter import Adapter, Pairs, on_grid
from transpike.distill.feature_method import FeatureMethod, smallest_of_norms, stage_maps
from transpike.distill.features import attention_distance
from transpike.distill.inputs import feature_pair
from transpike.distill.method import Features
from transpike.distill.taps import Stage
from transpike.errors import ModelError

__all__ = [
    "ATDistillation",
    "FitNetDistillation",
    "MarginReLU",
    "OFDDistillation",
    "attention_transfer",
    "hint_distance",
    "partial_distance",
]


def hint_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of maps: a scalar.

    L = mean (F_s - F_t)^2

    Source: Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015. Its hint loss is half a sum; here it is a
        mean.

    Args:
        student: [N, C, H, W], after the regressor.
        teacher: [N, C, H, W].

    Example:
        >>> hint_distance(torch.zeros(3, 4, 8, 8), torch.full((3, 4, 8, 8), 2.0)).item()
        4.0
    """
    return F.mse_loss(*feature_pair(student, teacher))


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of normalized spatial attention maps: a scalar.

    L = 1 / (N H W) * sum_n |A_s / |A_s| - A_t / |A_t||^2,  A = sum over channels of F^2

    Source: Zagoruyko, Komodakis, "Paying More Attention to Attention", ICLR 2017, equation 2, with squares of
    activations, and the squared norm and the mean of its public code.

    Args:
        student: [N, C, H, W].
        teacher: [N, C', H, W]. It may have other channels and another scale.

    Example:
        >>> maps = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
        >>> attention_transfer(3 * maps.repeat(1, 4, 1, 1), maps).item(), attention_transfer(maps, maps.flip(-1)).item()
        (0.0, 1.0)
    """
    return attention_distance(student, teacher) / student[0, 0].numel()


def partial_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared distance of maps, without places where both are negative and the student's is lower: a scalar.

    L = 1 / N * sum of (F_s - F_t)^2 over all places but those with F_s <= F_t <= 0

    Source: Heo et al., "A Comprehensive Overhaul of Feature Distillation", ICCV 2019, its partial L2 distance.

    Args:
        student: [N, C, H, W].
        teacher: [N, C, H, W], after `MarginReLU`.

    Example:
        >>> student, teacher = torch.tensor([-3.0, 0.0, 1.0]), torch.tensor([-1.0, -1.0, 3.0])
        >>> partial_distance(student.view(1, 3, 1, 1), teacher.view(1, 3, 1, 1)).item()
        5.0
    """
    student, teacher = feature_pair(student, teacher)
    counts = (student > teacher) | (teacher > 0)
    return ((student - teacher).square() * counts).sum() / len(student)


class MarginReLU(nn.Module):
    """max(x, m_c), where m_c is the mean of the negative responses of channel c over all batches seen in training.

    Source: Heo et al., ICCV 2019. Public code computes m_c from the teacher's batch normalization before the ReLU, as
    the mean of the negative part of a Gaussian. A tap may have no batch normalization before it (transformers, MLPs).
    So here m_c is measured, which is our reading. A channel that is never negative, as after a ReLU, has m_c = 0.

    Args:
        channels: C.

    Shapes: [N, C, H, W] -> the same.

    Example:
        >>> MarginReLU(1)(torch.tensor([-3.0, -1.0, 0.0, 2.0]).view(1, 1, 2, 2)).flatten()
        tensor([-2., -1.,  0.,  2.])
    """

    margin: Tensor
    count: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("margin", torch.zeros(channels))
        self.register_buffer("count", torch.zeros(channels))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            new = (x < 0).sum((0, 2, 3))
            self.count += new
            self.margin += (x.clamp(max=0).sum((0, 2, 3)) - new * self.margin) / self.count.clamp(min=1)
        return torch.maximum(x, self.margin.view(-1, 1, 1))


class FitNetDistillation(FeatureMethod):
    """beta * `hint_distance` of the student's maps after a 1x1 convolution, summed over all stages.

    Source: Romero et al., ICLR 2015. Our reading: the hints are learned together with the task, not before it, at every
        stage. beta is from OFA-KD's public code, which also does this. Tian et al. (ICLR 2020) use one stage and 100.

    Args:
        stages: pairs of taps; all are used.
        alpha: weight of logits KD, which the paper does not use.
        beta: weight of the hints.
        temperature: the temperature of logits KD.

    Shapes and errors: as `FeatureMethod` -> weighted scalar "hint".

    Example:
        >>> method = FitNetDistillation([Stage("a", "b", 4, 4, (8, 8), (4, 4))])
        >>> logits = torch.zeros(3, 10)
        >>> teacher = {"b": torch.full((3, 4, 4, 4), 2.0)}
        >>> method(logits, logits, {"a": torch.zeros(2, 3, 4, 8, 8)}, teacher)["hint"].item()
        4.0
    """

    def __init__(
        self, stages: Sequence[Stage] = (), *, alpha: float = 0.0, beta: float = 1.0, temperature: float = 4.0
    ) -> None:
        super().__init__(stages, alpha=alpha, temperature=temperature, beta=beta)
        self.adapters = nn.ModuleList(Adapter(stage.student_channels, stage.teacher_channels) for stage in self.stages)

    def pairs(self, student: Features, teacher: Features) -> Pairs:
        """Return the compared maps of each stage, the student's and the teacher's, both [N, C', H, W]."""
        return {
            stage: adapter(student[stage.student], teacher[stage.teacher], size=stage.size)
            for adapter, stage in zip(self.adapters, self.stages, strict=True)
        }

    def compare(self, student: Features, teacher: Features) -> dict[str, Tensor]:
        distances = [hint_distance(*pair) for pair in self.pairs(student, teacher).values()]
        return {"hint": self.weights["beta"] * torch.stack(distances).sum()}


class ATDistillation(FeatureMethod):
    """beta * `attention_transfer`, summed over all stages. The method has no parameters.

    Source: Zagoruyko, Komodakis, ICLR 2017, whose beta is 1000.

    Args:
        stages: pairs of taps; all are used.
        alpha: weight of logits KD.
        beta: weight of the attention maps.
        temperature: the temperature of logits KD.

    Shapes and errors: as `FeatureMethod` -> weighted scalar "attention".

    Raises:
        ModelError: A stage's grid has a single place.

    Example:
        >>> method = ATDistillation([Stage("a", "b", 4, 6, (1, 2), (1, 2))], beta=1.0)
        >>> logits, maps = torch.zeros(1, 10), torch.tensor([1.0, 0.0]).expand(1, 4, 1, 2)
        >>> method(logits, logits, {"a": maps}, {"b": maps[:, :1].expand(1, 6, 1, 2).flip(-1)})["attention"].item()
        1.0
    """

    def __init__(
        self, stages: Sequence[Stage] = (), *, alpha: float = 0.0, beta: float = 1000.0, temperature: float = 4.0
    ) -> None:
        super().__init__(stages, alpha=alpha, temperature=temperature, beta=beta)
        for stage in self.stages:
            if stage.size == (1, 1):
                raise ModelError(
                    f"attention transfer compares places, but {stage.student!r} and {stage.teacher!r} have only one in "
                    "common: tap modules before the pooling."
                )

    def compare(self, student: Features, teacher: Features) -> dict[str, Tensor]:
        distances = [
            attention_transfer(*(on_grid(maps, stage.size) for maps in stage_maps(stage, student, teacher)))
            for stage in self.stages
        ]
        return {"attention": self.weights["beta"] * torch.stack(distances).sum()}


class OFDDistillation(FeatureMethod):
    """beta * `partial_distance` of BN(conv1x1(F_s)) from `MarginReLU`(F_t); each stage weighs half of the next.

    L = sum over stages i = 1..S of 2^(i - S) * partial_distance

    Source: Heo et al., "A Comprehensive Overhaul of Feature Distillation", ICCV 2019 ("OFD"); the halving and beta as
    in the public code of Zhao et al., CVPR 2022. The paper taps before the ReLU at the end of each stage. Here this is
    possible by the modules' names. After a ReLU, where the default taps of ResNets are, the margins are 0. Then the
    student learns the positive values, and to be not positive elsewhere.

    Args:
        stages: pairs of taps, in order of depth; all are used.
        alpha: weight of logits KD.
        beta: weight of the features.
        temperature: the temperature of logits KD.

    Shapes and errors: as `FeatureMethod` -> weighted scalar "partial".

    Example:
        >>> method = OFDDistillation([Stage("a", "b", 4, 6, (8, 8), (4, 4))], beta=1.0)
        >>> logits = torch.zeros(3, 10)
        >>> method(logits, logits, {"a": torch.zeros(2, 3, 4, 8, 8)}, {"b": torch.ones(3, 6, 4, 4)})["partial"].item()
        96.0
    """

    def __init__(
        self, stages: Sequence[Stage] = (), *, alpha: float = 0.0, beta: float = 1e-3, temperature: float = 4.0
    ) -> None:
        super().__init__(stages, alpha=alpha, temperature=temperature, beta=beta)
        self.adapters = nn.ModuleList(Adapter(stage.student_channels, stage.teacher_channels) for stage in self.stages)
        self.norms = nn.ModuleList(nn.BatchNorm2d(stage.teacher_channels) for stage in self.stages)
        self.margins = nn.ModuleList(MarginReLU(stage.teacher_channels) for stage in self.stages)
        self.smallest_batch = smallest_of_norms(self.stages)

    def pairs(self, student: Features, teacher: Features) -> Pairs:
        """Return the compared maps of each stage, the student's and the teacher's, both [N, C', H, W]."""
        found = {}
        for stage, adapter, norm, margin in zip(self.stages, self.adapters, self.norms, self.margins, strict=True):
            own, other = adapter(student[stage.student], teacher[stage.teacher], size=stage.size)
            found[stage] = norm(own), margin(other)
        return found

    def compare(self, student: Features, teacher: Features) -> dict[str, Tensor]:
        total = student[self.stages[0].student].new_zeros(())
        for pair in self.pairs(student, teacher).values():
            total = total / 2 + partial_distance(*pair)
        return {"partial": self.weights["beta"] * total}
