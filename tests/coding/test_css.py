"""CSS as a value: what it accepts, its arithmetic, and a whole neuron of the scheme."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from transpike import CSS
from transpike.coding.calibration import adjusted
from transpike.coding.function import Constant, Function, Operand
from transpike.coding.scheme import decode as read
from transpike.coding.scheme import largest, total
from transpike.coding.tracking import TrackingNeuron
from transpike.errors import ConfigError
from transpike.neurons.tsa import Tracked, decode

X = Operand(0)
RELU, LEAKY = Function.of("relu.default", X), Function.of("leaky_relu.default", X, 0.2)


def fire(
    scheme: CSS, z: Tensor, function: Function, theta: float = 1.0, *, final: bool = False, **constants: Tensor
) -> Tracked:
    neuron = scheme.neuron(function, amplitude=theta, wait=scheme.wait)
    assert isinstance(neuron, TrackingNeuron)
    return neuron([z], constants, inplace=False, final=final)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"steps": 0}, "steps=0: expected a whole number of at least 1"),
        ({"steps": -3}, "steps=-3"),
        ({"steps": 8.5}, r"steps=8\.5: expected a whole number"),
        ({"silent": -1}, "silent=-1: expected a whole number of at least 0"),
        ({"beta": 1.0}, r"beta must lie in \(1, 3\]"),
        ({"beta": 0.5}, "at least 1"),
        ({"beta": math.nan}, "at least 1"),
        ({"beta": math.inf}, "at least 1"),
        ({"signed": "no"}, "signed='no': expected true or false"),
        ({"levels": 2}, "levels=2: expected increasing integers from 1"),
        ({"beta": 3.01}, r"beta must lie in \(1, 3\] for levels \(1,\)"),
        ({"beta": 5.5, "levels": (1, 2, 4, 8)}, r"\(1, 5\]"),
        ({"beta": 7.5, "levels": (1, 2, 3)}, r"\(1, 7\]"),
        ({"levels": ()}, "increasing integers from 1"),
        ({"levels": (2, 3)}, "increasing integers from 1"),
        ({"levels": (1, 1)}, "increasing integers from 1"),
        ({"levels": (1, 4, 2)}, "increasing integers from 1"),
        ({"percentile": 0}, r"percentile=0: expected a number in \(0, 100\]"),
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
    assert total(CSS(**how)) >= 1


def test_it_is_a_frozen_value() -> None:
    scheme = CSS(steps=8, levels=[1, 2], silent=2, amplitude="layer")  # type: ignore[arg-type]
    assert (
        scheme.levels == (1, 2)
        and scheme == CSS(steps=8, levels=(1, 2), silent=2, amplitude="layer")
        and hash(scheme) == hash(CSS(steps=8, levels=(1, 2), silent=2, amplitude="layer"))
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        scheme.steps = 3  # type: ignore[misc]


@given(steps=st.integers(1, 16), beta=st.floats(1.05, 3), silent=st.integers(0, 3))
def test_totals(steps: int, beta: float, silent: int) -> None:
    scheme = CSS(steps=steps, beta=beta, silent=silent, amplitude="layer")
    assert total(scheme) == pytest.approx((beta**steps - 1) / (beta - 1)) and scheme.full == total(scheme)
    assert sum(w * e for w, e in zip(scheme.weights, scheme.entry, strict=True)) == pytest.approx(1)
    multi = CSS(steps=steps, beta=2, levels=(1, 2, 5), silent=2, amplitude="layer")
    assert largest(scheme) == total(scheme) and largest(multi) == 5 * (2**steps - 1) and multi.full == 2**steps - 1
    assert multi.digits == (-5, -2, -1, 0, 1, 2, 5)


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
    scheme = CSS(steps=steps, beta=beta, silent=2, amplitude="layer")
    theta = peak / scheme.full
    x = (2 * torch.rand(4, 64, generator=torch.Generator().manual_seed(seed)) - 1) * peak
    error = read(scheme, scheme.encode(x / theta)) * theta - x
    assert error.abs().max() <= theta * (0.5 + 1e-6 * total(scheme))


@settings(deadline=None)
@given(
    steps=st.integers(2, 10),
    beta=st.sampled_from([1.25, 1.5, 2.0, 2.5]),
    silent=st.integers(1, 3),
    seed=st.integers(0, 2**31),
    function=st.sampled_from([RELU, Function(), LEAKY]),
)
def test_within_the_sufficient_bound_the_neuron_is_exact_to_half_an_amplitude(
    steps: int, beta: float, silent: int, seed: int, function: Function
) -> None:
    scheme = CSS(steps=steps, beta=beta, silent=silent, amplitude="layer")
    bound = (3 - beta) * beta**silent / 2
    early = beta**silent / 2 / sum(beta**k for k in range(silent))
    z = (2 * torch.rand(steps, 200, generator=torch.Generator().manual_seed(seed)) - 1) * bound
    z[:silent] = z[:silent].clamp(-early, early)
    fired = fire(scheme, z, function, final=True)
    want = function(decode(z, beta=beta))
    assert (decode(fired.spikes, beta=beta) - want).abs().max() <= 0.5 + 1e-4
    assert fired.residual is not None and fired.residual.abs().max() <= 0.5 + 1e-4


def test_bounds_are_real_values_and_slopes_are_per_channel() -> None:
    scheme = CSS(steps=10, silent=3, amplitude="layer")
    theta = 0.01
    x = torch.linspace(-5, 5, 60).view(20, 3)
    z = scheme.encode(x / theta)
    clipped = fire(scheme, z, Function.of("clamp.default", X, -1.0, 2.0), theta, final=True)
    assert torch.allclose(read(scheme, clipped.spikes) * theta, x.clamp(-1, 2), atol=0.006)
    slope = torch.tensor([0.0, 0.5, 1.0])
    sloped = fire(scheme, z, Function.of("_prelu_kernel.default", X, Constant("slope")), theta, slope=slope)
    assert torch.allclose(read(scheme, sloped.spikes) * theta, torch.where(x > 0, x, slope * x), atol=0.011)
    assert sloped.residual is None and torch.equal(z, scheme.encode(x / theta))


def test_a_maximum_is_exact_for_what_arrives_early_and_late() -> None:
    scheme = CSS(steps=8, silent=2, amplitude="layer")
    x = torch.randint(-200, 201, (500, 4)).float()
    pooled = fire(scheme, scheme.encode(x), Function.of("amax.default", X, (1,), True))
    error = read(scheme, pooled.spikes) - x.amax(1, keepdim=True)
    assert error.abs().max() <= 1 and (error == 0).float().mean() > 0.9


def test_amplitude_adjustment_follows_eq_a18() -> None:
    assert adjusted(2.0, 0.3, 255) == adjusted(2.0, 1.0, 255) == 2.0
    assert adjusted(2.0, 1 + 255 * 0.005, 255) == pytest.approx(2.0 * 1.02)
    assert adjusted(2.0, 1 + 255 * 0.2, 255) == pytest.approx(2.0 * 1.23)
    assert adjusted(1.0, 1 + 255 * 0.01, 255) == pytest.approx(adjusted(1.0, 1 + 255 * 0.0100001, 255), rel=1e-5)


def test_unsigned_neurons_refuse_what_can_be_negative() -> None:
    unsigned = CSS(signed=False, silent=2, amplitude="layer")
    assert isinstance(unsigned.neuron(RELU, amplitude=1.0, wait=2), TrackingNeuron)
    assert isinstance(CSS(silent=2, amplitude="layer").neuron(LEAKY, amplitude=1.0, wait=2), TrackingNeuron)
    for function in (Function(), LEAKY, Function.of("clamp.default", X, -1.0, 1.0)):
        assert "signed=True" in str(unsigned.neuron(function, amplitude=1.0, wait=2))


def test_without_negative_spikes_only_tracked_functions_have_a_neuron() -> None:
    gelu = Function.of("gelu.default", X)
    assert isinstance(CSS(silent=2, amplitude="layer").neuron(gelu, amplitude=1.0, wait=2), TrackingNeuron)
    reason = str(CSS(signed=False, silent=2, amplitude="layer").neuron(gelu, amplitude=1.0, wait=2))
    assert reason.startswith("gelu has no neuron") and reason.endswith("; use signed=True")
