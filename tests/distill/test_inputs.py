"""Every loss by itself: no gradient to the teacher, no batch without images, classes that are ruled out."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from transpike.distill import (
    SpectralResidual,
    focal_frequency_loss,
    gaussian_frequency_loss,
    info_nce,
    knowledge_distillation,
    spectral_residual,
    spectral_semantic,
)
from transpike.distill.decoupled import (
    class_correlation,
    image_correlation,
    non_target_distillation,
    target_distillation,
)
from transpike.distill.features import attention_distance, feature_distance
from transpike.distill.hints import attention_transfer, hint_distance, partial_distance
from transpike.distill.inputs import feature_pair, logit_pair, mean_logit_pair
from transpike.distill.logits import temporal_distillation, temporal_sharing, weighted_logits
from transpike.distill.ofa import target_enhanced
from transpike.distill.relations import (
    consecutive_correlation,
    contrastive_distance,
    correlation_congruence,
    relational_angle,
    relational_distance,
)
from transpike.distill.review import hierarchical_distance
from transpike.errors import DataError

from .batches import noise

Loss = Callable[..., Tensor]
OF_LOGITS: list[Loss] = [knowledge_distillation, spectral_semantic, class_correlation, image_correlation]
OF_LABELS: list[Loss] = [non_target_distillation, target_distillation, weighted_logits, target_enhanced]
OF_MAPS: list[Loss] = [
    *(feature_distance, attention_distance, attention_transfer, hint_distance, partial_distance),
    *(hierarchical_distance, gaussian_frequency_loss, focal_frequency_loss, info_nce),
    partial(spectral_residual, residual=SpectralResidual((4, 4))),
]
OF_VECTORS: list[Loss] = [relational_angle, relational_distance]
OF_EMBEDDINGS: list[Loss] = [consecutive_correlation, contrastive_distance, correlation_congruence]
LOSSES = [
    *((loss, (3, 5), 1) for loss in OF_LABELS),
    *((loss, (3, 5), 0) for loss in OF_LOGITS + OF_VECTORS + OF_EMBEDDINGS),
    *((loss, (3, 2, 4, 4), 0) for loss in OF_MAPS),
]
INF = math.inf


def name_of(value: object) -> str:
    found = getattr(value, "func", value)
    return getattr(found, "__name__", "")


@pytest.mark.parametrize("loss, shape, labelled", LOSSES, ids=name_of)
def test_the_teacher_is_a_constant_and_a_batch_has_images(loss: Loss, shape: tuple[int, ...], labelled: int) -> None:
    student, teacher = noise(*shape).requires_grad_(), noise(*shape, seed=1).requires_grad_()
    target = [torch.tensor([0, 4, 2])] * labelled
    loss(student, teacher, *target).backward()
    assert student.grad is not None and student.grad.any() and student.grad.isfinite().all()
    assert (teacher.grad is None) == (loss not in OF_EMBEDDINGS)
    with pytest.raises(DataError, match=r"nothing to compare|as many images of both"):
        loss(student[:0], teacher[:0], *(x[:0] for x in target))
    with pytest.raises(DataError):
        loss(student, teacher[:1], *target)


def test_steps_are_compared_for_batches_with_images() -> None:
    with pytest.raises(DataError, match=r"logits have the shape \[2, 0, 3\]: there is nothing to compare"):
        temporal_distillation(torch.zeros(2, 0, 3), torch.zeros(0, 3))
    with pytest.raises(DataError, match="nothing to compare"):
        temporal_sharing(torch.zeros(2, 0, 3), torch.zeros(0, dtype=torch.long))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_divergence_of_classes_that_are_ruled_out(temperature: float) -> None:
    student, teacher = torch.tensor([[1.0, -INF, 0.0]]).requires_grad_(), torch.tensor([[0.0, -INF, 2.0]])
    loss = partial(knowledge_distillation, temperature=temperature)
    value = loss(student, teacher)
    assert value.item() == pytest.approx(loss(student[:, [0, 2]], teacher[:, [0, 2]]).item())
    if temperature == 1.0:  # by hand: p_t = softmax(0, 2), p_s = softmax(1, 0)
        p, q = 1 / (1 + math.exp(2)), 1 / (1 + math.exp(-1))
        assert value.item() == pytest.approx(p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
    value.backward()
    assert student.grad is not None and student.grad[0, 1] == 0 and student.grad[0, 0] > 0
    # The teacher alone rules it out: a divergence like any other, of which that class is a part in the student's sum.
    finite = torch.tensor([[1.0, 0.5, 0.0]])
    p_t, log_s = (teacher / temperature).softmax(-1), (finite / temperature).log_softmax(-1)
    expected = temperature**2 * (p_t[:, [0, 2]] * (p_t[:, [0, 2]].log() - log_s[:, [0, 2]])).sum()
    assert loss(finite, teacher).item() == pytest.approx(expected.item())
    # The student alone: nothing brings it near.
    assert loss(student.detach(), finite).item() == INF


def test_masks_of_every_step_and_of_the_mean() -> None:
    student = torch.tensor([[[1.0, -INF, 0.0]], [[3.0, 0.5, 0.0]], [[2.0, 0.0, 1.0]]])
    teacher = torch.tensor([[0.0, -INF, 2.0]])
    own, other = mean_logit_pair(student, teacher)
    assert (
        own[0, [0, 2]].tolist() == pytest.approx([2.0, 1 / 3]) and own.softmax(-1)[0, 1] == other.softmax(-1)[0, 1] == 0
    )
    steps, _ = logit_pair(student, teacher)
    assert steps.isfinite().all() and torch.equal(steps[1:], student[1:])
    assert temporal_distillation(student, teacher).isfinite()
    shared = torch.tensor([[[1.0, -INF, 0.0]], [[0.0, -INF, 1.0]]])
    for label in (0, 1, 2):  # a step is right, none is, a step is right
        value = temporal_sharing(shared, torch.tensor([label])).item()
        expected = temporal_sharing(shared[..., [0, 2]], torch.tensor([min(label, 1)])).item()
        if label == 1:  # no step is right: uniform over the two classes that are not ruled out
            steps = (shared[..., [0, 2]] / 3).log_softmax(-1)
            expected = (9 * (0.5 * (math.log(0.5) - steps)).sum(-1)).mean().item()
        assert value == pytest.approx(expected) and math.isfinite(value)


def test_pairs_of_features() -> None:
    own, other = feature_pair(torch.ones(2, 3).half(), torch.ones(2, 3).double().requires_grad_())
    assert own.dtype == torch.float32 and other.dtype == torch.float64 and not other.requires_grad
    with pytest.raises(DataError, match=r"shapes \[1, 3\] and \[1, 3\]: expected as many images of both, 2 or more"):
        consecutive_correlation(torch.ones(1, 3), torch.ones(1, 3))
