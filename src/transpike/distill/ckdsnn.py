"""CKDSNN: a spiking student's activity over space learns from its teacher's class activation; logits with noise.

Source: CKDSNN, AAAI 2026, from its public code (github.com/SinoLeu/CKDSNN), in which both terms have weight 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from transpike.checks import number
from transpike.distill.adapter import on_grid
from transpike.distill.feature_method import HeadMethod, stage_maps
from transpike.distill.inputs import mean_logit_pair
from transpike.distill.logits import knowledge_distillation
from transpike.distill.method import Features
from transpike.distill.taps import Stage
from transpike.errors import DataError

__all__ = ["CKDSNNDistillation", "activity_distance", "class_activation", "noisy_distillation"]

SOFT, SMALL = 1e-3, 1e-10
"""The constants that the public code adds to the largest value of a map, and to probabilities."""


def class_activation(maps: Tensor, weight: Tensor, predicted: Tensor) -> Tensor:
    """Return where maps support a class: relu(sum_c weight[class, c] F_c), [N, H, W].

    Source: Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016.

    Args:
        maps: the maps of the last stage, [N, C, H, W].
        weight: the weights of the layer after their mean over space, [classes, C].
        predicted: class indices [N].

    Example:
        >>> maps = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)
        >>> class_activation(maps, torch.tensor([[1.0, 1.0], [1.0, -1.0]]), torch.tensor([1])).item()
        0.0
    """
    return torch.einsum("nchw,nc->nhw", maps, weight[predicted]).relu()


def activity_distance(student: Tensor, teacher: Tensor, *, temperature: float = 2.0) -> Tensor:
    """Return the divergence over space of a student's activity from a teacher's: a scalar.

    L = 1 / N * sum_n KL(q_n || p_n),  p = softmax over places of A / tau,  A = (a - min a) / (max a - min a + 0.001)

    The minimum and maximum are taken over the batch.

    Args:
        student: [N, H, W], such as sums over time and channels.
        teacher: [N, H, W], such as a `class_activation`.
        temperature: tau.

    Example:
        >>> maps = torch.eye(2).view(1, 2, 2)
        >>> activity_distance(maps, maps).item()
        0.0
    """
    own, other = (
        ((maps - maps.min()) / (maps.max() - maps.min() + SOFT) / temperature).flatten(1).softmax(-1) + SMALL
        for maps in (student, teacher.detach())
    )
    return F.kl_div(own.log(), other, reduction="batchmean")


def noisy_distillation(student: Tensor, teacher: Tensor, *, temperature: float = 2.0, noise: float = 0.1) -> Tensor:
    """Return the KD loss of a student whose softened probabilities are mixed with those of noise: a scalar.

    L = tau^2 / N * sum_n KL(p_t || (1 - noise) p(z) + noise p(m + s^2 e)),  e normal, m and s of the logits of n

    Args:
        student: [N, classes], or [T, N, classes], which is averaged over time.
        teacher: [N, classes].
        temperature: tau.
        noise: the share of noise, in [0, 1). With 0 this is `knowledge_distillation`.

    Example:
        >>> z = torch.tensor([[2.0, 0.0]])
        >>> noisy_distillation(z, z, noise=0.0).item()
        0.0
    """
    if not noise:
        return knowledge_distillation(student, teacher, temperature=temperature)
    student, teacher = mean_logit_pair(student, teacher)
    drawn = student.mean(-1, keepdim=True) + torch.randn_like(student) * student.var(-1, keepdim=True)
    mixed = torch.lerp((student / temperature).softmax(-1), (drawn / temperature).softmax(-1), noise)
    tiny = torch.finfo(mixed.dtype).tiny
    wanted = (teacher / temperature).softmax(-1)
    return temperature**2 * F.kl_div(mixed.clamp(min=tiny).log(), wanted, reduction="batchmean")


class CKDSNNDistillation(HeadMethod):
    """alpha * `noisy_distillation` + beta * `activity_distance` at the last stage.

    The student's activity is the sum of its maps over channels, averaged over time. (The public code sums over time.
    This differs only by the constant that is added to the largest value.) The teacher's activity is its
    `class_activation` for the class that it predicts, with the weights of its last layer. The trainer passes these
    weights (`see_head`); without them all channels weigh the same. The larger maps are pooled to the smaller.

    Args:
        stages: pairs of taps; the last is used.
        alpha: weight of the logits. A term with weight 0 is left out.
        beta: weight of the activity.
        temperature: the temperature of both terms.
        noise: the share of noise in the student's probabilities, in [0, 1).

    Shapes: student logits [T, N, classes] or [N, classes], teacher logits [N, classes]; features by tap, the student's
    [T, N, C, H, W] or [N, C, H, W], the teacher's [N, C', H', W'] -> weighted scalars "noisy_kd" and "activity".

    Raises:
        ConfigError: There are no stages, the temperature is not above 0, a weight is below 0, or `noise` is outside [0,
            1).
        ModelError: The head does not fit the teacher's maps.

    Example:
        >>> method = CKDSNNDistillation([Stage("a", "b", 4, 6, (8, 8), (4, 4))], noise=0.0)
        >>> logits = torch.zeros(3, 10)
        >>> terms = method(logits, logits, {"a": torch.ones(2, 3, 4, 8, 8)}, {"b": torch.ones(3, 6, 4, 4)})
        >>> {name: term.item() for name, term in terms.items()}
        {'noisy_kd': 0.0, 'activity': 0.0}
    """

    def __init__(
        self,
        stages: Sequence[Stage] = (),
        *,
        alpha: float = 1.0,
        beta: float = 1.0,
        temperature: float = 2.0,
        noise: float = 0.1,
    ) -> None:
        super().__init__(stages, alpha=alpha, beta=beta, temperature=temperature)
        self.noise = number("noise", noise, least=0, below=1)

    def answer(self, student: Tensor, teacher: Tensor, target: Tensor | None) -> dict[str, Tensor]:
        alpha = self.weights["alpha"]
        if not alpha:
            return {}
        loss = noisy_distillation(student, teacher, temperature=self.temperature, noise=self.noise)
        return {"noisy_kd": alpha * loss}

    def compare(self, student: Features, teacher: Features) -> dict[str, Tensor]:
        [stage] = self.stages
        own, other = stage_maps(stage, student, teacher)
        predicted = self.logits.argmax(-1)
        last = int(predicted.max())
        weight = other.new_ones(last + 1, other.shape[1]) if self.head is None else self.head
        if len(weight) <= last:
            raise DataError(f"the teacher predicts class {last}, its head has {len(weight)}.")
        activity = on_grid(own.sum(1, keepdim=True), stage.size)[:, 0]
        wanted = class_activation(on_grid(other, stage.size), weight.to(other.dtype), predicted)
        return {"activity": self.weights["beta"] * activity_distance(activity, wanted, temperature=self.temperature)}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, noise={self.noise}"
