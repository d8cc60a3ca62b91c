"""Distillation of logits: Hinton's loss, losses of each step, sharing among steps, and weights by the errors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from transpike.distill.inputs import labels, logit_pair, mean_logit_pair
from transpike.distill.method import Method
from transpike.distill.settings import check_settings
from transpike.distill.taps import Stage
from transpike.errors import ModelError
from transpike.spectral.fourier import full_precision

__all__ = [
    "LogitsDistillation",
    "TKSDistillation",
    "TLDDistillation",
    "knowledge_distillation",
    "temporal_distillation",
    "temporal_sharing",
    "weighted_logits",
]


def knowledge_distillation(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 2.0) -> Tensor:
    """Return the divergence of the student's softened probabilities from the teacher's: a scalar, 0 for equal logits.

    L = tau^2 / N * sum_n KL(p_t || p_s),  p = softmax(z / tau)

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2. The factor tau^2
        keeps the size of the gradients when the temperature changes. A class that both networks exclude by minus
        infinity counts as absent.

    Args:
        student_logits: [N, classes], or [T, N, classes], which is averaged over time.
        teacher_logits: [N, classes]. It gets no gradient, as in every loss here.
        temperature: tau.

    Raises:
        ConfigError: The temperature is not above 0.
        DataError: The shapes do not fit, or the batch has no images.

    Example:
        >>> teacher = torch.tensor([[2.0, 0.0]])
        >>> knowledge_distillation(teacher + 5, teacher).item()
        0.0
        >>> round(knowledge_distillation(-teacher, teacher).item(), 4)
        1.8485
    """
    check_settings(temperature=temperature)
    return _divergence(*mean_logit_pair(student_logits, teacher_logits), temperature).mean()


def temporal_distillation(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 3.0) -> Tensor:
    """Return `knowledge_distillation` of every time step separately, averaged over the steps: a scalar.

    L = tau^2 / (T N) * sum_t sum_n KL(p_t || p_s[t]),  p = softmax(z / tau)

    By convexity this is at least the divergence of the mean over time. The two are equal if all steps give the same
    output.

    Source: Yu et al., "Efficient Logit-based Knowledge Distillation of Deep Spiking Neural Networks for Full-Range
    Timestep Deployment", ICML 2025; temperature from its public code.

    Args:
        student_logits: [T, N, classes].
        teacher_logits: [N, classes].
        temperature: tau.

    Raises:
        ModelError: The student does not return outputs at every step.
        ConfigError: The temperature is not above 0.
        DataError: The shapes do not fit.

    Example:
        >>> teacher = torch.tensor([[2.0, 0.0]])
        >>> temporal_distillation(torch.stack([teacher, teacher]), teacher).item()
        0.0
        >>> opposite = torch.stack([teacher + 1, teacher - 1, -teacher, 3 * teacher])
        >>> temporal_distillation(opposite, teacher) > knowledge_distillation(opposite, teacher, temperature=3.0)
        tensor(True)
    """
    check_settings(temperature=temperature)
    _every_step(student_logits)
    student, teacher = logit_pair(student_logits, teacher_logits)
    return _divergence(student, teacher.expand_as(student), temperature).mean()


def temporal_sharing(student_logits: Tensor, target: Tensor, *, temperature: float = 3.0) -> Tensor:
    """Teach every time step by the mean of the steps that are right. Needs no teacher. Returns a scalar.

    L = tau^2 / (T N) * sum_n sum_t KL(q_n || p_n[t]),
    q_n = softmax(z_n / tau),  z_n = mean of student_logits[t, n] over the steps t whose largest logit is n's class

    If no step is right, z_n is 0. Then all steps learn that they do not know: the uniform distribution over the classes
    whose logits are finite. q gets no gradient.

    Source: Dong, Zhao, Zeng, "Temporal Knowledge Sharing enable Spiking Neural Network Learning from Past and Future",
    IEEE Transactions on Artificial Intelligence 2024, in the form of the public code of Yu et al., ICML 2025. (That of
    the first paper sums the right steps, softens only q and lets gradients through it.)

    Args:
        student_logits: [T, N, classes].
        target: class indices [N], or probabilities [N, classes], of which the largest determines the class.
        temperature: tau.

    Raises:
        ModelError: The student does not return outputs at every step.
        ConfigError: The temperature is not above 0.

    Example:
        >>> right, wrong = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> target = torch.tensor([0])
        >>> temporal_sharing(torch.stack([right, right]), target).item()
        0.0
        >>> temporal_sharing(torch.stack([right, wrong]), target) > 0
        tensor(True)
        >>> temporal_sharing(torch.stack([0 * right, 0 * right]), torch.tensor([1])).item()  # unsure already
        0.0
    """
    check_settings(temperature=temperature)
    _every_step(student_logits)
    student = full_precision(student_logits)
    classes = target if target.ndim == 1 else target.argmax(-1)
    right = student.argmax(-1) == classes
    count = right.sum(0).unsqueeze(-1)
    shared = torch.where(right.unsqueeze(-1), student.detach(), 0).sum(0) / count.clamp(min=1)
    ruled_out = (student.detach() == -torch.inf).any(0)
    student, shared = logit_pair(student, shared.masked_fill(ruled_out, -torch.inf))
    return _divergence(student, shared.expand_as(student), temperature).mean()


def weighted_logits(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor, *, temperature: float = 2.0
) -> Tensor:
    """Return the cross-entropy with the teacher's softened probabilities, weighted by the student's error: a scalar.

    L = tau^2 / N * sum_n w_n * H(p_t, p_s),  w_n = 1 - exp(-CE(student, target) / CE(teacher, target)),
    p = softmax(z / tau)

    w gets no gradient and lies in [0, 1). H is not a divergence. For equal logits this is the teacher's entropy times 1
    - 1/e, not 0.

    Source: Zhou et al., "Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance Tradeoff Perspective", ICLR
    2021, as used in the public code of BKDSNN (Xu et al., ECCV 2024). The formula is taken from this code.

    Args:
        student_logits: [N, classes], or [T, N, classes], which is averaged over time.
        teacher_logits: [N, classes].
        target: class indices [N] or probabilities [N, classes].
        temperature: tau.

    Raises:
        ConfigError: The temperature is not above 0.
        DataError: The shapes do not fit.

    Example:
        >>> uniform = torch.zeros(1, 2)
        >>> round(weighted_logits(uniform, uniform, torch.tensor([0]), temperature=1.0).item(), 4)  # log(2) * (1 - 1/e)
        0.4382
    """
    check_settings(temperature=temperature)
    student, teacher = mean_logit_pair(student_logits, teacher_logits)
    with torch.no_grad():
        ratio = F.cross_entropy(student, target, reduction="none") / (
            F.cross_entropy(teacher, target, reduction="none") + 1e-7
        )
        weight = -torch.expm1(-ratio)
    soft = F.cross_entropy(student / temperature, (teacher / temperature).softmax(-1), reduction="none")
    return temperature**2 * (weight * soft).mean()


class LogitsDistillation(Method):
    """`knowledge_distillation` as a method: alpha * KD.

    Args:
        stages: not used.
        alpha: the weight.
        temperature: the temperature of the softmax.

    Shapes: student logits [T, N, classes] or [N, classes], teacher logits [N, classes] -> weighted scalar "kd".

    Example:
        >>> terms = LogitsDistillation()(torch.zeros(4, 2, 10), torch.zeros(2, 10))
        >>> {name: term.item() for name, term in terms.items()}
        {'kd': 0.0}
    """

    def __init__(self, stages: Sequence[Stage] = (), *, alpha: float = 0.5, temperature: float = 2.0) -> None:
        super().__init__(alpha=alpha, temperature=temperature)

    def answer(self, student: Tensor, teacher: Tensor, target: Tensor | None) -> dict[str, Tensor]:
        return {"kd": self.weights["alpha"] * knowledge_distillation(student, teacher, temperature=self.temperature)}


class TLDDistillation(Method):
    """Temporal logits distillation: alpha * `temporal_distillation` + beta * `temporal_sharing`.

    Source: Yu et al., "Efficient Logit-based Knowledge Distillation of Deep Spiking Neural Networks for Full-Range
    Timestep Deployment", ICML 2025; weights and temperature from its public code. Its task loss is the cross-entropy of
    every step: `temporal_efficient_loss` with `lamb=0`.

    Args:
        stages: not used.
        alpha: weight of the teacher at every step. A term with weight 0 is left out.
        beta: weight of the right steps as a teacher of all steps.
        temperature: the temperature of both terms.

    Shapes: student logits [T, N, classes], teacher logits [N, classes], class indices [N] or probabilities
    [N, classes] -> weighted scalars "temporal_kd" and "temporal_sharing".

    Raises:
        ModelError: On call: the student does not return outputs at every step.

    Example:
        >>> terms = TLDDistillation()(torch.zeros(4, 2, 10), torch.zeros(2, 10), {}, {}, torch.tensor([0, 1]))
        >>> {name: term.item() for name, term in terms.items()}
        {'temporal_kd': 0.0, 'temporal_sharing': 0.0}
    """

    needs = frozenset({"time", "labels"})

    def __init__(
        self, stages: Sequence[Stage] = (), *, alpha: float = 0.2, beta: float = 0.5, temperature: float = 3.0
    ) -> None:
        super().__init__(alpha=alpha, beta=beta, temperature=temperature)

    def answer(self, student: Tensor, teacher: Tensor, target: Tensor | None) -> dict[str, Tensor]:
        terms = {}
        if alpha := self.weights["alpha"]:
            terms["temporal_kd"] = alpha * temporal_distillation(student, teacher, temperature=self.temperature)
        if beta := self.weights["beta"]:
            terms["temporal_sharing"] = beta * temporal_sharing(student, labels(target), temperature=self.temperature)
        return terms


class TKSDistillation(TLDDistillation):
    """Temporal knowledge sharing: beta * `temporal_sharing`, and alpha * `temporal_distillation` if alpha is above 0.

    Source: Dong, Zhao, Zeng, IEEE Transactions on Artificial Intelligence 2024; see `temporal_sharing`. In the paper
        the student is its own teacher. Its public code raises the weight from 0 to 0.7 during training, and lowers that
        of the cross-entropy from 1 to 0.3. Here both are constant.

    Args, shapes and errors: as `TLDDistillation`.

    Example:
        >>> terms = TKSDistillation()(torch.zeros(4, 2, 10), torch.zeros(2, 10), {}, {}, torch.tensor([0, 1]))
        >>> {name: term.item() for name, term in terms.items()}
        {'temporal_sharing': 0.0}
    """

    def __init__(
        self, stages: Sequence[Stage] = (), *, alpha: float = 0.0, beta: float = 0.7, temperature: float = 3.0
    ) -> None:
        super().__init__(stages, alpha=alpha, beta=beta, temperature=temperature)


def _divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return tau^2 * KL(teacher || student) of softened logits [*, classes] -> [*]."""
    # Both are logarithms, so that equal logits give exactly 0.
    log_student, log_teacher = (student / temperature).log_softmax(-1), (teacher / temperature).log_softmax(-1)
    return temperature**2 * F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(-1)


def _every_step(student: Tensor) -> None:
    if student.ndim != 3:
        raise ModelError(
            f"the student gives logits of the shape {list(student.shape)}, but this method compares time steps: "
            "it needs a student that gives [T, N, classes], its output at every step."
        )
