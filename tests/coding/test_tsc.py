"""TSC: pairs of opposite spikes, against the source's formula, and neurons against their equation in plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.coding import oracles

from transpike.coding import CSS, TSC, Rate, Scheme
from transpike.coding.function import Function, Operand
from transpike.coding.neuron import Neuron
from transpike.coding.scheme import decode, injected, payload_bits
from transpike.errors import ConfigError

RELU = Function.of("relu.default", Operand(0))


def relu(scheme: Scheme) -> Neuron:
    neuron = scheme.neuron(RELU, amplitude=1.0, wait=scheme.wait or 0)
    assert not isinstance(neuron, str)
    return neuron


def pair(p: float, steps: int) -> list[int]:
    """Han and Roy: the sign at t = 1, its opposite at floor(|p| (T - 1)) + 1; nothing where both meet."""
    train = [0] * (steps + 1)  # counted from 1
    train[1] += int(math.copysign(1, p))
    train[math.floor(abs(p) * (steps - 1)) + 1] -= int(math.copysign(1, p))
    return train[1:]


@settings(deadline=None, max_examples=200)
@given(step=st.integers(-64, 64), steps=st.sampled_from([2, 5, 9, 65]))
def test_a_pixel_is_the_sources_pair(step: int, steps: int) -> None:
    p, scheme = step / 64, TSC(steps=steps)
    train = scheme.encode(torch.tensor([p * scheme.full], dtype=torch.float64))
    assert train.flatten().tolist() == pair(p, steps)
    said = float(decode(scheme, train)) / scheme.full
    assert -1e-9 < abs(p) - abs(said) < 1 / (steps - 1) + 1e-9 and said * p >= 0


@settings(deadline=None, max_examples=200)
@given(currents=st.lists(st.integers(-40, 40).map(lambda k: k / 32), min_size=2, max_size=12))
def test_neurons_switch_where_an_integrate_and_fire_neuron_starts_and_stops(currents: list[float]) -> None:
    flowing = [sum(currents[: t + 1]) for t in range(len(currents))]
    fired = oracles.integrate_and_fire(flowing, start=0.5)
    switches = [a - b for a, b in zip(fired, [0, *fired], strict=False)]
    spikes = relu(TSC(steps=len(currents)))([torch.tensor(currents)[:, None]], {}, inplace=False, final=False).spikes
    assert spikes.flatten().tolist() == switches


def test_signs_alternate_and_no_other_schemes_do() -> None:
    def alternates(scheme: Scheme) -> bool:
        x = torch.linspace(-0.2, 1, 60) * scheme.full
        on = relu(scheme)([injected(scheme, x)], {}, inplace=False, final=False).spikes.cumsum(0)
        return set(on.unique().tolist()) <= {0.0, 1.0}

    assert alternates(TSC(steps=16))
    assert not alternates(Rate(steps=16)) and not alternates(CSS(steps=8, silent=1, amplitude="layer"))


def test_a_value_near_one_takes_few_spikes_where_rate_takes_one_a_step() -> None:
    x = torch.full((1,), 1.0)
    counts = [
        relu(s)([injected(s, x)], {}, inplace=False, final=False).spikes.abs().sum() for s in (TSC(steps=64), Rate())
    ]
    assert counts == [1, 64]


def test_values_are_those_of_rate_coding() -> None:
    x = torch.linspace(-0.5, 1.2, 300)
    said = [
        decode(s, relu(s)([injected(s, x)], {}, inplace=False, final=False).spikes)
        for s in (TSC(steps=32), Rate(steps=32))
    ]
    torch.testing.assert_close(*said)


def test_it_needs_an_interval_and_a_bit_for_the_sign() -> None:
    assert payload_bits(TSC(steps=8).digits) == 1
    with pytest.raises(ConfigError, match="steps=1: expected a whole number from 2"):
        TSC(steps=1)
