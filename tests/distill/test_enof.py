"""EnOF's alignment by NumPy, with a last layer that has a bias; its gradient."""

from __future__ import annotations

import pytest
import torch
from scipy.special import rel_entr, softmax

from transpike.distill import create_method
from transpike.distill.enof import EnOFDistillation
from transpike.distill.taps import Stage
from transpike.errors import DataError, ModelError

from .batches import CLASSES, SAMPLES, batch, noise

SAME = (Stage("low", "a", 4, 6, (8, 8), (4, 4)), Stage("high", "b", 6, 6, (4, 4), (4, 4)))
OTHER = (Stage("high", "b", 8, 6, (4, 4), (4, 4)),)


@pytest.mark.parametrize("stages", [SAME, OTHER])
def test_the_teachers_last_layer_reads_both_features(stages: tuple[Stage, ...]) -> None:
    student, _, own, other, _ = batch(stages)
    weight, bias = noise(CLASSES, 6, seed=9), noise(CLASSES, seed=10)
    teacher = other["b"].mean((-2, -1)) @ weight.T + bias
    method = EnOFDistillation(stages, beta=3.0, temperature=4.0)
    method.see_head(weight)
    features = own["high"].double().numpy().mean((0, -2, -1))  # over time and space
    if stages is OTHER:
        layer = method.projection
        features = features @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
    said = features @ weight.double().numpy().T + bias.double().numpy()
    p, q = softmax(teacher.double().numpy() / 4, -1), softmax(said / 4, -1)
    terms = method(student, teacher, own, other)
    assert set(terms) == {"alignment"}
    assert terms["alignment"].item() == pytest.approx(3 * 16 * rel_entr(p, q).sum() / SAMPLES, rel=1e-4)


def test_its_gradient_is_that_of_its_differences() -> None:
    method = EnOFDistillation(SAME).double()
    method.see_head(noise(CLASSES, 6, seed=9).double())
    logits, teacher = noise(SAMPLES, CLASSES).double(), {"b": noise(SAMPLES, 6, 4, 4, seed=2).double()}
    maps = noise(2, SAMPLES, 6, 4, 4, seed=3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: method(logits, logits, {"high": x}, teacher)["alignment"], maps)


def test_a_head_that_does_not_fit() -> None:
    method = create_method("enof", SAME, {})
    for weight, told in ((None, "none was found"), (torch.zeros(CLASSES, 5), "the last one takes 5")):
        with pytest.raises(ModelError, match=told):
            method.see_head(weight)  # type: ignore[operator]
    student, teacher, own, other, _ = batch(SAME)
    with pytest.raises(DataError, match="see_head"):
        method(student, teacher, own, other)
