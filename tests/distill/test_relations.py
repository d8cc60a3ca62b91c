"""Relations between images by loops, by scikit-learn's kernel, and by what must not change them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from scipy.stats import special_ortho_group
from sklearn.metrics.pairwise import rbf_kernel
from torch import Tensor

from transpike.distill.relations import (
    CCDistillation,
    CRDDistillation,
    RKDDistillation,
    consecutive_correlation,
    contrastive_distance,
    correlation_congruence,
    relational_angle,
    relational_distance,
)

from .batches import OTHER, SAMPLES, batch, noise

N, D = 5, 4


def huber(x: float) -> float:
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def pair() -> tuple[Tensor, Tensor]:
    return noise(N, D).double(), noise(N, 7, seed=1).double()


def test_distances_pair_by_pair() -> None:
    student, teacher = pair()
    each = []
    for x in (student.numpy(), teacher.numpy()):
        distances = {(i, j): np.sqrt(np.sum((x[i] - x[j]) ** 2)) for i, j in product(range(N), repeat=2)}
        mean = sum(distances.values()) / (N * (N - 1))
        each.append({key: value / mean for key, value in distances.items()})
    expected = sum(huber(each[0][key] - each[1][key]) for key in each[0]) / N**2
    assert relational_distance(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_angles_triple_by_triple() -> None:
    student, teacher = pair()
    expected = 0.0
    for i, j, k in product(range(N), repeat=3):
        if i in (j, k):
            continue
        cosines = []
        for x in (student.numpy(), teacher.numpy()):
            a, b = x[j] - x[i], x[k] - x[i]
            cosines.append(a @ b / np.sqrt((a @ a) * (b @ b)))
        expected += huber(cosines[0] - cosines[1])
    assert relational_angle(student, teacher).item() == pytest.approx(expected / N**3, rel=1e-10)


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(0.1, 10), shift=st.floats(-5, 5), seed=st.integers(0, 99))
def test_relations_know_no_scale_place_or_rotation(scale: float, shift: float, seed: int) -> None:
    student, teacher = pair()
    turn = torch.from_numpy(special_ortho_group.rvs(D, random_state=seed))
    moved = scale * student @ turn + shift
    for loss in (relational_distance, relational_angle):
        assert loss(moved, student).item() == pytest.approx(0, abs=1e-12)
        assert loss(moved, teacher).item() == pytest.approx(loss(student, teacher).item(), rel=1e-8)


def test_correlations_tend_to_the_gaussian_kernel() -> None:
    student, teacher = pair()
    kernels = [
        rbf_kernel(x / np.linalg.norm(x, axis=1, keepdims=True), gamma=0.7) for x in (student.numpy(), teacher.numpy())
    ]
    loss = correlation_congruence(student, teacher, gamma=0.7, order=20)
    assert loss.item() == pytest.approx(np.mean((kernels[0] - kernels[1]) ** 2), rel=1e-9)


def test_correlations_of_the_papers_order() -> None:
    student, teacher = pair()
    expected = 0.0
    for i, j in product(range(N), repeat=2):
        values = []
        for x in (student.numpy(), teacher.numpy()):
            cosine = x[i] @ x[j] / np.sqrt((x[i] @ x[i]) * (x[j] @ x[j]))
            values.append(np.exp(-0.8) * (1 + 0.8 * cosine + 0.32 * cosine**2))
        expected += (values[0] - values[1]) ** 2
    assert correlation_congruence(student, teacher).item() == pytest.approx(expected / N**2, rel=1e-10)
    assert correlation_congruence(3 * student, student).item() == pytest.approx(0, abs=1e-20)


def test_consecutive_correlation_neighbour_by_neighbour() -> None:
    student, teacher = noise(N, D).double(), noise(N, D, seed=1).double()
    expected = 0.0
    for i, d in product(range(N - 1), range(D)):
        expected += abs(student[i, d] - teacher[i, d]).item() * abs(student[i + 1, d] - teacher[i + 1, d]).item()
    assert consecutive_correlation(student, teacher).item() == pytest.approx(expected / (N - 1), rel=1e-12)
    assert consecutive_correlation(student, student) == 0


def test_contrast_by_scipy() -> None:
    student, teacher = noise(N, D).double(), noise(N, D, seed=1).double()
    s, t = (x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True) for x in (student, teacher))
    similarity = s @ t.T / 0.07
    expected = -sum(np.diag(log_softmax(similarity, axis=axis)).mean() for axis in (0, 1))
    assert contrastive_distance(student, teacher).item() == pytest.approx(expected, rel=1e-10)
    assert contrastive_distance(2 * student, 5 * teacher).item() == pytest.approx(expected, rel=1e-10)
    blind = contrastive_distance(student, teacher, temperature=1e6)
    assert blind.item() == pytest.approx(2 * np.log(N), rel=1e-5)


def test_a_matching_batch_has_the_least_contrast() -> None:
    student, teacher = torch.eye(N), torch.eye(N)
    losses = [contrastive_distance(student, teacher.roll(shift, 0)).item() for shift in range(N)]
    assert losses[0] == min(losses) < 1e-4 < 20 < min(losses[1:])


@pytest.mark.parametrize(
    "loss",
    [relational_distance, relational_angle, correlation_congruence, consecutive_correlation, contrastive_distance],
)
def test_gradients_of_losses_in_float64(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    student, teacher = noise(N, D).double().requires_grad_(), noise(N, D, seed=1).double()
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher), student)


def test_rkd_is_of_the_last_stage_pooled() -> None:
    given = batch(OTHER)
    own, other = given[2]["high"].mean((0, -2, -1)), given[3]["b"].mean((-2, -1))
    terms = RKDDistillation(OTHER)(*given)
    assert terms["distance"].item() == pytest.approx(25 * relational_distance(own, other).item(), rel=1e-5)
    assert terms["angle"].item() == pytest.approx(50 * relational_angle(own, other).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("method", "loss", "term", "beta"),
    [
        (CCDistillation(OTHER, width=3), consecutive_correlation, "correlation", 0.02),
        (CCDistillation(OTHER, width=3, form="kernel"), correlation_congruence, "correlation", 0.02),
        (CRDDistillation(OTHER, width=3), contrastive_distance, "contrast", 0.8),
    ],
)
def test_both_are_embedded_by_a_layer_each(
    method: CCDistillation, loss: Callable[[Tensor, Tensor], Tensor], term: str, beta: float
) -> None:
    given = batch(OTHER)
    own = given[2]["high"].mean((0, -2, -1)) @ method.student[0].weight.T + method.student[0].bias
    other = given[3]["b"].mean((-2, -1)) @ method.teacher[0].weight.T + method.teacher[0].bias
    assert own.shape == other.shape == (SAMPLES, 3)
    assert method(*given)[term].item() == pytest.approx(beta * loss(own, other).item(), rel=1e-5)
