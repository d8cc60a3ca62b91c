"""TTFS: one spike a window, against its equation in plain Python and the exact mapping's formula in continuous time."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transpike.coding import FS, TTFS, Rate, Scheme
from transpike.coding.function import Function, Operand
from transpike.coding.neuron import Neuron
from transpike.coding.operations import Operations
from transpike.coding.scheme import decode, injected, largest, payload_bits, readout_operations

RELU = Function.of("relu.default", Operand(0))
RELU6 = RELU.then(Function.of("clamp.default", Operand(0), None, 6.0))


def relu(scheme: Scheme, function: Function = RELU, amplitude: float = 1.0) -> Neuron:
    neuron = scheme.neuron(function, amplitude=amplitude, wait=scheme.wait or 0)
    assert not isinstance(neuron, str)
    return neuron


def oracle(currents: list[float], steps: int) -> list[int]:
    """Step by step: the spikes' currents flow on; then the membrane rises by theta / T a step until it fires."""
    flowing = membrane = 0.0
    for z in currents:
        flowing += z
        membrane += flowing / steps
    membrane, spikes = max(membrane, 0.0), []
    for t in range(steps):
        fired = not any(spikes) and membrane + t / steps >= 1 - 1 / (2 * steps)
        spikes.append(int(fired))
    return spikes


@settings(deadline=None, max_examples=200)
@given(currents=st.lists(st.integers(-16, 16).map(lambda k: k / 16), min_size=8, max_size=8))
def test_neurons_fire_as_their_equation_says(currents: list[float]) -> None:
    fired = relu(TTFS(steps=8))([torch.tensor(currents)[:, None]], {}, inplace=False, final=False)
    assert fired.spikes.flatten().tolist() == oracle(currents, 8)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**31), steps=st.integers(1, 300))
def test_one_spike_at_most_whose_time_is_the_value(seed: int, steps: int) -> None:
    scheme, generator = TTFS(steps=steps), torch.Generator().manual_seed(seed)
    x = torch.rand(500, generator=generator) * 1.4 - 0.2
    spikes = relu(scheme)([injected(scheme, x)], {}, inplace=False, final=False).spikes
    assert spikes.sum(0).max() <= 1
    assert ((decode(scheme, spikes) - x.clamp(0, 1)).abs() <= 0.5 / steps + 1e-6).all()
    # The exact mapping: t_max - t = x, in units of the window.
    fires = spikes.sum(0) > 0
    time = spikes.argmax(0)[fires] / steps
    assert ((1 - time - x.clamp(0, 1)[fires]).abs() <= 0.5 / steps + 1e-6).all()


@pytest.mark.parametrize("other", [FS(steps=16), Rate(steps=16)])
def test_no_other_scheme_keeps_to_one_spike(other: Scheme) -> None:
    x = torch.linspace(0, 1, 40)
    spikes = relu(other)([injected(other, x)], {}, inplace=False, final=False).spikes
    assert spikes.sum(0).max() > 1


def test_a_clip_is_a_real_value_and_an_unsigned_code_has_no_leaky_relu() -> None:
    theta, scheme = 8.0, TTFS(steps=64)
    fired = relu(scheme, RELU6, theta)([injected(scheme, torch.tensor([0.5, 0.9]))], {}, inplace=False, final=True)
    assert (decode(scheme, fired.spikes) * theta).tolist() == [4.0, 6.0]
    leaky = Function.of("leaky_relu.default", Operand(0), 0.1)
    assert "negative spikes" in str(scheme.neuron(leaky, amplitude=1.0, wait=64))


def test_its_clock_and_its_costs() -> None:
    scheme = TTFS(steps=64)
    assert (scheme.wait, largest(scheme), payload_bits(scheme.digits), scheme.encoded) == (64, 1.0, 0, None)
    work = relu(scheme).operations(neurons=10, spikes=5, inputs=10)
    assert work == Operations(neuron_accumulates=10 * 64 * 3 + 5)
    # A sum of sums: an addition a step, and one for the bias.
    assert readout_operations(scheme, values=3) == Operations(neuron_accumulates=2 * 3 * 64)
    assert math.isclose(sum(w * e for w, e in zip(scheme.weights, scheme.entry, strict=True)), 1)
