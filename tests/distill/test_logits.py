"""Losses of logits against formulas spelt out elsewhere, what leaves them unchanged, and the methods made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, rel_entr, softmax
from torch import Tensor, nn
from torch.distributions import Categorical, kl_divergence

from transpike.distill.logits import (
    LogitsDistillation,
    TKSDistillation,
    TLDDistillation,
    knowledge_distillation,
    temporal_distillation,
    temporal_sharing,
    weighted_logits,
)
from transpike.errors import ConfigError, DataError, ModelError

METHODS = [LogitsDistillation, TLDDistillation, TKSDistillation]
TARGET = torch.tensor([0, 3, 1])


def logits(*shape: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_hot(target: Tensor, classes: int) -> Tensor:
    return nn.functional.one_hot(target, classes).double()


@settings(max_examples=30, deadline=None)
@given(
    steps=st.integers(1, 3),
    samples=st.integers(1, 4),
    classes=st.integers(2, 12),
    temperature=st.floats(0.5, 8),
    seed=st.integers(0, 99),
)
def test_kd_is_the_divergence_that_torch_and_scipy_compute(
    steps: int, samples: int, classes: int, temperature: float, seed: int
) -> None:
    student, teacher = logits(steps, samples, classes, seed=seed), logits(samples, classes, seed=seed + 100)
    loss = knowledge_distillation(student, teacher, temperature=temperature)
    by_torch = kl_divergence(
        Categorical(logits=teacher / temperature), Categorical(logits=student.mean(0) / temperature)
    ).mean()
    by_scipy = rel_entr(
        softmax(teacher.numpy() / temperature, -1), softmax(student.numpy().mean(0) / temperature, -1)
    ).sum()
    assert loss.item() == pytest.approx(temperature**2 * by_torch.item(), rel=1e-6, abs=1e-9)
    assert loss.item() == pytest.approx(temperature**2 * by_scipy / samples, rel=1e-6, abs=1e-9)


def test_kd_takes_a_student_without_time() -> None:
    student, teacher = logits(3, 5), logits(3, 5, seed=1)
    assert knowledge_distillation(student, teacher) == knowledge_distillation(student.expand(4, 3, 5), teacher)


def test_kd_at_high_temperature_is_half_the_squared_distance_of_centred_logits() -> None:
    """Hinton et al., equation 4: with tau^2 the gradient tends to (z_s - z_t) / classes."""
    student, teacher = logits(3, 5).requires_grad_(), logits(3, 5, seed=1)
    centred = (student - student.mean(-1, keepdim=True)) - (teacher - teacher.mean(-1, keepdim=True))
    loss = knowledge_distillation(student, teacher, temperature=1e4)
    assert loss.item() == pytest.approx(centred.square().sum().item() / (2 * 5 * 3), rel=1e-3)


def test_temporal_kd_is_the_mean_of_the_steps_own_losses() -> None:
    student, teacher = logits(4, 3, 5), logits(3, 5, seed=1)
    alone = [knowledge_distillation(step, teacher, temperature=3.0).item() for step in student]
    assert temporal_distillation(student, teacher).item() == pytest.approx(np.mean(alone), rel=1e-12)


def test_temporal_kd_equals_kd_where_all_steps_are_equal_and_exceeds_it_elsewhere() -> None:
    student, teacher = logits(4, 3, 5), logits(3, 5, seed=1)
    equal = student[:1].expand(4, 3, 5)
    once = knowledge_distillation(equal, teacher, temperature=3.0)
    assert temporal_distillation(equal, teacher).item() == pytest.approx(once.item(), rel=1e-12)
    assert temporal_distillation(student, teacher) > knowledge_distillation(student, teacher, temperature=3.0) + 0.1


def test_sharing_by_loops() -> None:
    student, temperature = logits(4, 3, 5, seed=3), 3.0
    target = torch.stack([student[0, 0].argmax(), student[1, 1].argmax(), torch.tensor(0)])
    student[:, 2, 0] = -9.0  # no step gets the last image right
    total = 0.0
    for n in range(3):
        right = [step for step in student[:, n].numpy() if step.argmax() == target[n]]
        shared = softmax(np.mean(right, 0) / temperature) if right else np.full(5, 1 / 5)
        total += sum(
            rel_entr(shared, softmax(step / temperature)).sum() * temperature**2 for step in student[:, n].numpy()
        )
    assert total > 0
    assert temporal_sharing(student, target).item() == pytest.approx(total / (4 * 3), rel=1e-6)
    assert temporal_sharing(student, one_hot(target, 5)) == temporal_sharing(student, target)


def test_sharing_teaches_wrong_steps_by_right_ones_alone() -> None:
    right, wrong = torch.tensor([[5.0, 0.0, 0.0]]), torch.tensor([[0.0, 3.0, 0.0]])
    student = torch.stack([right, wrong]).requires_grad_()
    (gradient,) = torch.autograd.grad(temporal_sharing(student, torch.tensor([0])), student)
    assert gradient[0].abs().max() < 1e-6
    assert gradient[1, 0, 0] < 0 < gradient[1, 0, 1]


def test_sharing_without_a_right_step_teaches_that_nothing_is_known() -> None:
    student = logits(4, 3, 5).requires_grad_()
    nowhere = student.detach().mean(0).argmin(-1)
    student.data.scatter_(-1, nowhere.expand(4, 3).unsqueeze(-1), -20.0)
    loss = temporal_sharing(student, nowhere, temperature=1.0)
    (gradient,) = torch.autograd.grad(loss, student)
    torch.testing.assert_close(gradient, (student.detach().softmax(-1) - 1 / 5) / 12, rtol=1e-5, atol=1e-9)


def test_sharing_leaves_out_classes_that_are_ruled_out() -> None:
    student = logits(4, 3, 5)
    cut = torch.cat([student, torch.full((4, 3, 1), -torch.inf)], -1).requires_grad_()
    target = torch.tensor([5, 5, 5])  # which no step names
    loss = temporal_sharing(cut, target)
    # Of the five others none is right either: the same as without the sixth.
    shared = torch.full((3, 5), 1 / 5, dtype=student.dtype)
    expected = 9 * (shared * (shared.log() - (student / 3).log_softmax(-1))).sum(-1).mean()
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, cut)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("soft", [False, True], ids=["indices", "mixup"])
def test_weighted_logits_by_numpy(soft: bool) -> None:
    student, teacher, tau = logits(2, 3, 5), logits(3, 5, seed=1), 2.0
    target = (one_hot(TARGET, 5) + logits(3, 5, seed=2).softmax(-1)) / 2 if soft else one_hot(TARGET, 5)
    s, t, y = student.numpy().mean(0), teacher.numpy(), target.numpy()
    errors = (y * log_softmax(s, -1)).sum(-1) / ((y * log_softmax(t, -1)).sum(-1) - 1e-7)
    crossed = -(softmax(t / tau, -1) * log_softmax(s / tau, -1)).sum(-1)
    expected = tau**2 * np.mean((1 - np.exp(-errors)) * crossed)
    loss = weighted_logits(student, teacher, target if soft else TARGET)
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_weighted_logits_forgets_images_that_the_student_knows_and_keeps_its_weights_constant() -> None:
    known = (50.0 * one_hot(TARGET, 5)).float()
    assert weighted_logits(known, torch.zeros(3, 5), TARGET).item() == pytest.approx(0, abs=1e-12)

    student, teacher = logits(3, 5).requires_grad_(), logits(3, 5, seed=1)
    (gradient,) = torch.autograd.grad(weighted_logits(student, teacher, TARGET, temperature=1.0), student)
    errors = nn.functional.cross_entropy(student.detach(), TARGET, reduction="none") / nn.functional.cross_entropy(
        teacher, TARGET, reduction="none"
    )
    expected = (1 - (-errors).exp()).unsqueeze(-1) * (student.detach().softmax(-1) - teacher.softmax(-1)) / 3
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    "loss",
    [
        lambda s: knowledge_distillation(s, logits(3, 5, seed=1)),
        lambda s: temporal_distillation(s, logits(3, 5, seed=1)),
        lambda s: temporal_distillation(s, logits(3, 5, seed=1), temperature=0.7),
    ],
    ids=["kd", "temporal", "cold"],
)
def test_gradients_in_float64(loss: Callable[[Tensor], Tensor]) -> None:
    student = logits(2, 3, 5, scale=1.0).requires_grad_()
    assert loss(student).dtype == torch.float64
    assert torch.autograd.gradcheck(loss, student)


@pytest.mark.parametrize(
    "loss",
    [
        lambda s, t: knowledge_distillation(s, t),
        lambda s, t: temporal_distillation(s, t),
        lambda s, t: temporal_sharing(s, TARGET),
    ],
    ids=["kd", "temporal", "sharing"],
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_zero_for_equal_logits_up_to_a_constant(loss: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype) -> None:
    teacher = one_hot(TARGET, 5).to(dtype) * 4
    assert loss(teacher.expand(2, 3, 5), teacher) == 0
    assert loss(teacher.expand(2, 3, 5) + 2, teacher).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised_first(half: torch.dtype) -> None:
    """In half precision itself these would be 0.1 % to 1 % off."""
    student, teacher = logits(4, 3, 5).to(half), logits(3, 5, seed=1).to(half)
    for loss in (
        lambda s, t: knowledge_distillation(s, t),
        lambda s, t: temporal_distillation(s, t),
        lambda s, t: temporal_sharing(s, s[0].argmax(-1)),
        lambda s, t: weighted_logits(s, t, TARGET),
        lambda s, t: weighted_logits(s, t, one_hot(TARGET, 5).to(half)),
    ):
        exact = loss(student.double(), teacher.double()).item()
        for enabled in (True, False):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                raised = loss(student, teacher)
            assert raised.dtype == torch.float32 and raised.item() == pytest.approx(exact, rel=2e-6)


@pytest.mark.parametrize(
    ("method", "names"),
    [
        (LogitsDistillation(), {"kd": 0.5}),
        (TLDDistillation(), {"temporal_kd": 0.2, "temporal_sharing": 0.5}),
        (TLDDistillation(beta=0), {"temporal_kd": 0.2}),
        (TKSDistillation(), {"temporal_sharing": 0.7}),
        (TKSDistillation(alpha=2.0, beta=1.0), {"temporal_kd": 2.0, "temporal_sharing": 1.0}),
    ],
    ids=["kd", "tld", "tld-teacher", "tks", "tks-teacher"],
)
def test_methods_give_weighted_terms(method: nn.Module, names: dict[str, float]) -> None:
    student, teacher = logits(4, 3, 5), logits(3, 5, seed=1)
    target = student[1].argmax(-1)
    losses = {
        "kd": knowledge_distillation(student, teacher, temperature=2.0),
        "temporal_kd": temporal_distillation(student, teacher, temperature=3.0),
        "temporal_sharing": temporal_sharing(student, target, temperature=3.0),
    }
    terms = method(student, teacher, {}, {}, target)
    assert {name: term.item() for name, term in terms.items()} == {
        name: pytest.approx(weight * losses[name].item()) for name, weight in names.items()
    }
    assert all(term > 0 for term in terms.values())
    assert not method.state_dict()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"temperature": 0}, "temperature=0: expected a number above 0"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"alpha": -0.5}, "alpha=-0.5: expected a number of at least 0"),
        ({"alpha": float("nan")}, "alpha=nan"),
    ],
)
def test_settings_that_cannot_be(method: Callable[..., nn.Module], how: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        method(**how)


def test_losses_refuse_temperatures_too() -> None:
    student, teacher = logits(2, 3, 5), logits(3, 5)
    for call in (
        lambda: knowledge_distillation(student, teacher, temperature=0),
        lambda: temporal_distillation(student, teacher, temperature=0),
        lambda: temporal_sharing(student, TARGET, temperature=0),
        lambda: weighted_logits(student, teacher, TARGET, temperature=0),
    ):
        with pytest.raises(ConfigError, match="temperature=0"):
            call()


@pytest.mark.parametrize("method", [TLDDistillation(), TKSDistillation()])
def test_methods_over_time_need_every_step(method: nn.Module) -> None:
    with pytest.raises(ModelError, match=r"\[3, 5\], but this method compares time steps"):
        method(logits(3, 5), logits(3, 5), {}, {}, TARGET)


@pytest.mark.parametrize("teacher", [(3, 4), (2, 5), (2, 3, 5)])
def test_logits_that_do_not_fit_together(teacher: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"student's logits have the shape \[2, 3, 5\] and the teacher's"):
        knowledge_distillation(logits(2, 3, 5), logits(*teacher))
