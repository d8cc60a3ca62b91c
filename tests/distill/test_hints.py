"""Hints, attention and partial distances by formulas spelt out; margins by those of a Gaussian."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from transpike.distill.hints import (
    ATDistillation,
    FitNetDistillation,
    MarginReLU,
    OFDDistillation,
    attention_transfer,
    hint_distance,
    partial_distance,
)

from .batches import OTHER, batch, noise


def test_hint_distance_by_numpy() -> None:
    student, teacher = noise(3, 4, 5, 6), noise(3, 4, 5, 6, seed=1)
    expected = np.mean((student.double().numpy() - teacher.double().numpy()) ** 2)
    assert hint_distance(student, teacher).item() == pytest.approx(expected, rel=1e-6)
    assert hint_distance(student, student) == 0


def test_attention_transfer_by_numpy() -> None:
    student, teacher = noise(3, 4, 5, 6).double(), noise(3, 7, 5, 6, seed=1).double()
    maps = []
    for x in (student.numpy(), teacher.numpy()):
        attention = (x**2).mean(1).reshape(3, -1)
        maps.append(attention / np.sqrt((attention**2).sum(1, keepdims=True)))
    loss = attention_transfer(student, teacher)
    assert loss.item() == pytest.approx(np.mean((maps[0] - maps[1]) ** 2), rel=1e-12)
    assert attention_transfer(-3 * student, student).item() == pytest.approx(0, abs=1e-15)


def test_partial_distance_place_by_place() -> None:
    student, teacher = noise(2, 3, 4, 4).double(), noise(2, 3, 4, 4, seed=1).double()
    expected = 0.0
    for place in product(*map(range, student.shape)):
        s, t = student[place].item(), teacher[place].item()
        expected += 0.0 if s <= t <= 0 else (s - t) ** 2
    assert partial_distance(student, teacher).item() == pytest.approx(expected / 2, rel=1e-12)


def test_partial_distance_asks_no_more_than_the_margin() -> None:
    """Where the teacher is below its margin, the student need only be as low as that."""
    teacher = torch.tensor([-5.0, -1.0]).view(1, 1, 1, 2)
    margin = MarginReLU(1)
    assert margin(teacher).flatten().tolist() == [-3.0, -1.0]
    for student in (-3.0, -4.0, -100.0):
        assert partial_distance(torch.full_like(teacher, student), margin(teacher)) == 0
    assert partial_distance(torch.full_like(teacher, -2.0), margin(teacher)) == 1


def test_margins_are_those_that_the_paper_takes_from_batch_normalization() -> None:
    """A channel of mean m and deviation s: m - s * phi(m / s) / Phi(-m / s), the mean of its negative part."""
    mean, deviation = np.array([0.5, -1.0, 2.0]), np.array([1.0, 2.0, 1.5])
    maps = noise(40, 3, 20, 20) * torch.tensor(deviation).view(-1, 1, 1) + torch.tensor(mean).view(-1, 1, 1)
    margin = MarginReLU(3)
    margin(maps)
    expected = mean - deviation * norm.pdf(mean / deviation) / norm.cdf(-mean / deviation)
    np.testing.assert_allclose(margin.margin.numpy(), expected, atol=0.05)


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4), shift=st.floats(-2, 2))
def test_margins_of_batches_are_those_of_all_images(sizes: list[int], shift: float) -> None:
    batches = [noise(size, 2, 3, 3, seed=seed) + shift for seed, size in enumerate(sizes)]
    margin = MarginReLU(2)
    for maps in batches:
        margin(maps)
    values = torch.cat(batches).transpose(0, 1).flatten(1)
    for found, channel in zip(margin.margin, values, strict=True):
        negative = channel[channel < 0]
        assert found.item() == pytest.approx(negative.mean().item() if len(negative) else 0.0, abs=1e-5)


def test_margins_are_learned_in_training_alone_and_are_0_behind_a_relu() -> None:
    maps = noise(2, 3, 4, 4)
    margin = MarginReLU(3).eval()
    assert torch.equal(margin(maps), maps.relu()) and not margin.count.any()
    positive = MarginReLU(3)
    assert torch.equal(positive(maps.relu()), maps.relu()) and not positive.margin.any()


def test_fitnet_is_the_sum_of_its_stages() -> None:
    *_, student, teacher, _ = given = batch(OTHER)
    method = FitNetDistillation(OTHER, beta=3.0)
    expected = 0.0
    for stage, adapter in zip(OTHER, method.adapters, strict=True):
        weight, bias = adapter.projection.weight, adapter.projection.bias
        own = F.conv2d(F.adaptive_avg_pool2d(student[stage.student].mean(0), stage.size), weight, bias)
        expected += F.mse_loss(own, F.adaptive_avg_pool2d(teacher[stage.teacher], stage.size)).item()
    assert method(*given)["hint"].item() == pytest.approx(3 * expected, rel=1e-5)


def test_attention_is_the_sum_of_its_stages_and_has_no_parameters() -> None:
    *_, student, teacher, _ = given = batch(OTHER)
    method = ATDistillation(OTHER)
    expected = sum(
        attention_transfer(
            F.adaptive_avg_pool2d(student[stage.student].mean(0), stage.size),
            F.adaptive_avg_pool2d(teacher[stage.teacher], stage.size),
        ).item()
        for stage in OTHER
    )
    assert method(*given)["attention"].item() == pytest.approx(1000 * expected, rel=1e-5)
    assert not method.state_dict()


def test_ofd_halves_the_weight_of_each_earlier_stage() -> None:
    *_, student, teacher, _ = given = batch(OTHER)
    method = OFDDistillation(OTHER)
    parts = []
    for stage, adapter in zip(OTHER, method.adapters, strict=True):
        own, other = adapter(student[stage.student], teacher[stage.teacher], size=stage.size)
        own = F.batch_norm(own, None, None, training=True)
        negative = other.clamp(max=0).sum((0, 2, 3)) / (other < 0).sum((0, 2, 3))
        parts.append(partial_distance(own, torch.maximum(other, negative.view(-1, 1, 1))).item())
    assert method(*given)["partial"].item() == pytest.approx(1e-3 * (parts[0] / 2 + parts[1]), rel=1e-4)
