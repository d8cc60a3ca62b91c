"""Differential coding: the neuron against the paper's recursion, and against rate coding."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import transpike
from transpike.coding import Differential, MultiThreshold
from transpike.coding.function import Function, Operand
from transpike.coding.scheme import Scheme, decode, injected
from transpike.errors import ConfigError

RELU = Function.of("relu.default", Operand(0))
GELU = Function.of("gelu.default", Operand(0))


def fired(scheme: Scheme, z: torch.Tensor, function: Function = RELU) -> torch.Tensor:
    neuron = scheme.neuron(function, amplitude=1.0, wait=0)
    assert not isinstance(neuron, str), neuron
    return neuron([z], {}, inplace=False, final=False).spikes


def recursion(currents: list[Fraction], n: int, *, relu: bool) -> list[int]:
    """A multi-threshold neuron on the rates that differential currents stand for.

    What comes in at step t as a rate is the current and the mean of the input so far; so with what goes out.
    """
    mean_in = mean_out = membrane = sent = Fraction(0)
    spikes = []
    for t, current in enumerate(currents, start=1):
        membrane += current + mean_in - mean_out
        sent += mean_out
        spike = 0
        for threshold in (2**k for k in reversed(range(n))):
            if membrane >= Fraction(3, 4) * threshold:
                spike = threshold
                break
            if membrane <= -Fraction(3, 4) * threshold and (sent >= threshold or not relu):
                spike = -threshold
                break
        membrane -= spike
        sent += spike
        mean_in += current / t
        mean_out += Fraction(spike, t)
        spikes.append(spike)
    return spikes


@settings(deadline=None, max_examples=300)
@given(
    currents=st.lists(st.integers(-640, 640).map(lambda k: Fraction(k, 8)), min_size=1, max_size=8),
    n=st.integers(1, 8),
    relu=st.booleans(),
)
def test_a_neuron_fires_the_threshold_nearest_to_what_its_mean_misses(
    currents: list[Fraction], n: int, relu: bool
) -> None:
    scheme = Differential(steps=len(currents), thresholds=n)
    shift = Fraction(1, 1009)  # off the ties, which float arithmetic cannot tell
    currents = [currents[0] + shift, *currents[1:]]
    for dtype in (torch.float32, torch.float64):  # the kernel, and the reference
        z = torch.tensor([float(c) for c in currents], dtype=dtype)[:, None]
        found = fired(scheme, z, RELU if relu else Function())
        assert found.flatten().tolist() == recursion(currents, n, relu=relu)


def test_what_is_sent_is_the_change_of_the_mean() -> None:
    """A constant rate is a differential current of one step; a rate train is its differences from its mean so far."""
    scheme = Differential(steps=4)
    assert injected(scheme, torch.tensor([0.5])).flatten().tolist() == [0.5, 0, 0, 0]
    rates = torch.tensor([3.0, 1.0, 2.0, 6.0])
    means = rates.cumsum(0) / torch.arange(1, 5)
    differences = rates - torch.cat([torch.zeros(1), means[:-1]])
    assert float(decode(scheme, differences[:, None])) == pytest.approx(float(means[-1]))


def test_what_stands_takes_no_more_spikes() -> None:
    z = injected(scheme := Differential(steps=8), torch.tensor([96.0, 64.0, -3.0, 0.2]))
    assert fired(scheme, z).T.tolist() == [[128, -64, 0, 0, 0, 0, 0, 0], [64, 0, 0, 0, 0, 0, 0, 0], [0] * 8,
                                          [0, 0, 0, 1, 0, 0, 0, 0]]  # fmt: skip
    assert fired(MultiThreshold(steps=8), torch.full((8, 1), 64.0)).flatten().tolist() == [64] * 8


def test_a_relu_takes_back_no_more_than_was_sent() -> None:
    z = torch.tensor([[3.0, 3.0], [-100.0, -0.8], [0.0, 1.2], [0.0, -200.0]])
    scheme = Differential(steps=4)
    spikes = fired(scheme, z)
    assert spikes.T.tolist() == [[4, -8, 0, 0], [4, -2, 0, -8]]  # 12 / 4 stood at last: 16 would be the nearest
    said = (spikes / torch.arange(1, 5)[:, None]).cumsum(0)
    assert (said >= -1e-5).all()
    assert fired(scheme, z, Function())[1, 0] == -128


@pytest.mark.parametrize("function", [RELU, Function(), GELU, Function.of("leaky_relu.default", Operand(0), 0.1)])
def test_every_function_has_a_neuron(function: Function) -> None:
    torch.manual_seed(0)
    scheme = Differential(steps=16, thresholds=8)
    x = torch.randn(200) * 2
    neuron = scheme.neuron(function, amplitude=1 / 16, wait=0)
    said = decode(scheme, neuron([injected(scheme, x * 16)], {}, inplace=False, final=False).spikes) / 16
    assert (said - function(x)).abs().max() < 0.06


def test_several_operands() -> None:
    product = Function.of("mul.Tensor", Operand(0), Operand(1), operands=2)
    scheme = Differential(steps=12)
    a, b = torch.rand(50), torch.rand(50)
    neuron = scheme.neuron(product, amplitude=1 / 64, wait=0)
    z = [injected(scheme, x * 64) for x in (a, b)]
    fired_ = neuron(z, {}, inplace=True, final=True)
    assert fired_.target is not None and torch.allclose(fired_.target / 64, a * b, atol=1e-5)
    assert (decode(scheme, fired_.spikes) / 64 - a * b).abs().max() < 0.01


def test_a_transformer_block_converts() -> None:
    torch.manual_seed(0)
    block = torch.nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, activation="gelu", batch_first=True)
    ann = torch.nn.Sequential(block, torch.nn.Flatten(), torch.nn.Linear(96, 4)).eval()
    images = torch.randn(64, 6, 16)
    errors = []
    for steps in (4, 16):
        snn = transpike.convert(ann, images, scheme=Differential(steps=steps, thresholds=8, percentile=100))
        errors.append(float((snn(images) - ann(images)).norm() / ann(images).norm()))
    assert errors[1] < 0.05 and errors[1] < errors[0] / 2, errors


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"steps": 0}, "steps=0"),
        ({"thresholds": 13}, "thresholds=13: expected a whole number from 1 to 12"),
        ({"percentile": 101}, "percentile=101"),
        ({"amplitude": "row"}, "amplitude"),
    ],
)
def test_values_outside_their_range(settings_: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Differential(**settings_)  # type: ignore[arg-type]
