"""The quantised network: rounding, and what it has to do with CSS."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import transpike
from transpike.coding import CSS, Quantised
from transpike.coding.function import Function, Operand
from transpike.coding.scheme import decode
from transpike.errors import ConfigError, ConversionError

RELU = Function.of("relu.default", Operand(0))
GELU = Function.of("gelu.default", Operand(0))


def rounded(value: float, top: int, *, low: int) -> int:
    """Half away from zero, clipped."""
    return max(low, min(top, math.copysign(math.floor(abs(value) + 0.5), value)))


@settings(deadline=None, max_examples=200)
@given(
    values=st.lists(st.integers(-3000, 3000).map(lambda k: k / 8), min_size=1, max_size=20),
    bits=st.integers(2, 8),
    signed=st.booleans(),
)
def test_an_activation_is_rounded_and_clipped(values: list[float], bits: int, signed: bool) -> None:
    scheme = Quantised(bits=bits, signed=signed)
    neuron = scheme.neuron(RELU, amplitude=0.5, wait=0)
    assert not isinstance(neuron, str)
    top = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    fired = neuron([torch.tensor([values])], {}, inplace=False, final=True).spikes
    assert fired.shape == (1, len(values))
    assert fired[0].tolist() == [rounded(max(v, 0.0), top, low=0) for v in values]
    assert scheme.encode(torch.tensor(values))[0].tolist() == [rounded(v, top, low=-top) for v in values]


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**31), bits=st.integers(2, 8))
def test_the_error_is_half_a_unit_of_b_bits(seed: int, bits: int) -> None:
    scheme = Quantised(bits=bits)
    x = (torch.rand(200, generator=torch.Generator().manual_seed(seed)) * 2 - 1) * scheme.full
    assert (decode(scheme, scheme.encode(x)) - x).abs().max() <= 0.5 + 1e-5


def test_other_functions_are_computed_once_and_rounded() -> None:
    neuron = Quantised(bits=8).neuron(GELU, amplitude=0.02, wait=0)
    assert not isinstance(neuron, str)
    x = torch.linspace(-3, 3, 50)
    fired = neuron([x[None] / 0.02], {}, inplace=False, final=False).spikes[0]
    expected = (nn.functional.gelu(x) / 0.02).clamp(-127, 127)
    assert (fired - expected).abs().max() <= 0.5 + 1e-4
    assert "never negative" not in str(neuron)


@pytest.fixture(scope="module")
def network() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    ann = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.GELU(), nn.Flatten(),
                        nn.Linear(72, 5)).eval()  # fmt: skip
    return ann, torch.randn(64, 2, 12, 12)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("amplitude", ["layer", "channel"])
def test_css_of_one_step_that_is_all_range_is_the_quantised_network(
    network: tuple[nn.Module, torch.Tensor], bits: int, amplitude: str
) -> None:
    """CSS with one step, no silence and span its largest level; 8 bits are levels 1 to 127."""
    top = 2 ** (bits - 1) - 1
    css = CSS(steps=1, levels=range(1, top + 1), span=top, silent=0, amplitude=amplitude)  # type: ignore[arg-type]
    ann, images = network
    one = transpike.convert(ann, images, scheme=css)
    other = transpike.convert(ann, images, scheme=Quantised(bits=bits, amplitude=amplitude))  # type: ignore[arg-type]
    assert torch.equal(one(images), other(images)) and one.latency == other.latency == 1
    assert all(torch.equal(a.spikes, b.spikes) for a, b in zip(one.trace(images).values(), other.trace(images).values(),
                                                               strict=True))  # fmt: skip


def test_it_is_the_network_with_fake_quantised_activations() -> None:
    """Against PyTorch's own fake quantisation, layer by layer; scales are maxima over 2^(b-1) - 1."""
    torch.manual_seed(1)
    ann = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    images = torch.randn(256, 6)
    snn = transpike.convert(ann, images, scheme=Quantised(bits=6, amplitude="layer", percentile=100))

    def quantised(x: torch.Tensor, peak: float) -> torch.Tensor:
        return torch.fake_quantize_per_tensor_affine(x, peak / 31, 0, -31, 31)

    with torch.no_grad():
        x, value = quantised(images, float(images.abs().max())), images
        for layer, act in ((ann[0], ann[1]), (ann[2], ann[3])):
            value = act(layer(value))
            x = quantised(act(layer(x)), float(value.max()))
        x = ann[4](x)
    apart = (snn(images) - x).norm(dim=1) / x.norm(dim=1)
    assert apart.median() < 1e-5 and (apart < 1e-4).float().mean() > 0.9  # ties may round the other way


def test_more_bits_are_better(network: tuple[nn.Module, torch.Tensor]) -> None:
    ann, images = network
    errors = []
    for bits in (2, 4, 6, 8):
        snn = transpike.convert(ann, images, scheme=Quantised(bits=bits, percentile=100))
        errors.append(float((snn(images) - ann(images)).norm()))
    assert all(later < earlier / 2 for earlier, later in pairwise(errors)), errors


def test_what_it_refuses(network: tuple[nn.Module, torch.Tensor]) -> None:
    ann, images = network
    with pytest.raises(ConversionError, match=r"gelu.*neither piecewise linear nor a maximum; use signed=True"):
        transpike.convert(ann, images, scheme=Quantised(signed=False))
    for settings_, words in (
        ({"bits": 9}, "bits=9: expected a whole number from 2 to 8"),
        ({"bits": 1}, "bits=1: expected a whole number from 2 to 8"),
        ({"signed": 1}, "signed=1: expected true or false"),
        ({"steps": 2}, "steps=2: a quantised network has one step"),
        ({"amplitude": "row"}, "amplitude"),
    ):
        with pytest.raises(ConfigError, match=words):
            Quantised(**settings_)  # type: ignore[arg-type]
    assert Quantised(bits=1, signed=False).digits == (0, 1)
