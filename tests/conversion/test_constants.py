"""Constants that are a layer's largest value: their neurons decide clear of every threshold."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

import transpike
from transpike import export
from transpike.coding import Rate
from transpike.coding.scheme import Scheme
from transpike.conversion.constants import APART, apart, silent_values
from transpike.conversion.prepare import prepare


def network() -> tuple[nn.Sequential, torch.Tensor]:
    """Behind a ReLU all weights are negative: nothing exceeds the biases, which a third of the images leaves alone."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)).eval()
    with torch.no_grad():
        net[0].weight.abs_()
        net[0].bias.fill_(-0.1)
        net[2].weight.abs_().neg_()
        net[2].bias.copy_(torch.rand(6) + 0.5)
    images = torch.rand(96, 4)
    images[:32] = 0
    return net, images


@pytest.mark.parametrize(("amplitude", "percentile"), [("layer", 100), ("channel", 80)])
def test_a_peak_that_is_a_constant_lies_on_no_threshold(
    amplitude: Literal["layer", "channel"], percentile: float, tmp_path: Path
) -> None:
    """A share of the bias would be theta: two steps bring 3, and one and a half theta is a threshold of two steps."""
    net, images = network()
    scheme = transpike.CSS(levels=(1, 2, 4, 8), silent=1, amplitude=amplitude, percentile=percentile)
    snn = transpike.convert(net, images, scheme=scheme)
    share = snn.tensors(snn.graph["2"])["bias"]
    tied = share == share.max() if amplitude == "layer" else torch.ones(6, dtype=torch.bool)
    assert 1 - share[tied] == pytest.approx(APART, rel=1e-2)
    snn.save(tmp_path)
    assert export.run(tmp_path, images[:1].numpy()).nearest[0] > export.CLOSE
    assert (snn.trace(images[:1])["3"].spikes[:, 0, tied] == 1).all()


@pytest.mark.parametrize("beside", [-0.9, -0.5, 0.0, 0.5, 0.9])
@pytest.mark.parametrize("signed", [False, True])
def test_a_constant_beside_the_full_value_moves_as_far_away(signed: bool, beside: float) -> None:
    net, images = network()
    graph = prepare(net, images).graph
    value = silent_values(graph)["3"].float()
    theta = value.clone()
    theta[0] /= 1 + beside * APART
    theta[1] *= 2
    found = apart({"3": theta}, graph, {"3": 0}, full=1.0, signed=signed)["3"] / value
    edge = 1 + APART if signed else 1 - APART
    assert found.tolist() == pytest.approx([edge, 2, *4 * [edge]], rel=1e-6)


FLOORS = [
    transpike.CSS(signed=False, silent=1, amplitude="layer", percentile=100),
    Rate(steps=16, start=0.0, percentile=100),
]


@pytest.mark.parametrize("scheme", FLOORS, ids=lambda scheme: type(scheme).__name__)
def test_without_negative_spikes_such_a_constant_fires_at_once(scheme: Scheme) -> None:
    """It lies on the first threshold; below it, the first digit would be missing."""
    net, images = network()
    snn = transpike.convert(net, images, scheme=scheme)
    largest = int(net[2].bias.argmax())
    assert (snn.trace(images[:1])["3"].spikes[:, 0, largest] == 1).all()


def test_other_amplitudes_stay() -> None:
    net, images = network()
    scheme = transpike.CSS(levels=(1, 2, 4, 8), silent=1, percentile=100)
    prepared = prepare(net, images)
    theta = prepared.amplitudes(scheme)
    measured = prepared.statistics.seen
    seen = scheme.calibration.amplitudes(measured, full=scheme.full, largest=1.0, residuals=lambda _: {})
    assert torch.equal(theta["1"], seen["1"]) and torch.equal(theta["input"], seen["input"])
    assert 0 < int((theta["3"] != seen["3"]).sum()) < 6  # the largest bias, and whose share of the tail reaches it


def test_what_a_layer_says_of_silence() -> None:
    net, images = network()
    found = silent_values(prepare(net, images).graph)
    assert list(found) == ["1", "3"] and not found["1"].any()
    assert torch.equal(found["3"].float(), net[2].bias.detach())
