"""DKD and DIST by loops and by numpy, and the equation that joins DKD with KD."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax
from torch import Tensor

from transpike.distill.decoupled import (
    DISTDistillation,
    DKDDistillation,
    class_correlation,
    image_correlation,
    non_target_distillation,
    scaled_logits,
    target_distillation,
)
from transpike.distill.logits import knowledge_distillation

TARGET = torch.tensor([0, 3, 1])


def logits(*shape: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(student: np.ndarray, teacher: np.ndarray, temperature: float) -> tuple[float, float]:
    """Both divergences of DKD, image by image."""
    right = wrong = 0.0
    p, q = softmax(teacher / temperature, -1), softmax(student / temperature, -1)
    for row, (index, p_row, q_row) in enumerate(zip(TARGET.tolist(), p, q, strict=True)):
        a, b = p_row[index], q_row[index]
        right += a * np.log(a / b) + (1 - a) * np.log((1 - a) / (1 - b))
        others = [k for k in range(len(p_row)) if k != index]
        rest = softmax(teacher[row, others] / temperature), softmax(student[row, others] / temperature)
        wrong += rel_entr(*rest).sum()
    return temperature**2 * right / len(p), temperature**2 * wrong / len(p)


@settings(max_examples=20, deadline=None)
@given(classes=st.integers(4, 9), temperature=st.floats(0.5, 8), seed=st.integers(0, 99))
def test_dkd_image_by_image(classes: int, temperature: float, seed: int) -> None:
    student, teacher = logits(2, 3, classes, seed=seed), logits(3, classes, seed=seed + 100)
    right, wrong = by_hand(student.numpy().mean(0), teacher.numpy(), temperature)
    found = target_distillation(student, teacher, TARGET, temperature=temperature)
    assert found.item() == pytest.approx(right, rel=1e-7, abs=1e-9)
    found = non_target_distillation(student, teacher, TARGET, temperature=temperature)
    assert found.item() == pytest.approx(wrong, rel=1e-7, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), temperature=st.floats(0.5, 8))
def test_kd_is_the_one_plus_the_other_where_the_teacher_is_unsure(seed: int, temperature: float) -> None:
    """Zhao et al., 2022: KD = TCKD + (1 - p_t) NCKD, of each image."""
    student, teacher = logits(1, 6, seed=seed), logits(1, 6, seed=seed + 100)
    target = torch.tensor([seed % 6])
    sure = (teacher / temperature).softmax(-1)[0, target].item()
    whole = knowledge_distillation(student, teacher, temperature=temperature).item()
    given = student, teacher, target
    right = target_distillation(*given, temperature=temperature).item()
    wrong = non_target_distillation(*given, temperature=temperature).item()
    assert whole == pytest.approx(right + (1 - sure) * wrong, rel=1e-9)


def test_dkd_of_a_teacher_that_is_certain() -> None:
    """1 - p is 0 in float32, its logarithm is not needed."""
    teacher = torch.tensor([[200.0, 1.0, 0.0]])
    student = torch.tensor([[-200.0, 0.0, 1.0]], requires_grad=True)
    target = torch.tensor([0])
    right = target_distillation(student, teacher, target, temperature=1.0)
    wrong = non_target_distillation(student, teacher, target, temperature=1.0)
    (right + wrong).backward()
    assert right.item() == pytest.approx(201.3133, abs=1e-3)  # 1 + 200 + log(1 + 1/e)
    assert wrong.item() == pytest.approx(np.tanh(0.5), rel=1e-5)
    assert student.grad is not None and student.grad.isfinite().all()


def test_two_classes_have_no_others() -> None:
    student, teacher = logits(3, 2), logits(3, 2, seed=1)
    assert non_target_distillation(student, teacher, TARGET % 2) == 0
    whole = knowledge_distillation(student, teacher, temperature=4.0)
    assert target_distillation(student, teacher, TARGET % 2).item() == pytest.approx(whole.item(), rel=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_dist_by_numpy(temperature: float) -> None:
    student, teacher = logits(2, 3, 5), logits(3, 5, seed=1)
    p, q = softmax(teacher.numpy() / temperature, -1), softmax(student.numpy().mean(0) / temperature, -1)
    rows = [1 - np.corrcoef(p[n], q[n])[0, 1] for n in range(3)]
    columns = [1 - np.corrcoef(p[:, k], q[:, k])[0, 1] for k in range(5)]
    scale = temperature**2
    found = image_correlation(student, teacher, temperature=temperature)
    assert found.item() == pytest.approx(scale * np.mean(rows), rel=1e-6)
    found = class_correlation(student, teacher, temperature=temperature)
    assert found.item() == pytest.approx(scale * np.mean(columns), rel=1e-6)
    assert image_correlation(teacher, teacher).item() == pytest.approx(0, abs=1e-9)
    assert class_correlation(teacher, teacher).item() == pytest.approx(0, abs=1e-9)


def test_dist_of_one_image_has_no_correlation_within_a_class() -> None:
    assert class_correlation(logits(1, 5), logits(1, 5, seed=1), temperature=2.0) == 4


def test_methods_are_weighted_sums() -> None:
    student, teacher = logits(2, 3, 5), logits(3, 5, seed=1)
    terms = DKDDistillation(alpha=2.0, beta=3.0)(student, teacher, {}, {}, TARGET)
    assert terms["target_kd"] == 2 * target_distillation(student, teacher, TARGET)
    assert terms["non_target_kd"] == 3 * non_target_distillation(student, teacher, TARGET)
    terms = DISTDistillation(beta=2.0, gamma=3.0)(student, teacher)
    assert terms["inter_class"] == 2 * image_correlation(student, teacher)
    assert terms["intra_class"] == 3 * class_correlation(student, teacher)


def test_scaled_logits_are_the_mean_over_time() -> None:
    student, teacher = logits(2, 3, 5), logits(3, 5, seed=1)
    own, other = scaled_logits(student, teacher, 4.0)
    assert torch.equal(own, student.mean(0) / 4) and torch.equal(other, teacher / 4)
