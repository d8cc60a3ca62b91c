"""Distillation of decomposed logits: the right class and the rest (DKD), images and classes (DIST)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from transpike.distill.inputs import labels, mean_logit_pair
from transpike.distill.logits import knowledge_distillation
from transpike.distill.method import Method
from transpike.distill.settings import check_settings
from transpike.distill.taps import Stage

__all__ = [
    "DISTDistillation",
    "DKDDistillation",
    "class_correlation",
    "image_correlation",
    "non_target_distillation",
    "scaled_logits",
    "target_distillation",
    "target_index",
]


def target_index(target: Tensor) -> Tensor:
    """Return class indices [N]. For probabilities [N, classes] (mixup, cutmix), return the most likely class of each.

    Example:
        >>> target_index(torch.tensor([[0.2, 0.8]])).tolist(), target_index(torch.tensor([3])).tolist()
        ([1], [3])
    """
    return target if target.ndim == 1 else target.argmax(-1)


def scaled_logits(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return both networks' logits as [N, classes], the student's averaged over time, divided by the temperature.

    Raises:
        ConfigError: The temperature is not above 0.
        DataError: The shapes are not [T, N, classes] or [N, classes] of the student and [N, classes] of the teacher.

    Example:
        >>> scaled_logits(torch.tensor([[[4.0, 0.0]], [[0.0, 0.0]]]), torch.tensor([[2.0, 0.0]]), 2.0)
        (tensor([[1., 0.]]), tensor([[1., 0.]]))
    """
    check_settings(temperature=temperature)
    student, teacher = mean_logit_pair(student, teacher)
    return student / temperature, teacher / temperature


def target_distillation(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor, *, temperature: float = 4.0
) -> Tensor:
    """Return the divergence of the probability of the right class, against all others together: a scalar.

    L = tau^2 / N * sum_n KL((p_t, 1 - p_t) || (p_s, 1 - p_s)),  p = softmax(z / tau) of the right class

    Source: Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022, its TCKD.

    Args:
        student_logits: [N, classes], or [T, N, classes], which is averaged over time.
        teacher_logits: [N, classes].
        target: class indices [N], or probabilities [N, classes], of which the largest determines the class.
        temperature: tau.

    Raises:
        ConfigError: The temperature is not above 0.
        DataError: The shapes do not fit.

    Example:
        >>> teacher = torch.tensor([[2.0, 0.0, 1.0]])
        >>> target_distillation(torch.tensor([[2.0, 1.0, 0.0]]), teacher, torch.tensor([0])).item()
        0.0
    """
    student, teacher = scaled_logits(student_logits, teacher_logits, temperature)
    index = target_index(target)
    binary = []
    for logits in (student, teacher):
        others = _without(logits, index).logsumexp(-1)
        binary.append(torch.stack([logits.gather(-1, index.unsqueeze(-1)).squeeze(-1), others], -1))
    return temperature**2 * knowledge_distillation(binary[0], binary[1], temperature=1.0)


def non_target_distillation(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor, *, temperature: float = 4.0
) -> Tensor:
    """Return the divergence of the probabilities among the wrong classes: a scalar.

    L = tau^2 / N * sum_n KL(q_t || q_s),  q = softmax of z / tau without the right class

    KD is `target_distillation` plus this, weighted by 1 - p_t of each image. The weight is small if the teacher is
    sure.

    Source: Zhao et al., CVPR 2022, its NCKD.

    Args, shapes and errors: as `target_distillation`.

    Example:
        >>> teacher = torch.tensor([[2.0, 0.0, 1.0]])
        >>> non_target_distillation(torch.tensor([[-9.0, 0.0, 1.0]]), teacher, torch.tensor([0])).item()
        0.0
    """
    student, teacher = scaled_logits(student_logits, teacher_logits, temperature)
    index = target_index(target)
    return temperature**2 * knowledge_distillation(_without(student, index), _without(teacher, index), temperature=1.0)


def image_correlation(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return one minus the correlation of the classes' probabilities, averaged over the images: a scalar.

    L = tau^2 * (1 - 1 / N * sum_n pearson(p_s[n], p_t[n])),  p = softmax(z / tau) [N, classes]

    Source: Huang et al., "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022, its inter-class
    relation; tau^2 from its public code.

    Args:
        student_logits: [N, classes], or [T, N, classes], which is averaged over time.
        teacher_logits: [N, classes].
        temperature: tau.

    Raises:
        ConfigError: The temperature is not above 0.
        DataError: The shapes do not fit.

    Example:
        >>> teacher = torch.tensor([[2.0, 0.0]])
        >>> round(image_correlation(teacher, teacher).item(), 4), round(image_correlation(-teacher, teacher).item(), 4)
        (0.0, 2.0)
    """
    student, teacher = scaled_logits(student_logits, teacher_logits, temperature)
    return temperature**2 * _uncorrelated(student.softmax(-1), teacher.softmax(-1))


def class_correlation(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return one minus the correlation of the images' probabilities, averaged over the classes: a scalar.

    L = tau^2 * (1 - 1 / K * sum_k pearson(p_s[:, k], p_t[:, k])),  p = softmax(z / tau) [N, K]

    Source: Huang et al., NeurIPS 2022, its intra-class relation; tau^2 from its public code. For a single image there
    is no correlation, and the result is tau^2.

    Args, shapes and errors: as `image_correlation`.

    Example:
        >>> teacher = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
        >>> round(class_correlation(teacher, teacher).item(), 4)
        0.0
    """
    student, teacher = scaled_logits(student_logits, teacher_logits, temperature)
    return temperature**2 * _uncorrelated(student.softmax(-1).T, teacher.softmax(-1).T)


def _without(logits: Tensor, index: Tensor) -> Tensor:
    """Return logits [N, classes - 1] of all classes but one of each image."""
    kept = torch.ones_like(logits, dtype=torch.bool).scatter_(-1, index.unsqueeze(-1), False)
    return logits[kept].view(len(logits), -1)


def _uncorrelated(student: Tensor, teacher: Tensor) -> Tensor:
    """Return one minus the mean Pearson correlation of rows."""
    student, teacher = (x - x.mean(-1, keepdim=True) for x in (student, teacher))
    return 1 - F.cosine_similarity(student, teacher, dim=-1).mean()


class DKDDistillation(Method):
    """alpha * `target_distillation` + beta * `non_target_distillation`.

    Source: Zhao et al., CVPR 2022; weights and temperature from its public code for CIFAR-100. There beta is 6 or 2 for
        some pairs. On ImageNet beta is 0.5 at a temperature of 1. The code raises the weights from 0 over the first 20
        epochs. Here they are constant.

    Args:
        stages: not used.
        alpha: weight of the right class. A term with weight 0 is left out.
        beta: weight of the wrong classes.
        temperature: the temperature of both terms.

    Shapes: student logits [T, N, classes] or [N, classes], teacher logits [N, classes], class indices [N] or
    probabilities [N, classes] -> weighted scalars "target_kd" and "non_target_kd".

    Example:
        >>> terms = DKDDistillation()(torch.zeros(4, 2, 10), torch.zeros(2, 10), {}, {}, torch.tensor([0, 1]))
        >>> {name: term.item() for name, term in terms.items()}
        {'target_kd': 0.0, 'non_target_kd': 0.0}
    """

    needs = frozenset({"labels"})

    def __init__(
        self, stages: Sequence[Stage] = (), *, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0
    ) -> None:
        super().__init__(alpha=alpha, beta=beta, temperature=temperature)

    def answer(self, student: Tensor, teacher: Tensor, target: Tensor | None) -> dict[str, Tensor]:
        terms = {}
        if alpha := self.weights["alpha"]:
            terms["target_kd"] = alpha * target_distillation(
                student, teacher, labels(target), temperature=self.temperature
            )
        if beta := self.weights["beta"]:
            others = non_target_distillation(student, teacher, labels(target), temperature=self.temperature)
            terms["non_target_kd"] = beta * others
        return terms


class DISTDistillation(Method):
    """beta * `image_correlation` + gamma * `class_correlation`.

    Source: Huang et al., NeurIPS 2022; weights and temperature are the defaults of its public code.

    Args:
        stages: not used.
        beta: weight of the correlations within an image, "inter-class" in the paper. A term with weight 0 is left out.
        gamma: weight of the correlations within a class, "intra-class".
        temperature: the temperature of both terms.

    Shapes: student logits [T, N, classes] or [N, classes], teacher logits [N, classes] -> weighted scalars
    "inter_class" and "intra_class".

    Example:
        >>> teacher = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
        >>> terms = DISTDistillation()(teacher.expand(4, 2, 2), teacher)
        >>> {name: round(abs(term.item()), 4) for name, term in terms.items()}
        {'inter_class': 0.0, 'intra_class': 0.0}
    """

    def __init__(
        self, stages: Sequence[Stage] = (), *, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0
    ) -> None:
        super().__init__(beta=beta, gamma=gamma, temperature=temperature)

    def answer(self, student: Tensor, teacher: Tensor, target: Tensor | None) -> dict[str, Tensor]:
        terms = {}
        if beta := self.weights["beta"]:
            terms["inter_class"] = beta * image_correlation(student, teacher, temperature=self.temperature)
        if gamma := self.weights["gamma"]:
            terms["intra_class"] = gamma * class_correlation(student, teacher, temperature=self.temperature)
        return terms
