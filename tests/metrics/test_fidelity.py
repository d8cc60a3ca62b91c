"""Fidelity measures: known answers, independence of the batches, and which error binds."""

from __future__ import annotations

import pytest
import torch

from transpike.metrics.fidelity import LayerErrors, accuracy, agreement, logit_error
from transpike.neurons.tsa import Code, decode, encode, track


def reach(code: Code) -> float:
    """The largest value that a train says with an error of half a unit."""
    return code.levels[-1] * sum(code.weights) + 0.5


def binding(code: Code, z: torch.Tensor) -> tuple[str, float, float]:
    """What binds in one ReLU layer fed with the currents ``z``, and the shares clipped and coupled."""
    fired = track(z, code=code, final=True)
    assert fired.residual is not None
    errors = LayerErrors(largest=reach(code))
    errors.update(decode(z, beta=code.beta).relu(), decode(fired.spikes, beta=code.beta), fired.residual)
    result = errors.result()
    return result.binding, result.clipped, result.coupled


def test_predictions() -> None:
    logits = torch.eye(10)[torch.arange(100) % 10]
    labels = torch.arange(100) % 10
    assert accuracy(logits, labels) == 1
    assert accuracy(logits, (labels + (torch.arange(100) < 7)) % 10) == 0.93
    assert agreement(logits, logits * 3 - 1) == 1
    assert agreement(logits, logits.roll(1, 0)) == 0


def test_logit_error() -> None:
    ann = torch.randn(50, 10)
    assert logit_error(ann, ann) == 0
    assert logit_error(ann * 1.01, ann) == pytest.approx(0.01, rel=1e-3)
    assert logit_error(ann + torch.randn(50, 1), ann) < 1e-6
    assert logit_error(ann + 1, ann, centred=False) == pytest.approx(500**0.5 / float(ann.norm()), rel=1e-5)
    assert logit_error(-ann, ann, centred=False) == pytest.approx(2)


def test_values_beyond_the_code_are_clipped() -> None:
    code = Code(steps=8, beta=2.0, silent=1)
    wide = (torch.rand(1000) - 0.5) * 4 * reach(code)
    z = encode(wide, code=Code(steps=8, beta=2.0, levels=tuple(range(1, 5))))
    named, clipped, coupled = binding(code, z)
    assert named == "clipping"
    assert clipped == pytest.approx(float((wide > reach(code)).double().mean()), abs=0.01)
    assert coupled < 0.05


def test_digits_sent_too_early_are_coupling() -> None:
    z = (torch.rand(12, 2000) - 0.5) * 1.9  # the largest sum of such currents is within the code's range
    named, clipped, coupled = binding(Code(steps=12, beta=2.0, silent=0), z)
    assert (named, clipped) == ("coupling", 0) and coupled > 0.01
    named, clipped, coupled = binding(Code(steps=12, beta=2.0, silent=0, levels=(1, 2, 4, 8)), z)
    assert (named, clipped, coupled) == ("resolution", 0, 0)


def test_batches_add_up() -> None:
    target, decoded, residual = torch.randn(3, 64, 10) * torch.tensor([5.0, 5.0, 2.0])[:, None, None]
    whole, parts = LayerErrors(largest=7.5), LayerErrors(largest=7.5)
    whole.update(target, decoded, residual)
    for batch in zip(target.split(13), decoded.split(13), residual.split(13), strict=True):
        parts.update(*batch)
    expected, found = whole.result(), parts.result()
    for name in ("rms", "own", "clipped", "coupled", "from_clipping", "from_coupling"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-6)
    assert expected.rms == pytest.approx(float((decoded - target).square().mean().sqrt()), rel=1e-6)
    assert expected.own == pytest.approx(float(residual.square().mean().sqrt()), rel=1e-6)
    clipped = ((decoded + residual).abs() > 7.5) & (residual.abs() > 0.5)
    assert expected.clipped == float(clipped.double().mean())
    assert expected.coupled == float((~clipped & (residual.abs() > 1)).double().mean())
    share = float(residual[clipped].square().sum() / residual.square().sum())
    assert expected.from_clipping == pytest.approx(share, rel=1e-5)


def test_an_exact_layer_and_no_layer() -> None:
    errors = LayerErrors(largest=7.5)
    with pytest.raises(ValueError, match="no values were seen"):
        errors.result()
    errors.update(torch.ones(4), torch.ones(4), torch.zeros(4))
    assert (errors.result().rms, errors.result().binding) == (0, "resolution")


def test_a_unit_of_another_size_changes_no_share() -> None:
    target, decoded, residual = torch.randn(3, 64, 10) * 3
    whole, scaled = LayerErrors(largest=7.5), LayerErrors(largest=7.5 / 8, unit=1 / 8)
    whole.update(target, decoded, residual)
    scaled.update(target / 8, decoded / 8, residual / 8)
    assert scaled.result() == whole.result()
