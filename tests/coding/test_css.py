"""CSS as a value: what it accepts, its arithmetic, and a whole neuron of the scheme."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transpike import CSS
from transpike.coding.scheme import Activation
from transpike.errors import ConfigError
from transpike.neurons.tsa import IDENTITY, RELU, Piecewise, decode


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"steps": -3}, "steps must be at least 1"),
        ({"silent": -1}, "silent at least 0"),
        ({"beta": 1.0}, "beta must be a finite number above 1"),
        ({"beta": 0.5}, "above 1"),
        ({"beta": math.nan}, "above 1"),
        ({"beta": math.inf}, "above 1"),
        ({"beta": 3.01}, r"beta must lie in \(1, 3\] for levels \(1,\)"),
        ({"beta": 5.5, "levels": (1, 2, 4, 8)}, r"\(1, 5\]"),
        ({"beta": 7.5, "levels": (1, 2, 3)}, r"\(1, 7\]"),
        ({"levels": ()}, "increasing integers from 1"),
        ({"levels": (2, 3)}, "increasing integers from 1"),
        ({"levels": (1, 1)}, "increasing integers from 1"),
        ({"levels": (1, 4, 2)}, "increasing integers from 1"),
        ({"percentile": 0}, r"percentile must lie in \(0, 100\]"),
        ({"percentile": 100.1}, "percentile"),
        ({"percentile": math.nan}, "percentile"),
        ({"adjustments": -1}, "adjustments"),
        ({"steps": 200}, "exceeds what float32 can hold"),
    ],
)
def test_values_outside_their_range(how: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        CSS(**how)


@pytest.mark.parametrize(
    "how",
    [{"beta": 3}, {"beta": 1.01}, {"beta": 5, "levels": [1, 2, 4, 8]}, {"steps": 1, "silent": 0}, {"percentile": 100}],
)
def test_values_at_the_edge_of_their_range(how: dict[str, Any]) -> None:
    assert CSS(**how).total >= 1


def test_it_is_a_frozen_value() -> None:
    scheme = CSS(steps=8, levels=[1, 2])  # type: ignore[arg-type]
    assert (
        scheme.levels == (1, 2)
        and scheme == CSS(steps=8, levels=(1, 2))
        and hash(scheme) == hash(CSS(steps=8, levels=(1, 2)))
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        scheme.steps = 3  # type: ignore[misc]


@given(steps=st.integers(1, 16), beta=st.floats(1.05, 3), silent=st.integers(0, 3), depth=st.integers(0, 60))
def test_latency_and_amplitude(steps: int, beta: float, silent: int, depth: int) -> None:
    scheme = CSS(steps=steps, beta=beta, silent=silent)
    assert scheme.latency(depth) == steps + silent * depth and scheme.interval == steps + silent
    assert scheme.total == pytest.approx((beta**steps - 1) / (beta - 1))
    assert scheme.amplitude(3.0) * scheme.total == pytest.approx(3.0)
    assert scheme.largest == scheme.total and CSS(steps=steps, beta=2, levels=(1, 2, 5)).largest == 5 * (2**steps - 1)


@settings(deadline=None)
@given(
    steps=st.integers(1, 14),
    beta=st.floats(1.1, 3),
    peak=st.floats(1e-3, 1e3),
    seed=st.integers(0, 2**31),
)
def test_theorem_2_every_value_below_the_peak_is_encoded_to_half_an_amplitude(
    steps: int, beta: float, peak: float, seed: int
) -> None:
    scheme = CSS(steps=steps, beta=beta)
    theta = scheme.amplitude(peak)
    x = (2 * torch.rand(4, 64, generator=torch.Generator().manual_seed(seed)) - 1) * peak
    error = scheme.decode(scheme.encode(x / theta)) * theta - x
    assert error.abs().max() <= theta * (0.5 + 1e-6 * scheme.total)


@settings(deadline=None)
@given(
    steps=st.integers(2, 10),
    beta=st.sampled_from([1.25, 1.5, 2.0, 2.5]),
    silent=st.integers(1, 3),
    seed=st.integers(0, 2**31),
    function=st.sampled_from([RELU, IDENTITY, Piecewise(slope=0.2)]),
)
def test_within_the_sufficient_bound_the_neuron_is_exact_to_half_an_amplitude(
    steps: int, beta: float, silent: int, seed: int, function: Piecewise
) -> None:
    scheme = CSS(steps=steps, beta=beta, silent=silent)
    bound = (3 - beta) * beta**silent / 2
    early = beta**silent / 2 / sum(beta**k for k in range(silent))
    z = (2 * torch.rand(steps, 200, generator=torch.Generator().manual_seed(seed)) - 1) * bound
    z[:silent] = z[:silent].clamp(-early, early)
    fired = scheme.fire(z, Activation(function), 1.0, inplace=False, final=True)
    want = function(decode(z, beta=beta))
    assert (decode(fired.spikes, beta=beta) - want).abs().max() <= 0.5 + 1e-4
    assert fired.residual is not None and fired.residual.abs().max() <= 0.5 + 1e-4


def test_bounds_are_real_values_and_slopes_are_per_channel() -> None:
    scheme = CSS(steps=10, silent=3)
    theta = 0.01
    x = torch.linspace(-5, 5, 60).view(20, 3)
    z = scheme.encode(x / theta)
    clipped = scheme.fire(z, Activation(Piecewise(slope=1.0, low=-1.0, high=2.0)), theta, inplace=False, final=True)
    assert torch.allclose(scheme.decode(clipped.spikes) * theta, x.clamp(-1, 2), atol=0.006)
    slope = torch.tensor([0.0, 0.5, 1.0])
    sloped = scheme.fire(z, Activation(IDENTITY, slope=slope), theta, inplace=False, final=False)
    assert torch.allclose(scheme.decode(sloped.spikes) * theta, torch.where(x > 0, x, slope * x), atol=0.011)
    assert sloped.residual is None and torch.equal(z, scheme.encode(x / theta))


def test_a_maximum_is_exact_for_what_arrives_early_and_late() -> None:
    scheme = CSS(steps=8, silent=2)
    x = torch.randint(-200, 201, (500, 4)).float()
    pooled = scheme.fire(
        scheme.encode(x), Activation(IDENTITY, pool=lambda h: h.amax(1, keepdim=True)), 1.0, inplace=False, final=True
    )
    error = scheme.decode(pooled.spikes) - x.amax(1, keepdim=True)
    assert error.abs().max() <= 1 and (error == 0).float().mean() > 0.9


def test_amplitude_adjustment_follows_eq_a18() -> None:
    scheme = CSS(steps=8, beta=2.0)
    assert scheme.adjust(2.0, 0.3) == scheme.adjust(2.0, 1.0) == 2.0
    assert scheme.adjust(2.0, 1 + 255 * 0.005) == pytest.approx(2.0 * 1.02)
    assert scheme.adjust(2.0, 1 + 255 * 0.2) == pytest.approx(2.0 * 1.23)
    assert scheme.adjust(1.0, 1 + 255 * 0.01) == pytest.approx(scheme.adjust(1.0, 1 + 255 * 0.0100001), rel=1e-5)


def test_unsigned_neurons_refuse_what_can_be_negative() -> None:
    unsigned = CSS(signed=False)
    assert unsigned.refuses(0.0, None) is None and CSS().refuses(0.2, -1.0) is None
    for slope, low in ((1.0, None), (0.1, None), (1.0, -1.0)):
        assert "signed=True" in str(unsigned.refuses(slope, low))
