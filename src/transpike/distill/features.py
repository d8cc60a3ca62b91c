"""Earlier distillation of feature maps: KDSNN, LaSNN, BKDSNN and SAKD, all with the same taps and adapters as BSD."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transpike.distill.adapter import Adapter, Pairs, on_grid, unit_energy
from transpike.distill.feature_method import FeatureMethod, smallest_of_norms, stage_maps
from transpike.distill.inputs import feature_pair, labels
from transpike.distill.logits import weighted_logits
from transpike.distill.method import Features
from transpike.distill.taps import Stage
from transpike.errors import ConfigError

__all__ = [
    "BKDSNNDistillation",
    "KDSNNDistillation",
    "LaSNNDistillation",
    "SAKDDistillation",
    "attention_distance",
    "drop_channels",
    "feature_distance",
]


def feature_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared distance of maps, summed over features and averaged over the batch: a scalar.

    L = ||F_s - F_t||^2 / N

    The reduction is that of BKDSNN's public code. The papers' weights assume it.

    Args:
        student: [N, C, H, W].
        teacher: [N, C, H, W].

    Example:
        >>> feature_distance(torch.zeros(3, 4, 8, 8), torch.ones(3, 4, 8, 8)).item()
        256.0
    """
    student, teacher = feature_pair(student, teacher)
    return (student - teacher).square().sum() / len(student)


def attention_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared distance of normalized spatial attention maps, averaged over the batch: a scalar from 0 to 2.

    L = 1 / N * sum_n |A_s / |A_s| - A_t / |A_t||^2,  A = sum over channels of F^2

    The two may have different channels and scales.

    Source: Zagoruyko, Komodakis, "Paying More Attention to Attention", ICLR 2017, section 3.1, with squares of
    activations.

    Args:
        student: [N, C, H, W].
        teacher: [N, C', H, W].

    Example:
        >>> maps = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
        >>> attention_distance(3 * maps.repeat(1, 4, 1, 1), maps).item(), attention_distance(maps, maps.flip(-1)).item()
        (0.0, 2.0)
    """
    student, teacher = feature_pair(student, teacher)
    return (_attention(student) - _attention(teacher)).square().sum() / len(student)


def _attention(maps: Tensor) -> Tensor:
    return F.normalize(maps.square().sum(1).flatten(1), dim=1)


def drop_channels(maps: Tensor, drop: float) -> Tensor:
    """Return maps [N, C, H, W] with each channel of each image set to 0 with probability `drop`. The rest is unchanged.

    Example:
        >>> drop_channels(torch.ones(2, 4, 8, 8), 0.0).sum().item()
        512.0
    """
    # Not dropout2d, which scales up the remaining channels.
    return maps * (torch.rand(*maps.shape[:2], 1, 1, device=maps.device) >= drop)


class _Adapters(nn.Module):
    """One `Adapter` for each stage: turns features by tap into comparable pairs of maps [N, C', H, W]."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.stages = tuple(stages)
        self.each = nn.ModuleList(Adapter(stage.student_channels, stage.teacher_channels) for stage in stages)

    def forward(self, student: Features, teacher: Features) -> Pairs:
        return {
            stage: adapter(student[stage.student], teacher[stage.teacher], size=stage.size)
            for adapter, stage in zip(self.each, self.stages, strict=True)
        }


class LaSNNDistillation(FeatureMethod):
    """alpha * KD + beta * `feature_distance` + attention * `attention_distance`, the latter two summed over all stages.

    Source: Hong et al., "LaSNN: Layer-wise ANN-to-SNN Distillation for Effective and Efficient Training in Deep Spiking
    Neural Networks", 2023. By default the maps themselves are compared, as BKDSNN's public code does in its comparison
    with LaSNN. The paper compares attention maps. Our reading of it is `beta=0` and `attention` above 0, with the
    attention of Zagoruyko and Komodakis.

    Args:
        stages: pairs of taps; all are used.
        alpha: weight of logits KD. A term with weight 0 is left out.
        beta: weight of the features.
        attention: weight of the attention maps. Their distance is at most 2 at each stage.
        temperature: the temperature of logits KD.
        normalize: divide the teacher's maps by their root mean square. With SRD's `beta` and `normalize`, this method
            is SRD without its filter.

    Shapes: student logits [T, N, classes] or [N, classes], teacher logits [N, classes]; features by tap, the student's
    [T, N, C, H, W] or [N, C, H, W], the teacher's [N, C', H', W'] -> weighted scalars "kd", "features" and "attention".

    Raises:
        ConfigError: There are no stages, the temperature is not above 0, or a weight is below 0.

    Example:
        >>> stages = [Stage("a", "b", 4, 4, (8, 8), (8, 8)), Stage("c", "d", 4, 4, (8, 8), (2, 2))]
        >>> method = LaSNNDistillation(stages, alpha=0, beta=1.0, attention=1.0)
        >>> own, logits = torch.zeros(3, 4, 8, 8), torch.zeros(3, 10)
        >>> terms = method(logits, logits, {"a": own, "c": own}, {"b": own + 1, "d": own[..., :2, :2] + 1})
        >>> {name: round(term.item(), 4) for name, term in terms.items()}
        {'features': 272.0, 'attention': 2.0}
    """

    def __init__(
        self,
        stages: Sequence[Stage] = (),
        *,
        alpha: float = 0.5,
        beta: float = 7e-5,
        attention: float = 0.0,
        temperature: float = 2.0,
        normalize: bool = False,
    ) -> None:
        super().__init__(stages, alpha=alpha, temperature=temperature, beta=beta, attention=attention)
        self.adapters = _Adapters(self.stages if beta else ())
        self.normalize = normalize

    def pairs(self, student: Features, teacher: Features) -> Pairs:
        """Return the compared maps of each stage, the student's and the teacher's, both [N, C', H, W]."""
        pairs: Pairs = self.adapters(student, teacher)
        if not self.normalize:
            return pairs
        return {stage: (own, unit_energy(other)) for stage, (own, other) in pairs.items()}

    def compare(self, student: Features, teacher: Features) -> dict[str, Tensor]:
        terms = {}
        if beta := self.weights["beta"]:
            pairs = self.pairs(student, teacher).values()
            terms["features"] = beta * torch.stack([feature_distance(*pair) for pair in pairs]).sum()
        if attention := self.weights["attention"]:
            distances = [
                attention_distance(*(on_grid(maps, stage.size) for maps in stage_maps(stage, student, teacher)))
                for stage in self.stages
            ]
            terms["attention"] = attention * torch.stack(distances).sum()
        return terms


class KDSNNDistillation(LaSNNDistillation):
    """alpha * KD + beta * `feature_distance` at the last stage.

    Source: Xu et al., "Constructing Deep Spiking Neural Networks from Artificial Neural Networks with Knowledge
    Distillation", CVPR 2023. Weights: alpha and temperature as in BSD; beta and the reduction from the public code of
    BKDSNN in its comparison with KDSNN.

    Args:
        stages: pairs of taps; the last is used.
        alpha: weight of logits KD. A term with weight 0 is left out.
        beta: weight of the features.
        temperature: the temperature of logits KD.

    Shapes and errors: as `LaSNNDistillation` -> weighted scalars "kd" and "features".

    Example:
        >>> method = KDSNNDistillation([Stage("a", "b", 4, 4, (8, 8), (8, 8))], beta=1.0)
        >>> logits = torch.zeros(2, 3, 10)
        >>> terms = method(logits, logits[0], {"a": torch.zeros(2, 3, 4, 8, 8)}, {"b": torch.ones(3, 4, 8, 8)})
        >>> {name: term.item() for name, term in terms.items()}
        {'kd': 0.0, 'features': 256.0}
    """

    def __init__(
        self, stages: Sequence[Stage] = (), *, alpha: float = 0.5, beta: float = 7e-5, temperature: float = 2.0
    ) -> None:
        super().__init__(stages[-1:], alpha=alpha, beta=beta, temperature=temperature)


class BKDSNNDistillation(FeatureMethod):
    """alpha * `weighted_logits` + beta * `feature_distance` at the last stage, from blurred student maps.

    This is the form of the public code for CNNs and events. The form for transformers on images compares means over
    space: `pooled` and `rescale`.

    F_s = conv3x3(ReLU(conv3x3(mask * align(features)))): each channel of each image is masked with probability `drop`,
    and two convolutions learn to restore the teacher's maps. In evaluation mode nothing is masked.

    Source: Xu et al., "BKDSNN: Enhancing the Performance of Learning-Based Spiking Neural Networks Training with
    Blurred Knowledge Distillation", ECCV 2024; reduction and weights from its public code, where beta is 2e-3 on CIFAR
    and 7e-5 on ImageNet.

    Args:
        stages: pairs of taps; the last is used.
        alpha: weight of the weighted logits. A term with weight 0 is left out.
        beta: weight of the features.
        temperature: the temperature of the weighted logits.
        drop: the probability that a channel is masked, in [0, 1).
        pooled: compare the means over space of the restored maps and of the teacher's, which are vectors of its
            channels. (The public code takes the vector before the teacher's head, which may be a class token.)
        rescale: multiply the teacher's maps or vector by the largest value of the student's projected maps, and divide
            them by their own largest value. This is left out if either is not above 0. The result gets no gradient.

    Shapes: As for `LaSNNDistillation`; target: class indices [N] or probabilities [N, classes] -> weighted scalars
    "weighted_logits" and "features".

    Raises:
        ConfigError: There are no stages, the temperature is not above 0, a weight is below 0, or `drop` is outside [0,
            1).

    Example:
        >>> method = BKDSNNDistillation([Stage("a", "b", 4, 6, (8, 8), (8, 8))])
        >>> logits, target = torch.zeros(3, 10), torch.tensor([0, 1, 2])
        >>> terms = method(logits, logits, {"a": torch.zeros(3, 4, 8, 8)}, {"b": torch.ones(3, 6, 8, 8)}, target)
        >>> round(terms["weighted_logits"].item(), 4)  # 4 * log(10) * (1 - 1/e)
        5.822
    """

    needs = frozenset({"features", "labels"})

    def __init__(
        self,
        stages: Sequence[Stage] = (),
        *,
        alpha: float = 1.0,
        beta: float = 7e-5,
        temperature: float = 2.0,
        drop: float = 0.15,
        pooled: bool = False,
        rescale: bool = False,
    ) -> None:
        super().__init__(stages[-1:], alpha=alpha, temperature=temperature, beta=beta)
        if not 0 <= drop < 1:
            raise ConfigError(f"drop={drop}: the probability to mask a channel lies in [0, 1).")
        self.drop, self.pooled, self.rescale = drop, pooled, rescale
        self.adapters = _Adapters(self.stages)
        self.restore = _restoration(self.stages[0].teacher_channels) if self.stages else nn.Identity()

    def pairs(self, student: Features, teacher: Features) -> Pairs:
        """Return the compared maps of each stage, the student's without masks and the teacher's, both [N, C', H, W]."""
        pairs = self.adapters(student, teacher)
        return {stage: (self.restore(own), other) for stage, (own, other) in pairs.items()}

    def answer(self, student: Tensor, teacher: Tensor, target: Tensor | None) -> dict[str, Tensor]:
        alpha = self.weights["alpha"]
        if not alpha:
            return {}
        loss = weighted_logits(student, teacher, labels(target), temperature=self.temperature)
        return {"weighted_logits": alpha * loss}

    def compare(self, student: Features, teacher: Features) -> dict[str, Tensor]:
        [(own, other)] = self.adapters(student, teacher).values()
        restored = self.restore(drop_channels(own, self.drop) if self.training else own)
        if self.pooled:
            restored, other = (maps.mean((-2, -1), keepdim=True) for maps in (restored, other))
        if self.rescale and own.max() > 0 and other.max() > 0:
            other = other / other.max() * own.max()
        return {"features": self.weights["beta"] * feature_distance(restored, other)}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, drop={self.drop}"


class SAKDDistillation(FeatureMethod):
    """alpha * KD + beta * the mean squared difference of features, summed over all stages.

    L_features = sum over stages of mean (BN(conv1x1(mean over time of F_s)) - F_t)^2

    Source: Qiu et al., "Self-Architectural Knowledge Distillation for Spiking Neural Networks", Neural Networks 2024;
    beta, temperature and the mean from its public code for CIFAR, which sets alpha to 0. There the teacher has the
    student's architecture; here it may have any. Our reading: the mean over time comes before the batch normalization.

    Args:
        stages: pairs of taps; all are used.
        alpha: weight of logits KD. A term with weight 0 is left out.
        beta: weight of the features.
        temperature: the temperature of logits KD.

    Shapes: As for `LaSNNDistillation` -> weighted scalars "kd" and "features".

    Raises:
        ConfigError: There are no stages, the temperature is not above 0, or a weight is below 0.

    Example:
        >>> method = SAKDDistillation([Stage("a", "b", 4, 6, (8, 8), (8, 8))])
        >>> logits = torch.zeros(2, 3, 10)
        >>> terms = method(logits, logits[0], {"a": torch.zeros(2, 3, 4, 8, 8)}, {"b": torch.ones(3, 6, 8, 8)})
        >>> {name: term.item() for name, term in terms.items()}
        {'kd': 0.0, 'features': 100.0}
    """

    def __init__(
        self, stages: Sequence[Stage] = (), *, alpha: float = 0.5, beta: float = 100.0, temperature: float = 4.0
    ) -> None:
        super().__init__(stages, alpha=alpha, temperature=temperature, beta=beta)
        self.adapters = _Adapters(self.stages)
        self.norms = nn.ModuleList(nn.BatchNorm2d(stage.teacher_channels) for stage in self.stages)
        self.smallest_batch = smallest_of_norms(self.stages)

    def pairs(self, student: Features, teacher: Features) -> Pairs:
        """Return the compared maps of each stage, the student's and the teacher's, both [N, C', H, W]."""
        pairs = self.adapters(student, teacher)
        return {
            stage: (norm(own), other) for norm, (stage, (own, other)) in zip(self.norms, pairs.items(), strict=True)
        }

    def compare(self, student: Features, teacher: Features) -> dict[str, Tensor]:
        losses = [F.mse_loss(*pair) for pair in self.pairs(student, teacher).values()]
        return {"features": self.weights["beta"] * torch.stack(losses).sum()}


def _restoration(channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
    )
