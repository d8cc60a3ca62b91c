"""Burst spikes against an oracle in plain Python."""

from __future__ import annotations

from math import floor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import transpike
from transpike.coding import Burst, MultiThreshold, Rate
from transpike.coding.function import Function, Operand
from transpike.coding.scheme import Scheme, decode, injected
from transpike.errors import ConfigError

RELU = Function.of("relu.default", Operand(0))
POOL = Function.of("max_pool2d.default", Operand(0), (2, 2))


def fired(scheme: Scheme, z: torch.Tensor, function: Function = RELU) -> torch.Tensor:
    neuron = scheme.neuron(function, amplitude=1.0, wait=0)
    assert not isinstance(neuron, str)
    return neuron([z], {}, inplace=False, final=False).spikes


def bursts(currents: list[float], *, most: int, start: float) -> list[int]:
    membrane, spikes = start, []
    for z in currents:
        membrane += z
        count = max(0, min(most, floor(membrane)))
        membrane -= count
        spikes.append(count)
    return spikes


@settings(deadline=None, max_examples=300)
@given(
    currents=st.lists(st.integers(-60, 60).map(lambda k: k / 8), min_size=1, max_size=16),
    most=st.integers(1, 12),
    start=st.sampled_from([0.0, 0.5]),
)
def test_a_neuron_sends_what_has_gathered_above_its_threshold(currents: list[float], most: int, start: float) -> None:
    scheme = Burst(steps=len(currents), spikes=most, start=start)
    found = fired(scheme, torch.tensor(currents)[:, None]).flatten().tolist()
    assert found == bursts(currents, most=most, start=start)


def test_a_rate_neuron_keeps_back_what_a_burst_sends() -> None:
    z = torch.tensor([3.5, 0.0, 0.0, 4.0])[:, None]
    assert fired(Burst(steps=4), z).flatten().tolist() == [3, 0, 0, 4]
    assert fired(Rate(steps=4, start=0.0), z).flatten().tolist() == [1, 1, 1, 1]
    assert fired(MultiThreshold(steps=4), z).flatten().tolist() == [4, 0, 0, 4]
    assert torch.equal(fired(Burst(steps=4, spikes=1), z), fired(Rate(steps=4, start=0.0), z))
    assert torch.equal(fired(Burst(steps=4, spikes=7, start=0.5), z), fired(MultiThreshold(steps=4, thresholds=3), z))


def test_a_pool_lets_through_what_lateral_inhibition_pooling_does() -> None:
    """Each step the window's largest surplus over what the window has sent is sent; all are inhibited by it."""
    torch.manual_seed(0)
    spikes = torch.randint(0, 4, (12, 1, 1, 4, 4)).float()
    sums, out = torch.zeros(1, 1, 4, 4), []
    for step in spikes:
        sums = sums + step
        most = torch.nn.functional.max_pool2d(sums, 2)
        sums = sums - most.repeat_interleave(2, 2).repeat_interleave(2, 3)
        out.append(most)
    found = fired(Burst(steps=12, spikes=255), spikes, POOL.then(RELU))
    assert torch.equal(found, torch.stack(out))


@pytest.mark.parametrize("steps", [2, 8, 32])
def test_a_constant_up_to_the_peak_is_told_to_one_spike(steps: int) -> None:
    scheme = Burst(steps=steps)
    x = torch.linspace(-1, scheme.full, 300)
    error = decode(scheme, fired(scheme, injected(scheme, x))) - x.relu()
    assert error.max() <= 1e-4 and error.min() > -1 / steps - 1e-4


def test_the_peak_is_so_many_spikes_a_step() -> None:
    assert (Burst().full, Burst(span=1).full, Burst(spikes=3).full, Burst(spikes=3, span=2).full) == (5, 1, 3, 2)
    torch.manual_seed(0)
    ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    images = torch.rand(64, 4)
    units = [
        transpike.convert(ann, images, scheme=Burst(steps=8, span=span, percentile=100)).units["1"] for span in (1, 4)
    ]
    assert units[0] == pytest.approx(4 * units[1])


def test_values_outside_their_range() -> None:
    for given_, words in (
        ({"steps": 0}, "steps=0"),
        ({"spikes": 0}, "spikes=0"),
        ({"span": 6}, "span=6: expected a whole number from 1 to 5"),
        ({"start": 0.7}, r"start=0\.7"),
    ):
        with pytest.raises(ConfigError, match=words):
            Burst(**given_)  # type: ignore[arg-type]
