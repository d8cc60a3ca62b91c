"""QCFS: the activation's formula, its neuron, and the steps before, against plain Python."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.coding import oracles
from torch import nn

import transpike
from transpike.coding import FS, QCFS, TTFS, Rate, Scheme
from transpike.coding.function import Function, Operand
from transpike.coding.neuron import Neuron
from transpike.coding.scheme import decode, injected
from transpike.errors import ConfigError, ConversionError
from transpike.models import activations

RELU = Function.of("relu.default", Operand(0))
LEVELS = RELU.then(Function.of("clamp.default", Operand(0), None, 4.0)).then(Function.of("round.default", Operand(0)))
currents_of = st.lists(st.integers(-48, 48).map(lambda k: k / 32), min_size=10, max_size=10)


def neuron(scheme: Scheme, function: Function = RELU, amplitude: float = 1.0) -> Neuron:
    found = scheme.neuron(function, amplitude=amplitude, wait=0)
    assert not isinstance(found, str), found
    return found


def fired(scheme: Scheme, currents: list[float]) -> list[int]:
    spikes = neuron(scheme)([torch.tensor(currents)[:, None]], {}, inplace=False, final=False).spikes
    return [int(s) for s in spikes.flatten()]


def mended(currents: list[float], pre: int, mend: str) -> list[int]:
    """The two stages in plain Python: thresholds 1, first potential 1/2."""
    tried = oracles.integrate_and_fire(currents[:pre], start=0.5)
    potentials = [0.5 + sum(currents[: t + 1]) - sum(tried[: t + 1]) for t in range(pre)]
    start, end = 0.5, potentials[-1]
    if mend == "srp":
        silent = end < 0
        spikes = [0 if silent else s for s in oracles.integrate_and_fire(currents[pre:], start=start)]
        return [*tried, *spikes]
    if end >= 1:
        below = [v for v, s in zip(potentials, tried, strict=True) if not s]
        start += max(1.0, 1.001 - max(below)) if below else 1.0
    elif end < 0 and any(tried):
        start -= max(1.0, min(v for v, s in zip(potentials, tried, strict=True) if s) + 0.001)
    return [*tried, *oracles.integrate_and_fire(currents[pre:], start=start)]


@settings(deadline=None, max_examples=200)
@given(currents=currents_of, pre=st.integers(1, 6), mend=st.sampled_from(["srp", "cos"]))
def test_steps_before_mend_as_the_papers_say(currents: list[float], pre: int, mend: str) -> None:
    assert fired(QCFS(steps=10 - pre, pre=pre, mend=mend), currents) == mended(currents, pre, mend)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=100)
@given(currents=currents_of)
def test_without_them_neurons_integrate_and_fire(currents: list[float]) -> None:
    assert fired(QCFS(steps=10), currents) == oracles.integrate_and_fire(currents, start=0.5)


@pytest.mark.parametrize("mend", ["srp", "cos"])
def test_what_came_too_early_is_mended(mend: str) -> None:
    """Two spikes early, taken back later: rate coding says a half, the mean input says nothing."""
    early = [1.0, 1.0, -1.0, -1.0]
    plain, with_steps = Rate(steps=4), QCFS(steps=4, pre=4, mend=mend)  # type: ignore[arg-type]
    assert fired(plain, early) == [1, 1, 0, 0]
    said = fired(with_steps, early * 2)[4:]
    assert sum(said) < 2 and (sum(said) == 0) == (mend == "srp")


@settings(deadline=None, max_examples=100)
@given(x=st.floats(-3, 12, width=32), bound=st.sampled_from([1.0, 2.5, 8.0]), levels=st.sampled_from([1, 4, 8, 32]))
def test_the_activation_is_the_sources_formula(x: float, bound: float, levels: int) -> None:
    scaled = x * levels / bound
    if abs(scaled - math.floor(scaled) - 0.5) < 1e-3:
        return  # between two levels: to the even one, in place of the upper one
    want = bound * min(max(math.floor(scaled + 0.5) / levels, 0), 1)
    for mode in (True, False):
        layer = activations.QCFS(levels=levels, bound=bound).train(mode)
        assert layer(torch.tensor([x])).item() == pytest.approx(want, abs=1e-5 * bound)


def test_its_gradients_are_those_without_rounding() -> None:
    layer, x = activations.QCFS(levels=4, bound=2.0), torch.tensor([-1.0, 0.7, 5.0], requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0, 1, 0]
    # LSQ's: (y - x) / bound inside, 1 above.
    assert layer.bound.grad is not None
    assert layer.bound.grad.item() == pytest.approx((y[1].item() - 0.7) / 2 + 1)


def test_only_it_says_the_levels_of_a_rounded_clip() -> None:
    scheme = QCFS(steps=4)
    assert scheme.given(LEVELS) == 4 and scheme.given(RELU) is None
    x = torch.tensor([-1.0, 0.3, 1.6, 3.4, 7.0])
    say = neuron(scheme, LEVELS, 4.0)([injected(scheme, x / 4)], {}, inplace=False, final=False).spikes
    assert (decode(scheme, say) * 4).tolist() == [0, 0, 2, 3, 4]
    for other in (Rate(), FS(), TTFS()):
        assert "relu + clamp + round" in str(other.neuron(LEVELS, amplitude=4.0, wait=0))


def test_a_network_of_levels_is_said_exactly_where_input_comes_evenly() -> None:
    """One hidden layer: as many steps as levels give the network's own values, whatever the bound."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 20), activations.QCFS(levels=8, bound=0.7), nn.Linear(20, 3)).eval()
    x = torch.rand(40, 6)
    snn = transpike.convert(net, x, scheme=QCFS(steps=8))
    torch.testing.assert_close(snn(x), net(x).detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(snn.analog(x), net(x).detach(), atol=1e-5, rtol=1e-5)
    assert snn.latency == 8
    assert transpike.convert(net, x, scheme=QCFS(steps=8, pre=4)).latency == 12
    with pytest.raises(ConversionError, match="round has no neuron in this scheme"):
        transpike.convert(net, x, scheme=Rate())


def test_errors_of_its_layers_reach_the_output_through_the_rounding() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 20), activations.QCFS(bound=0.7), nn.Linear(20, 20), activations.QCFS(bound=0.5)]
    net, x = nn.Sequential(*layers, nn.Linear(20, 3)).eval(), torch.rand(40, 6)
    rows = transpike.convert(net, x, scheme=QCFS(steps=3)).diagnose(x).rows
    assert len(rows) == 3 and all(row.caused.total > 0 for row in rows[1:])


def test_settings() -> None:
    with pytest.raises(ConfigError, match=r"mend='cso'.*Did you mean 'cos'"):
        QCFS(mend="cso")  # type: ignore[arg-type]
    assert json.dumps(dict(QCFS(pre=4).words)) == '{"pre": "4 steps before", "mend": "SRP"}'
    assert QCFS(pre=4, mend="cos").label == "QCFS COS 4"
