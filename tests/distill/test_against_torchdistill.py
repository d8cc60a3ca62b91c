"""Losses beside those of torchdistill, where it has them and they take plain tensors.

Its CRD needs a memory of the whole data set, which ours does without; it has no OFD, DKD or OFA.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from transpike.distill.decoupled import class_correlation, image_correlation
from transpike.distill.hints import attention_transfer, hint_distance
from transpike.distill.logits import knowledge_distillation
from transpike.distill.relations import correlation_congruence, relational_angle, relational_distance
from transpike.distill.review import AttentionFusion, hierarchical_distance

from .batches import noise

pytest.importorskip("torchdistill")


@pytest.fixture(scope="module")
def losses() -> ModuleType:
    from torchdistill.losses import mid_level

    return mid_level


def outputs(x: Any) -> dict[str, dict[str, Any]]:
    return {"tap": {"output": x}}


def theirs(loss: torch.nn.Module, student: Any, teacher: Any) -> float:
    return float(loss(outputs(student), outputs(teacher)))


def maps() -> tuple[Tensor, Tensor]:
    return noise(3, 4, 8, 8).double(), noise(3, 4, 8, 8, seed=1).double()


def vectors() -> tuple[Tensor, Tensor]:
    return noise(6, 4).double(), noise(6, 9, seed=1).double()


TAPS = ("tap", "output", "tap", "output")


def test_kd(losses: ModuleType) -> None:
    student, teacher = noise(6, 5).double(), noise(6, 5, seed=1).double()
    expected = theirs(losses.KDLoss(*TAPS, temperature=3.0, alpha=0.0), student, teacher)  # without tau^2
    assert knowledge_distillation(student, teacher, temperature=3.0).item() == pytest.approx(9 * expected, rel=1e-9)


def test_hints(losses: ModuleType) -> None:
    tap = {"module_path": "tap", "io": "output"}
    loss = losses.SimpleLossWrapper(
        torch.nn.MSELoss(), input=tap | {"is_from_teacher": False}, target=tap | {"is_from_teacher": True}
    )
    student, teacher = maps()
    expected = loss(outputs(student), outputs(teacher), None).item()
    assert hint_distance(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_attention(losses: ModuleType) -> None:
    tap = {"io": "output", "path": "tap"}
    loss = losses.ATLoss({"pair": {"teacher": tap, "student": tap, "weight": 1}}, mode="code")
    student, teacher = maps()
    expected = theirs(loss, student, teacher[:, :2])
    assert attention_transfer(student, teacher[:, :2]).item() == pytest.approx(expected, rel=1e-9)


def test_relations(losses: ModuleType) -> None:
    student, teacher = vectors()
    expected = theirs(losses.RKDLoss("tap", "tap", 1.0, 0.0, "mean"), student, teacher)
    assert relational_distance(student, teacher).item() == pytest.approx(expected, rel=1e-6)
    expected = theirs(losses.RKDLoss("tap", "tap", 0.0, 1.0, "mean"), student, teacher)
    assert relational_angle(student, teacher).item() == pytest.approx(expected, rel=1e-9)


def test_correlation(losses: ModuleType) -> None:
    """Theirs takes unit vectors, and the root of the sum of squares."""
    units = [torch.nn.functional.normalize(x, dim=1) for x in vectors()]
    loss = losses.CCKDLoss("tap", "tap", {"type": "gaussian", "gamma": 0.4, "max_p": 2}, "sum")
    expected = theirs(loss, *units) ** 2 / 36
    assert correlation_congruence(*vectors()).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_dist(losses: ModuleType, temperature: float) -> None:
    student, teacher = noise(6, 5).double(), noise(6, 5, seed=1).double()
    expected = theirs(losses.DISTLoss(*TAPS, beta=2.0, gamma=3.0, tau=temperature), student, teacher)
    own = 2 * image_correlation(student, teacher, temperature=temperature) + 3 * class_correlation(
        student, teacher, temperature=temperature
    )
    assert own.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("side", [8, 4, 3, 1])
def test_hierarchical_context(losses: ModuleType, side: int) -> None:
    student, teacher = (x[..., :side, :side] for x in maps())
    expected = theirs(losses.HierarchicalContextLoss(*TAPS), (student, None), teacher)
    assert hierarchical_distance(student, teacher).item() == pytest.approx(expected, rel=1e-9)


def test_fusion() -> None:
    from torchdistill.models.wrapper import AttentionBasedFusion

    own, other = AttentionFusion(4, 3, 5, deepest=False), AttentionBasedFusion(4, 3, 5, uses_attention=True)
    for part, same in ((own.reduce, other.conv1), (own.expand, other.conv2), (own.attention, other.attention_conv)):
        part.load_state_dict(same.state_dict())  # type: ignore[union-attr]
    low, high = noise(2, 4, 8, 8), noise(2, 3, 4, 4, seed=1)
    for found, expected in zip(own(low, high), other(low, high, 8), strict=True):
        torch.testing.assert_close(found, expected)
