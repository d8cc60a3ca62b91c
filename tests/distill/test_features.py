"""Distances of maps against formulas spelt out, and the methods on taps of other channels and sizes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transpike.distill.bispectrum import SRDDistillation
from transpike.distill.features import (
    BKDSNNDistillation,
    KDSNNDistillation,
    LaSNNDistillation,
    SAKDDistillation,
    attention_distance,
    drop_channels,
    feature_distance,
)
from transpike.distill.logits import knowledge_distillation, weighted_logits
from transpike.distill.taps import Stage
from transpike.errors import ConfigError, DataError

T, N, CLASSES = 2, 3, 5
SAME = (Stage("low", "a", 4, 4, (8, 8), (8, 8)), Stage("high", "b", 6, 6, (4, 4), (4, 4)))
OTHER = (Stage("low", "a", 4, 5, (8, 8), (4, 4)), Stage("high", "b", 6, 7, (4, 4), (8, 8)))
METHODS = [KDSNNDistillation, LaSNNDistillation, BKDSNNDistillation, SAKDDistillation]
TARGET = torch.tensor([0, 3, 1])


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(stages: tuple[Stage, ...], *, seed: int = 0, timed: bool = True) -> tuple[Any, ...]:
    """Logits, features and target as a trainer would give them."""
    time = (T,) if timed else ()
    student = {s.student: noise(*time, N, s.student_channels, *s.student_size, seed=seed + 1) for s in stages}
    teacher = {s.teacher: noise(N, s.teacher_channels, *s.teacher_size, seed=seed + 2) for s in stages}
    return noise(*time, N, CLASSES, seed=seed + 3), noise(N, CLASSES, seed=seed + 4), student, teacher, TARGET


def same(stages: tuple[Stage, ...] = SAME) -> tuple[Any, ...]:
    """The student at every step says what the teacher says."""
    _, logits, _, teacher, target = batch(stages)
    student = {s.student: teacher[s.teacher].expand(T, *teacher[s.teacher].shape) for s in stages}
    return logits.expand(T, N, CLASSES), logits, student, teacher, target


def test_feature_distance_by_numpy() -> None:
    student, teacher = noise(3, 4, 5, 6), noise(3, 4, 5, 6, seed=1)
    expected = np.sum((student.double().numpy() - teacher.double().numpy()) ** 2) / 3
    assert feature_distance(student, teacher).item() == pytest.approx(expected, rel=1e-5)
    assert feature_distance(student, student) == 0


def test_attention_distance_by_cosines() -> None:
    """|a - b|^2 = 2 - 2 cos(a, b) of unit vectors; channels and scales are free."""
    student, teacher = noise(3, 4, 5, 6).double(), noise(3, 7, 5, 6, seed=1).double()
    cosine = F.cosine_similarity(student.pow(2).sum(1).flatten(1), teacher.pow(2).sum(1).flatten(1), dim=1)
    loss = attention_distance(student, teacher)
    assert loss.item() == pytest.approx((2 - 2 * cosine).mean().item(), rel=1e-9)
    assert attention_distance(10 * student, teacher).item() == pytest.approx(loss.item(), rel=1e-9)
    assert attention_distance(-3 * student, student).item() == pytest.approx(0, abs=1e-12)


def test_attention_of_a_silent_student_has_a_value_and_a_gradient() -> None:
    silent = torch.zeros(2, 3, 4, 4, requires_grad=True)
    loss = attention_distance(silent, noise(2, 3, 4, 4))
    loss.backward()
    assert loss.item() == pytest.approx(1, abs=1e-6)
    assert silent.grad is not None and silent.grad.isfinite().all()


@pytest.mark.parametrize("loss", [feature_distance, attention_distance])
def test_gradients_of_distances_in_float64(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    student, teacher = noise(2, 3, 4, 4).double().requires_grad_(), noise(2, 3, 4, 4, seed=1).double()
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher), student)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_of_methods_in_float64(method: Callable[..., nn.Module]) -> None:
    stages = (Stage("low", "a", 2, 3, (4, 4), (2, 2)),)
    made = method(stages).double().eval()
    student, teacher = noise(2, 2, 2, 4, 4).double().requires_grad_(), noise(2, 3, 2, 2, seed=1).double()
    logits = noise(2, CLASSES).double()

    def features(x: Tensor) -> Tensor:
        return made(logits, logits, {"low": x}, {"a": teacher}, TARGET[:2])["features"] / made.weights["beta"]

    assert features(student).dtype == torch.float64
    assert torch.autograd.gradcheck(features, student)


def test_dropped_channels_are_whole_of_one_image_and_the_rest_is_not_scaled() -> None:
    torch.manual_seed(0)
    dropped = drop_channels(torch.ones(200, 50, 2, 2), 0.15)
    kept = dropped.flatten(2)
    assert set(dropped.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(kept.amin(-1), kept.amax(-1))
    # 10,000 draws: 0.15 with a standard deviation of 0.0036; masks differ between images.
    assert (kept[..., 0] == 0).float().mean().item() == pytest.approx(0.15, abs=0.015)
    assert len({tuple(row) for row in kept[..., 0].tolist()}) > 190


@pytest.mark.parametrize("method", [KDSNNDistillation, LaSNNDistillation])
def test_zero_where_student_and_teacher_are_the_same(method: Callable[..., nn.Module]) -> None:
    terms = method(SAME, beta=1.0)(*same())
    assert {name: term.item() for name, term in terms.items()} == {
        "kd": pytest.approx(0, abs=1e-6),
        "features": pytest.approx(0, abs=1e-6),
    }


def test_kdsnn_is_the_last_stage_and_lasnn_the_sum_of_all() -> None:
    given = batch(SAME)
    student_logits, teacher_logits, student, teacher, _ = given
    each = [
        np.sum((student[s.student].double().numpy().mean(0) - teacher[s.teacher].double().numpy()) ** 2) / N
        for s in SAME
    ]
    last, every = KDSNNDistillation(SAME, beta=2.0)(*given), LaSNNDistillation(SAME, beta=2.0)(*given)
    assert last["features"].item() == pytest.approx(2 * each[1], rel=1e-5)
    assert every["features"].item() == pytest.approx(2 * (each[0] + each[1]), rel=1e-5)
    kd = 0.5 * knowledge_distillation(student_logits, teacher_logits, temperature=2.0)
    assert last["kd"] == every["kd"] == kd


def test_lasnn_by_attention() -> None:
    *_, student, teacher, _ = given = batch(OTHER)
    method = LaSNNDistillation(OTHER, alpha=0, beta=0, attention=3.0)
    expected = sum(
        attention_distance(
            F.adaptive_avg_pool2d(student[s.student].mean(0), 4), F.adaptive_avg_pool2d(teacher[s.teacher], 4)
        )
        for s in OTHER
    )
    terms = method(*given)
    assert list(terms) == ["attention"] and not method.state_dict()
    assert terms["attention"].item() == pytest.approx(3 * float(expected), rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("timed", [True, False], ids=["timed", "timeless"])
def test_other_channels_and_sizes_are_aligned_and_everything_learns(
    method: Callable[..., nn.Module], timed: bool
) -> None:
    made = method(OTHER)
    student_logits, teacher_logits, student, teacher, target = batch(OTHER, timed=timed)
    student = {name: maps.requires_grad_() for name, maps in student.items()}
    terms = made(student_logits.requires_grad_(), teacher_logits, student, teacher, target)
    assert all(term.ndim == 0 and term.isfinite() and term > 0 for term in terms.values())
    sum(terms.values()).backward()  # type: ignore[union-attr]
    assert student["high"].grad.abs().sum() > 0 and student_logits.grad.abs().sum() > 0
    assert (student["low"].grad is not None) == (method in (LaSNNDistillation, SAKDDistillation))
    assert all(parameter.grad is not None for parameter in made.parameters())


def test_larger_teacher_maps_are_pooled() -> None:
    stage = Stage("low", "a", 4, 4, (4, 4), (8, 8))
    student_logits, logits, student, teacher, _ = batch((stage,))
    loss = KDSNNDistillation((stage,), beta=1.0)(student_logits, logits, student, teacher)["features"]
    pooled = teacher["a"].double().numpy().reshape(N, 4, 4, 2, 4, 2).mean((3, 5))
    expected = np.sum((student["low"].double().numpy().mean(0) - pooled) ** 2) / N
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_bkdsnn_by_its_parts() -> None:
    given = batch(SAME)
    student_logits, teacher_logits, student, teacher, target = given
    method = BKDSNNDistillation(SAME, alpha=2.0, beta=3.0).eval()
    terms = method(*given)
    first, _, second = method.restore
    maps = student["high"].mean(0)
    restored = F.conv2d(F.conv2d(maps, first.weight, first.bias, padding=1).relu(), second.weight, second.bias, 1, 1)
    assert terms["features"].item() == pytest.approx(3 * ((restored - teacher["b"]) ** 2).sum().item() / N, rel=1e-5)
    assert terms["weighted_logits"] == 2 * weighted_logits(student_logits, teacher_logits, target)


def test_bkdsnn_of_means_over_space_by_numpy() -> None:
    given = batch(SAME)
    _, _, student, teacher, _ = given
    method = BKDSNNDistillation(SAME, beta=3.0, pooled=True, rescale=True).eval()
    own, other = student["high"].mean(0), teacher["b"].double().numpy().mean((2, 3))
    with torch.no_grad():
        restored = method.restore(own).double().numpy().mean((2, 3))
    target = other / other.max() * own.max().item()
    expected = 3 * np.sum((restored - target) ** 2) / N
    assert method(*given)["features"].item() == pytest.approx(expected, rel=1e-5)
    whole = BKDSNNDistillation(SAME, beta=3.0, rescale=True).eval()
    whole.load_state_dict(method.state_dict())
    maps = teacher["b"] / teacher["b"].max() * own.max()
    summed = 3 * (whole.restore(own) - maps).square().sum().item() / N
    assert whole(*given)["features"].item() == pytest.approx(summed, rel=1e-5)


def test_lasnn_of_normalized_maps_is_srd_without_its_filter() -> None:
    given = batch(SAME, seed=5)
    ours = LaSNNDistillation(SAME, alpha=0, beta=2.0, normalize=True)
    theirs = SRDDistillation(SAME, alpha=0, beta=2.0, normalize=True)  # whose residual begins as zero
    assert ours(*given)["features"].item() == pytest.approx(theirs(*given)["srd"].item(), rel=1e-5)


def test_bkdsnn_masks_by_the_seed_and_in_training_alone() -> None:
    given = batch(SAME)
    method = BKDSNNDistillation(SAME, drop=0.5)

    def features(seed: int) -> float:
        torch.manual_seed(seed)
        return method(*given)["features"].item()

    assert features(0) == features(0) != features(1)
    method.eval()
    assert features(0) == features(1)
    method.train().drop = 0.0
    assert features(0) == features(1)


def test_sakd_normalizes_the_projected_mean_over_time() -> None:
    given = batch(SAME)
    *_, student, teacher, _ = given
    terms = SAKDDistillation(SAME)(*given)
    expected = 0.0
    for stage in SAME:
        maps = student[stage.student].double().numpy().mean(0)
        mean, variance = maps.mean((0, 2, 3), keepdims=True), maps.var((0, 2, 3), keepdims=True)
        normal = (maps - mean) / np.sqrt(variance + 1e-5)
        expected += np.mean((normal - teacher[stage.teacher].double().numpy()) ** 2)
    assert terms["features"].item() == pytest.approx(100 * expected, rel=1e-5)


@pytest.mark.parametrize("method", [*METHODS, partial(LaSNNDistillation, attention=1.0)])
def test_half_precision_is_raised_first(method: Callable[..., nn.Module]) -> None:
    """The mean over five steps, in bfloat16 itself, would be 0.1 % off."""
    made = method(OTHER).eval()
    *logits, student, teacher, target = batch(OTHER)
    student = {name: torch.cat([maps, maps, maps[:1] / 3]) for name, maps in student.items()}

    def given(*dtypes: torch.dtype) -> tuple[Any, ...]:
        def cast(x: Tensor) -> Tensor:
            for dtype in dtypes:
                x = x.to(dtype)
            return x

        sides = ({name: cast(maps) for name, maps in side.items()} for side in (student, teacher))
        return (*map(cast, logits), *sides, target)

    expected = made(*given(torch.bfloat16, torch.float32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = made(*given(torch.bfloat16))
    for name, term in terms.items():
        assert term.dtype == torch.float32
        assert term.item() == pytest.approx(expected[name].item(), rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_weights_of_zero_leave_terms_and_parameters_out(method: Callable[..., nn.Module]) -> None:
    given = batch(OTHER)
    assert list(method(OTHER, alpha=0)(*given)) == ["features"]
    alone = method(beta=0)
    assert len(alone(*given)) == 1 and not list(alone.parameters())
    assert not method(OTHER, beta=0).state_dict()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({}, r"needs stages \(pairs of taps\)"),
        ({"stages": SAME, "temperature": 0}, "temperature=0"),
        ({"stages": SAME, "alpha": -1}, "alpha=-1: expected a number of at least 0"),
        ({"stages": SAME, "beta": -1}, "beta=-1"),
    ],
)
def test_settings_that_cannot_be(method: Callable[..., nn.Module], how: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        method(**how)


@pytest.mark.parametrize("drop", [-0.1, 1.0, float("nan")])
def test_probabilities_that_cannot_be(drop: float) -> None:
    with pytest.raises(ConfigError, match="the probability to mask a channel"):
        BKDSNNDistillation(SAME, drop=drop)


@pytest.mark.parametrize("method", METHODS)
def test_maps_that_do_not_fit_their_stage(method: Callable[..., nn.Module]) -> None:
    student_logits, logits, student, teacher, target = batch(SAME)
    student["high"] = student["high"][:, :, :2]
    with pytest.raises(DataError, match=r"student's maps have the shape \[2, 3, 2, 4, 4\]"):
        method(SAME)(student_logits, logits, student, teacher, target)
