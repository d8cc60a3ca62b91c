"""The target-enhanced loss class by class, its limits, and the exits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from scipy.special import log_softmax, softmax
from torch import nn

from transpike.distill import create_method
from transpike.distill.logits import knowledge_distillation
from transpike.distill.ofa import Exit, OFADistillation, target_enhanced
from transpike.distill.taps import Stage
from transpike.errors import ConfigError

from .batches import CLASSES, OTHER, SAMPLES, TARGET, TOKENS, batch, noise


@pytest.mark.parametrize(("gamma", "temperature"), [(1.0, 1.0), (1.5, 1.0), (1.4, 3.0), (0.0, 1.0)])
def test_target_enhanced_class_by_class(gamma: float, temperature: float) -> None:
    student, teacher = noise(2, SAMPLES, CLASSES).double(), noise(SAMPLES, CLASSES, seed=1).double()
    p = softmax(teacher.numpy() / temperature, -1)
    log_q = log_softmax(student.numpy().mean(0) / temperature, -1)
    expected = 0.0
    for n, right in enumerate(TARGET.tolist()):
        for k in range(CLASSES):
            weight = (p[n, k] + 1) ** gamma - 1 if k == right else p[n, k] ** gamma
            expected -= weight * log_q[n, k]
    loss = target_enhanced(student, teacher, TARGET, gamma=gamma, temperature=temperature)
    assert loss.item() == pytest.approx(expected / SAMPLES, rel=1e-10)


def test_without_enhancement_it_teaches_what_kd_does() -> None:
    student, teacher = noise(SAMPLES, CLASSES).double().requires_grad_(), noise(SAMPLES, CLASSES, seed=1).double()
    loss = target_enhanced(student, teacher, TARGET, gamma=1.0)
    assert loss.item() == pytest.approx(F.cross_entropy(student, teacher.softmax(-1)).item(), rel=1e-12)
    [plain] = torch.autograd.grad(knowledge_distillation(student, teacher, temperature=1.0), student)
    [enhanced] = torch.autograd.grad(loss, student)
    torch.testing.assert_close(enhanced, plain)


def test_gamma_raises_the_share_of_the_right_class() -> None:
    """At the optimum p_s is the weights, normalized."""
    teacher = torch.tensor([[1.0, 0.0, 0.0]])
    shares = []
    for gamma in (1.0, 1.5, 2.0, 4.0):
        zeros = torch.zeros(1, 3, requires_grad=True)
        target_enhanced(zeros, teacher, torch.tensor([0]), gamma=gamma).backward()
        weights = -zeros.grad[0]  # of softmax: weight - its share of the sum
        shares.append(weights[0].item())
    assert shares == sorted(shares) and shares[0] == pytest.approx(0.5761 - 1 / 3, abs=1e-4)


def test_an_exit_halves_the_grid_and_doubles_the_channels_up_to_the_width() -> None:
    leave = Exit(4, 12, CLASSES, halvings=3)
    convolutions = [layer for layer in leave if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12, 12]
    assert [layer.stride[0] for layer in convolutions] == [2, 1, 1, 1] * 3
    assert [layer.groups > 1 for layer in convolutions] == [True, False] * 6
    before = nn.Sequential(*list(leave)[:-3])
    assert before(noise(2, 4, 8, 8)).shape == (2, 12, 1, 1)
    assert leave(noise(2, 4, 8, 8)).shape == (2, CLASSES)
    [last] = [layer for layer in Exit(4, 12, CLASSES, halvings=0) if isinstance(layer, nn.Conv2d)]
    assert last.weight.shape == (12, 4, 1, 1)


def halvings(method: OFADistillation) -> list[int]:
    return [sum(isinstance(layer, nn.BatchNorm2d) for layer in leave) // 2 for leave in method.exits]


def test_exits_halve_as_often_as_there_are_stages_left() -> None:
    assert halvings(OFADistillation(OTHER)) == [1, 0]
    assert halvings(OFADistillation(TOKENS)) == [2, 1, 0]
    small = [Stage(f"s{i}", f"t{i}", 4, 4, (3, 2), (8, 8)) for i in range(4)]
    assert halvings(OFADistillation(small)) == [1, 1, 1, 0]


def test_ofa_by_its_parts() -> None:
    torch.manual_seed(0)
    student_logits, teacher_logits, student, *_ = given = batch(OTHER)
    method = OFADistillation(OTHER, alpha=2.0, beta=3.0, classes=7).eval()
    terms = method(*given)
    assert terms["logits"] == 2 * target_enhanced(student_logits, teacher_logits, TARGET)
    answers = [leave(student[s.student].mean(0))[:, :CLASSES] for leave, s in zip(method.exits, OTHER, strict=True)]
    expected = sum(target_enhanced(answer, teacher_logits, TARGET).item() for answer in answers)
    assert terms["exits"].item() == pytest.approx(3 * expected, rel=1e-6)


def test_answers_beyond_the_classes_are_not_used() -> None:
    method = OFADistillation(OTHER, classes=7)
    method(*batch(OTHER))["exits"].backward()
    for leave in method.exits:
        assert not leave[-1].weight.grad[CLASSES:].any() and leave[-1].weight.grad[:CLASSES].any()


def test_the_trainers_number_of_classes_is_that_of_the_exits() -> None:
    for settings, expected in (({}, CLASSES), ({"classes": 7}, 7)):
        method = create_method("ofa", OTHER, settings, classes=CLASSES)
        assert [leave[-1].out_features for leave in method.exits] == [expected] * len(OTHER)
    assert create_method("kd", OTHER, {}, classes=CLASSES)(*batch(OTHER)).keys() == {"kd"}


def test_too_few_classes_are_told() -> None:
    with pytest.raises(ConfigError, match=r"classes=4: the logits have 5 classes\. Set classes=5"):
        OFADistillation(OTHER, classes=4)(*batch(OTHER))
