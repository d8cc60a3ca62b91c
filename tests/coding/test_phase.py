"""Phase coding against an oracle in plain Python."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transpike.coding import FS, Differential, Phase, PhaseEncoder, Rate
from transpike.coding.function import Function, Operand
from transpike.coding.neuron import SteppingNeuron
from transpike.coding.scheme import Scheme, decode, injected
from transpike.errors import ConfigError

RELU = Function.of("relu.default", Operand(0))
POOL = Function.of("max_pool2d.default", Operand(0), (2, 2))
RELU6 = RELU.then(Function.of("clamp.default", Operand(0), None, 6.0))


def fired(scheme: Scheme, z: torch.Tensor, function: Function = RELU, *, wait: int = 0) -> torch.Tensor:
    neuron = scheme.neuron(function, amplitude=1.0, wait=wait)
    assert not isinstance(neuron, str)
    return neuron([z], {}, inplace=False, final=False).spikes


def phases(currents: list[float], *, period: int) -> list[int]:
    """Kim et al.: each input spike brings weight times phase weight; threshold and reset have the phase's weight."""
    membrane, spikes = Fraction(0), []
    for t, z in enumerate(currents):
        weight = Fraction(1, 2 ** (1 + t % period))
        membrane += weight * Fraction(z)
        fires = membrane >= weight
        membrane -= weight * fires
        spikes.append(int(fires))
    return spikes


@settings(deadline=None, max_examples=300)
@given(data=st.data(), period=st.integers(1, 8), periods=st.sampled_from([1, 2, 4]))
def test_a_neuron_fires_when_its_membrane_has_the_weight_of_the_phase(
    data: st.DataObject, period: int, periods: int
) -> None:
    steps = period * periods
    currents = data.draw(st.lists(st.integers(-24, 24).map(lambda k: k / 8), min_size=steps, max_size=steps))
    scheme = Phase(steps=steps, phases=period)
    assert fired(scheme, torch.tensor(currents)[:, None].double()).flatten().tolist() == phases(currents, period=period)


def test_a_train_of_pixels_is_that_of_the_phase_encoder() -> None:
    """A neuron that has heard a whole value writes its binary digits, as Kim et al. write pixels."""
    pixels = torch.arange(256) / 256
    encoder, scheme = PhaseEncoder(steps=8), Phase(steps=8)
    weights = torch.tensor(scheme.weights)[:, None]
    z = injected(scheme, pixels)
    assert torch.equal(fired(scheme, z, wait=8) * weights, encoder(pixels))
    assert not torch.equal(fired(scheme, z) * weights, encoder(pixels))
    relayed = fired(scheme, encoder(pixels) / weights)  # its input, digit by digit, is passed on as it comes
    assert torch.equal(relayed * weights, encoder(pixels))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), period=st.integers(2, 8))
def test_what_is_missed_of_a_constant_falls_with_the_periods(seed: int, period: int) -> None:
    """At most the weight that one period can hold back."""
    x = torch.rand(64, generator=torch.Generator().manual_seed(seed))
    for periods in (1, 4, 16, 64):
        scheme = Phase(steps=period * periods, phases=period)
        error = decode(scheme, fired(scheme, injected(scheme, x * scheme.full))) - x * scheme.full
        assert error.abs().max() <= 1 / periods + 1e-5


def test_another_schemes_neuron_fires_another_train() -> None:
    z = torch.full((8, 1), 0.7)
    trains = [
        fired(s, z, wait=s.wait or 0).flatten().tolist() for s in (Phase(steps=8, phases=4), FS(steps=8), Rate(steps=8))
    ]
    assert trains[0] == [0, 1, 1, 1, 1, 0, 1, 1] == phases([0.7] * 8, period=4)
    assert len({tuple(train) for train in trains}) == 3


def test_a_bound_is_a_real_value() -> None:
    scheme = Phase(steps=64)
    neuron = scheme.neuron(RELU6, amplitude=10.0, wait=8)
    assert not isinstance(neuron, str)
    z = injected(scheme, torch.tensor([0.3, 0.6, 0.9]))
    said = decode(scheme, neuron([z], {}, inplace=False, final=False).spikes) * 10
    assert torch.allclose(said, torch.tensor([3.0, 6.0, 6.0]), atol=0.2)


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"steps": 12}, r"steps=12: expected whole periods of 8 phases, such as 16\."),
        ({"steps": 0}, "steps=0"),
        ({"phases": 25}, "phases=25: expected a whole number from 1 to 24"),
    ],
)
def test_values_outside_their_range(settings_: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Phase(**settings_)


@pytest.mark.parametrize("scheme", [Phase(steps=32), Differential(steps=32)], ids=["phase", "differential"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("wait", [0, 7])
def test_a_train_comes_in_pieces_to_the_bit(scheme: Phase | Differential, dtype: torch.dtype, wait: int) -> None:
    """Whole in the kernel, in pieces of 5, 20 and 7 steps; a maximum over windows too, and a sample that leaves."""
    z = torch.randn(32, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    for function in (RELU, RELU6, POOL.then(RELU)):
        neuron = scheme.neuron(function, amplitude=0.2, wait=wait)
        assert isinstance(neuron, SteppingNeuron)
        whole = neuron([z.clone()], {}, gains=(0.7,), inplace=False, final=True)
        layer, pieces, before = neuron.begin({}, gains=(0.7,)), [], z.clone()
        for piece in z.split((5, 20, 7)):
            pieces.append(layer([piece], idle=0))
        pieces += [layer([z[:0]], idle=idle) for idle in (wait // 2, wait - wait // 2) if idle]
        assert torch.equal(z, before) and torch.equal(torch.cat(pieces), whole.spikes)
        for got, want in zip(layer.ended(), (whole.residual, whole.target), strict=True):
            assert want is not None and torch.equal(got, want)
        alone = neuron.begin({}, gains=(0.7,))
        both = alone([z[:9]], idle=0)
        alone.rebatch(lambda x, axis: x.index_select(axis, torch.tensor([1])))
        rest = alone([z[9:, 1:]], idle=wait)
        assert torch.equal(torch.cat([both[:, 1:], rest]), whole.spikes[:, 1:])
