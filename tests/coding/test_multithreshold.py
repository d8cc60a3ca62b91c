"""H-MT neurons and their thresholds against the paper's equations in plain Python."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

import transpike
from transpike.coding import Differential, MultiThreshold, Quantised
from transpike.coding.function import Function, Operand
from transpike.coding.normal import best_peak
from transpike.coding.scheme import Scheme, decode, injected
from transpike.conversion import prepare
from transpike.errors import ConfigError, ConversionError

RELU = Function.of("relu.default", Operand(0))
eighths = st.integers(-400, 400).map(lambda k: k / 8)


def fired(scheme: Scheme, z: torch.Tensor, function: Function = RELU) -> torch.Tensor:
    neuron = scheme.neuron(function, amplitude=1.0, wait=0)
    assert not isinstance(neuron, str), neuron
    return neuron([z], {}, inplace=False, final=False).spikes


class Basal:
    """Eqs. 12 to 18, with the least threshold as the unit."""

    def __init__(self, thresholds: int) -> None:
        self.thresholds, self.membrane = [2.0**k for k in reversed(range(thresholds))], 0.5

    def step(self, current: float) -> float:
        self.membrane += current
        sent = 0.0
        for threshold in self.thresholds:
            if self.membrane >= threshold:
                self.membrane -= threshold
                sent += threshold
        return sent


def pos(currents: list[float], n: int) -> list[float]:
    neuron = Basal(n)
    return [neuron.step(z) for z in currents]


def pair(currents: list[float], n: int) -> list[float]:
    """A Pos and a Neg neuron with communication, Eq. 21."""
    positive, negative, out = Basal(n), Basal(n), []
    for z in currents:
        p, q = positive.step(z), negative.step(-z)
        positive.membrane += q
        negative.membrane += p
        assert p == 0 or q == 0
        assert positive.membrane + negative.membrane == 1  # Lemma 4.1
        out.append(p - q)
    return out


@settings(deadline=None, max_examples=300)
@given(currents=st.lists(eighths, min_size=1, max_size=8), n=st.integers(1, 8))
def test_a_pos_neuron_passes_its_thresholds_the_highest_first(currents: list[float], n: int) -> None:
    scheme = MultiThreshold(steps=len(currents), thresholds=n)
    assert fired(scheme, torch.tensor(currents)[:, None]).flatten().tolist() == pos(currents, n)


@settings(deadline=None, max_examples=300)
@given(currents=st.lists(eighths, min_size=1, max_size=8), n=st.integers(1, 8))
def test_an_identity_is_a_pair_with_communication(currents: list[float], n: int) -> None:
    scheme = MultiThreshold(steps=len(currents), thresholds=n, signed=True)
    z = torch.tensor(currents)[:, None]
    assert fired(scheme, z, Function()).flatten().tolist() == pair(currents, n)
    assert fired(scheme, z).flatten().tolist() == pos(currents, n)  # a ReLU stays a Pos neuron


@settings(deadline=None, max_examples=200)
@given(value=st.integers(-4000, 4000).map(lambda k: k / 16), steps=st.sampled_from([1, 2, 4, 8]), n=st.integers(1, 8))
def test_a_constant_is_told_as_equation_20_says(value: float, steps: int, n: int) -> None:
    scheme = MultiThreshold(steps=steps, thresholds=n)
    told = decode(scheme, fired(scheme, injected(scheme, torch.tensor([value]))))
    top = (2**n - 1) * steps
    assert float(told) == min(max(math.floor(value * steps + 0.5), 0), top) / steps


def test_one_step_is_the_quantised_network_and_another_neuron_is_not() -> None:
    z = torch.tensor([[5.0, 96.0, 7.7], [-2.0, 1.0, -9.0]])
    assert fired(MultiThreshold(steps=2), z).tolist() == [[5, 96, 8], [0, 1, 0]]
    assert torch.equal(fired(MultiThreshold(steps=1), z[:1]), fired(Quantised(signed=False), z[:1]))
    assert fired(Differential(steps=2), z).tolist() != [[5, 96, 8], [0, 1, 0]]


# -- thresholds --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("levels", "step"), [(1, 1.224), (2, 0.8430), (3, 0.6508), (4, 0.5338), (5, 0.4546)])
def test_the_best_peak_of_a_centred_normal_is_that_of_max(levels: int, step: float) -> None:
    """J. Max, "Quantizing for minimum distortion" (1960), Table II: equal steps, 3, 5, 7, 9 and 11 outputs."""
    one = torch.ones(1, dtype=torch.float64)
    for signed in (True, False):  # by symmetry, half the distribution has the same best step
        assert float(best_peak(0 * one, one, levels=levels, signed=signed)) / levels == pytest.approx(step, abs=2e-3)


def expected_error(peak: float, mean: float, deviation: float, levels: int, signed: bool) -> float:
    unit = peak / levels
    edges = [(k + 0.5) * unit for k in range(-levels if signed else 0, levels)]
    density = stats.norm(mean, deviation)

    def told(x: float) -> float:
        return min(max(math.floor(x / unit + 0.5), -levels if signed else 0), levels) * unit

    bounds = [-math.inf if signed else 0.0, *edges, math.inf]
    return sum(
        integrate.quad(lambda x: (told(x) - x) ** 2 * density.pdf(x), max(a, mean - 9 * deviation), b if b < math.inf
                       else max(a, mean) + 9 * deviation)[0]
        for a, b in pairwise(bounds)
    )  # fmt: skip


@pytest.mark.parametrize(("mean", "deviation", "levels", "signed"), [
    (0.4, 1.0, 3, False), (-1.0, 2.0, 7, False), (0.3, 0.5, 4, True), (-2.0, 1.0, 15, False),
])  # fmt: skip
def test_the_best_peak_makes_the_expected_error_least(mean: float, deviation: float, levels: int, signed: bool) -> None:
    found = float(best_peak(*(torch.tensor([x], dtype=torch.float64) for x in (mean, deviation)), levels=levels,
                            signed=signed))  # fmt: skip
    least = optimize.minimize_scalar(
        lambda peak: expected_error(peak, mean, deviation, levels, signed), bounds=(found / 3, found * 3),
        method="bounded",
    )  # fmt: skip
    assert found == pytest.approx(least.x, rel=2e-3)


def test_thresholds_come_from_what_each_channel_hears() -> None:
    torch.manual_seed(0)
    ann = torch.nn.Sequential(torch.nn.Linear(16, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2)).eval()
    with torch.no_grad():
        ann[0].bias.copy_(torch.tensor([0.0, -1.0, 5.0]))
    images = torch.randn(4096, 16)
    heard = ann[0](images).double()
    for amplitude in ("channel", "layer"):
        scheme = MultiThreshold(steps=2, thresholds=4, amplitude=amplitude)  # type: ignore[arg-type]
        theta = transpike.convert(ann, images[:512], scheme=scheme).amplitude("1")
        sample = heard[:512]
        mean, deviation = (sample.mean(0), sample.std(0, correction=0)) if amplitude == "channel" else (
            sample.mean(), sample.std(correction=0))  # fmt: skip
        peak = best_peak(mean, deviation, levels=30, signed=False)
        torch.testing.assert_close(theta.double().flatten(), peak.flatten() / 15, rtol=1e-4, atol=0)


def test_a_channel_that_never_varies_gets_the_floor() -> None:
    zero = torch.zeros(1, dtype=torch.float64)
    assert best_peak(zero, zero, levels=3, signed=False).isnan().all()
    assert best_peak(zero - 1e3, zero + 1, levels=3, signed=False).isnan().all()
    ann = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2)).eval()
    with torch.no_grad():
        ann[0].weight[1] = 0
        ann[0].bias[1] = -1
    snn = transpike.convert(ann, torch.rand(64, 4), scheme=MultiThreshold())
    theta = snn.amplitude("1").flatten()
    assert float(theta[1]) == pytest.approx(float(theta.max()) / 64)


def test_a_bounded_relu_takes_an_amplitude_a_channel() -> None:
    torch.manual_seed(0)
    ann = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU6(), torch.nn.Linear(16, 2)).eval()
    with torch.no_grad():
        ann[0].weight *= 6
    images = torch.rand(256, 4)
    snn = prepare(ann, images).convert(MultiThreshold(steps=4))
    assert (snn(images) - ann(images)).abs().max() < 0.05


def test_what_it_refuses() -> None:
    ann = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LeakyReLU(0.1), torch.nn.Linear(3, 2)).eval()
    images = torch.randn(64, 4)
    with pytest.raises(ConversionError, match=r"only functions that are never negative.*use signed=True"):
        transpike.convert(ann, images, scheme=MultiThreshold())
    snn = transpike.convert(ann, images, scheme=MultiThreshold(signed=True, percentile=100))
    assert (snn(images) - ann(images)).abs().max() < 0.05
    for settings_, words in (
        ({"thresholds": 9}, "thresholds=9: expected a whole number from 1 to 8"),
        ({"signed": 1}, "signed=1"),
        ({"percentile": 0}, "percentile=0"),
        ({"amplitude": "row"}, "amplitude"),
    ):
        with pytest.raises(ConfigError, match=words):
            MultiThreshold(**settings_)  # type: ignore[arg-type]
