"""Each scheme's neuron against an oracle that shares no code with it, and what only that scheme promises."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.coding import oracles
from torch import Tensor

from transpike import CSS
from transpike.coding import FS, Rate, Scheme, scheme_settings
from transpike.coding.function import Function, Operand
from transpike.coding.scheme import decode, injected
from transpike.errors import ConfigError
from transpike.neurons.tsa import Code, Tracked, track

RELU = Function.of("relu.default", Operand(0))
RELU6 = RELU.then(Function.of("clamp.default", Operand(0), None, 6.0))
eighths = st.integers(-40, 40).map(lambda k: k / 8)


def fire(scheme: Scheme, z: Tensor, function: Function = RELU, *, amplitude: float = 1.0) -> Tracked:
    neuron = scheme.neuron(function, amplitude=amplitude, wait=scheme.wait)
    assert not isinstance(neuron, str), neuron
    return neuron([z], {}, inplace=False, final=True)


def column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values)[:, None]


@settings(deadline=None, max_examples=200)
@given(
    currents=st.lists(eighths, min_size=1, max_size=6),
    beta=st.sampled_from([1.5, 2.0]),
    silent=st.integers(0, 3),
    levels=st.sampled_from([(1,), (1, 2), (1, 2, 4, 8), tuple(range(1, 17))]),
)
def test_css_fires_as_its_equation_says(
    currents: list[float], beta: float, silent: int, levels: tuple[int, ...]
) -> None:
    scheme = CSS(steps=len(currents), beta=beta, silent=silent, levels=levels, amplitude="layer")
    for function, plain in ((RELU, lambda a: max(a, 0.0)), (RELU6, lambda a: min(max(a, 0.0), 6.0))):
        expected = oracles.css(currents, plain, beta=beta, silent=silent, levels=levels)
        assert fire(scheme, column(currents), function).spikes.flatten().tolist() == expected


@settings(deadline=None, max_examples=200)
@given(currents=st.lists(eighths.map(lambda z: z / 4), min_size=1, max_size=12), start=st.sampled_from([0.0, 0.5]))
def test_rate_neurons_integrate_and_fire(currents: list[float], start: float) -> None:
    spikes = fire(Rate(steps=len(currents), start=start), column(currents)).spikes.flatten().tolist()
    assert spikes == oracles.integrate_and_fire(currents, start=start)


@settings(deadline=None, max_examples=200)
@given(currents=st.lists(eighths, min_size=1, max_size=10))
def test_few_spikes_are_the_binary_digits(currents: list[float]) -> None:
    fired = fire(FS(steps=len(currents)), column(currents))
    assert fired.spikes.flatten().tolist() == oracles.few_spikes(currents)


@settings(deadline=None, max_examples=200)
@given(
    values=st.lists(st.integers(-200, 200).map(lambda k: k / 8), min_size=1, max_size=4),
    levels=st.sampled_from([(1,), (1, 2, 4, 8), (1, 3), tuple(range(1, 17))]),
    start=st.sampled_from([None, 0.0, 0.25, 0.5]),
)
def test_unsigned_digits_are_rounded_as_the_start_says(
    values: list[float], levels: tuple[int, ...], start: float | None
) -> None:
    """One step, no wait: the digit of the value itself; a digit k above j is fired from ``k - start (k - j)`` on."""
    share = start or 0.0
    gaps = dict(zip(levels, (0, *levels), strict=False))
    code = Code(steps=1, beta=2.0, silent=0, levels=levels, signed=False, start=start)
    fired = track(torch.tensor([values]), code=code).spikes.flatten().tolist()
    expected = [max((k for k in levels if v >= k - share * (k - gaps[k])), default=0) for v in values]
    assert fired == expected
    if not share:
        assert fired == [oracles.below(max(v, 0.0), levels) for v in values]


@pytest.mark.parametrize("start", [0.0, 0.5])
def test_a_constant_current_is_told_to_one_spike(start: float) -> None:
    x = torch.linspace(-0.5, 1.2, 400)
    for steps in (4, 16, 64):
        scheme = Rate(steps=steps, start=start)
        error = decode(scheme, fire(scheme, injected(scheme, x)).spikes) - x.clamp(0, 1)
        low, high = (-0.5, 0.5) if start else (-1.0, 0.0)
        assert (error * steps).min() >= low - 1e-4 and (error * steps).max() <= high + 1e-4


def test_a_bias_enters_the_few_spikes_code_at_its_first_step() -> None:
    scheme = FS(steps=4)
    assert scheme.entry == (2.0, 0.0, 0.0, 0.0)
    assert injected(scheme, torch.tensor([0.75])).flatten().tolist() == [1.5, 0.0, 0.0, 0.0]
    assert fire(scheme, injected(scheme, torch.tensor([0.8125, 2.0, -1.0]))).spikes.T.tolist() == [
        [1, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0],
    ]  # fmt: skip


def test_residual_and_target_are_in_units_of_theta() -> None:
    for scheme in (Rate(steps=8), FS(steps=5)):
        fired = fire(scheme, injected(scheme, torch.tensor([0.3, 1.7])))
        assert fired.target is not None and fired.residual is not None
        assert torch.allclose(fired.target, torch.tensor([0.3, 1.7]), atol=1e-6)
        assert torch.allclose(fired.target - fired.residual, decode(scheme, fired.spikes), atol=1e-6)


def test_a_bound_is_a_real_value_whatever_the_amplitude() -> None:
    for scheme in (Rate(steps=64), FS(steps=8), CSS(steps=8, silent=2, amplitude="layer")):
        theta = 10 / scheme.full
        x = torch.tensor([3.0, 7.0, 9.0])
        said = decode(scheme, fire(scheme, injected(scheme, x / theta), RELU6, amplitude=theta).spikes) * theta
        assert torch.allclose(said, torch.tensor([3.0, 6.0, 6.0]), atol=0.1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Rate(steps=0), "steps=0: expected a whole number of at least 1"),
        (lambda: Rate(start=0.7), r"start=0\.7: expected a number in \[0, 0\.5\]"),
        (lambda: Rate(percentile=101), r"percentile=101: expected a number in \(0, 100\]"),
        (lambda: FS(steps=25), "steps=25: expected a whole number from 1 to 24"),
    ],
)
def test_values_outside_their_range(make: object, words: str) -> None:
    assert callable(make)
    with pytest.raises(ConfigError, match=words):
        make()


def test_a_scheme_without_a_name_is_told_how_to_get_one() -> None:
    class Own(Rate):
        pass

    with pytest.raises(ConfigError, match=r"Own has no name.*transpike\.coding\.SCHEMES\['own'\] = Own"):
        scheme_settings(Own())
