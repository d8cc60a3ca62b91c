"""Spectra of maps, logits and membranes, against SciPy, NumPy and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import freqz
from spikingjelly.activation_based import neuron as jelly
from torch import nn

from transpike.errors import ConfigError, DataError, ModelError
from transpike.metrics.spectrum import (
    RadialSpectrum,
    full_plane,
    leak,
    membrane_gain,
    membrane_response,
    sort_logits,
    spike_spectrum,
)
from transpike.neurons import DCTLIFNode, IFNode, LIFNode, ParametricLIFNode, TSANode


def test_white_noise_is_flat() -> None:
    spectrum = RadialSpectrum()
    for _ in range(2):
        spectrum.update(3 + 2 * torch.randn(500, 2, 16, 16))
    assert spectrum.frequency.tolist() == [k / 16 for k in range(1, 9)]
    torch.testing.assert_close(spectrum.power, torch.full((8,), 4.0, dtype=torch.float64), rtol=0.05, atol=0)
    assert spectrum.variance == pytest.approx(4 * 255 / 256, rel=0.01)  # around each map's own mean
    fy, fx = np.meshgrid(np.fft.fftfreq(16), np.fft.fftfreq(16))
    assert spectrum.share_above(0.25) == pytest.approx((np.hypot(fy, fx) > 0.25).sum() / 255, abs=0.01)


@given(st.integers(4, 17), st.integers(1, 8), st.booleans())
def test_a_wave_is_in_its_own_ring(side: int, cycles: int, upright: bool) -> None:
    cycles = min(cycles, side // 2)
    wave = torch.cos(2 * math.pi * cycles * torch.arange(side) / side).expand(side, side)
    spectrum = RadialSpectrum()
    spectrum.update((wave.T if upright else wave)[None] - 5)
    assert len(spectrum.power) == side // 2
    assert int(spectrum.power.argmax()) == cycles - 1
    assert float(spectrum.power[cycles - 1]) / float(spectrum.power.sum()) > 1 - 1e-6
    assert float(spectrum.frequency[cycles - 1]) == pytest.approx(cycles / side)


@given(st.integers(1, 9), st.integers(1, 9))
def test_any_size_keeps_all_power(height: int, width: int) -> None:
    maps = torch.randn(3, 2, height, width)
    spectrum = RadialSpectrum()
    spectrum.update(maps)
    assert spectrum.variance == pytest.approx(float(maps.var((-2, -1), unbiased=False).mean()), abs=1e-5)
    assert len(spectrum.power) == len(spectrum.frequency) == min(height, width) // 2
    assert spectrum.share_above(0.0) == pytest.approx(1.0 if height * width > 1 else 0.0)


def test_batches_are_one_whole() -> None:
    maps = torch.randn(7, 3, 6, 10)
    whole, parts = RadialSpectrum(), RadialSpectrum()
    whole.update(maps)
    for part in maps.split([2, 5]):
        parts.update(part)
    torch.testing.assert_close(whole.power, parts.power)
    with pytest.raises(DataError, match=r"\[6, 6\] after maps of \[6, 10\]"):
        whole.update(maps[..., :6])
    with pytest.raises(DataError, match="no maps"):
        _ = RadialSpectrum().power


@given(st.integers(1, 9), st.integers(1, 9))
def test_half_a_spectrum_tells_all(height: int, width: int) -> None:
    maps = np.random.default_rng(height * 10 + width).standard_normal((2, height, width))
    half = torch.from_numpy(np.abs(np.fft.rfft2(maps)))
    whole = np.fft.fftshift(np.abs(np.fft.fft2(maps)), axes=(-2, -1))
    np.testing.assert_allclose(full_plane(half, width=width).numpy(), whole, atol=1e-9)


def test_logits_are_sorted_as_the_teachers() -> None:
    teacher, student = torch.randn(5, 11), torch.randn(5, 11)
    order = np.argsort(-teacher.numpy(), axis=-1)
    expected = np.take_along_axis(student.numpy(), order, -1)
    torch.testing.assert_close(
        sort_logits(student + 3, teacher), torch.from_numpy(expected - expected.mean(-1, keepdims=True))
    )
    assert (sort_logits(teacher, teacher).diff(dim=-1) <= 0).all()


@pytest.mark.parametrize(("decay", "gain"), [(0.5, 0.5), (0.9, 1.0), (1.0, 1.0)])
def test_the_gain_is_that_of_the_filter(decay: float, gain: float) -> None:
    frequency = np.linspace(0.01, 0.5, 50)
    _, response = freqz([gain], [1, -decay], worN=2 * np.pi * frequency)
    ours = membrane_gain(torch.from_numpy(frequency), decay=decay, gain=gain)
    np.testing.assert_allclose(ours.numpy(), np.abs(response), rtol=1e-9)


def test_equation_three_at_its_ends() -> None:
    ends = membrane_gain(torch.tensor([0.0, 0.5], dtype=torch.float64), decay=0.75, gain=0.25)
    assert ends.tolist() == pytest.approx([1.0, 0.25 / 1.75])


NODES = {
    "lif": LIFNode(tau=4.0),
    "lif_raw_input": LIFNode(tau=2.0, decay_input=False, v_threshold=0.5),
    "lif_soft": LIFNode(tau=3.0, v_reset=None),
    "lif_reset_below": LIFNode(tau=3.0, v_reset=-1.0),
    "if": IFNode(),
    "if_reset_below": IFNode(v_reset=-0.5),
    "parametric": ParametricLIFNode(init_tau=5.0),
    "dct": DCTLIFNode(leak=0.99),
    "tsa_of_beta_one": TSANode(beta=1.0),
    "jelly_lif": jelly.LIFNode(tau=4.0, step_mode="m"),
    "jelly_if": jelly.IFNode(),
    "jelly_parametric": jelly.ParametricLIFNode(init_tau=4.0),
}


@pytest.mark.parametrize("name", NODES)
def test_membranes_follow_their_gain(name: str) -> None:
    measured = membrane_response(NODES[name], period=64)
    assert measured.frequency.tolist() == [k / 64 for k in range(1, 33)]
    torch.testing.assert_close(measured.amplitude, measured.expected, rtol=1e-3, atol=0)
    torch.testing.assert_close(measured.power, measured.expected.square(), rtol=1e-3, atol=0)


def test_a_lif_is_a_low_pass_and_its_power_the_square() -> None:
    measured = membrane_response(LIFNode(tau=4.0))
    beta, omega = 0.75, 2 * np.pi * measured.frequency.double().numpy()
    np.testing.assert_allclose(measured.amplitude, (1 - beta) / np.abs(1 - beta * np.exp(-1j * omega)), rtol=1e-6)
    assert (measured.amplitude.diff() < 0).all()
    # Were the membrane's amplitude |H|^2, as the paper's Eq. 4 can be read, it would be half of this at 1/2.
    assert float(measured.amplitude[-1]) == pytest.approx(1 / 7)


def test_the_node_itself_is_left_alone() -> None:
    node = LIFNode(step_mode="s")
    node(torch.full((2,), 0.5))
    before = node.v.clone()
    membrane_response(node, period=8)
    spike_spectrum(node, period=8, trials=4)
    assert torch.equal(node.v, before) and node.step_mode == "s" and not node.store_v_seq


def test_leaks_are_read_off() -> None:
    assert leak(jelly.LIFNode(tau=4.0)) == (0.75, 0.25)
    assert leak(jelly.LIFNode(tau=4.0, decay_input=False)) == (0.75, 1.0)
    assert leak(jelly.IFNode()) == (1.0, 1.0)
    assert leak(DCTLIFNode(leak=0.9)) == pytest.approx((0.9, 0.9))
    with pytest.raises(ModelError, match="ReLU is no integrate-and-fire neuron"):
        leak(nn.ReLU())
    with pytest.raises(ConfigError, match="amplifies its membrane"):
        membrane_response(TSANode(beta=2.0))


def test_spikes_of_noise_without_memory_are_white() -> None:
    """A neuron that forgets everything (tau near 1) fires as its noise does: flat spectrum, a Gaussian's rate."""
    _, power, rate = spike_spectrum(LIFNode(tau=1 + 1e-6), period=64, trials=4000)
    # Driven at 1.2 (1 + noise / 2): above 1 where the noise is above -1/3.
    assert rate == pytest.approx(0.5 * (1 + math.erf(1 / 3 / math.sqrt(2))), abs=0.01)
    torch.testing.assert_close(power, torch.ones(32), rtol=0.1, atol=0)


def test_a_reset_makes_spikes_regular() -> None:
    """Soft reset carries the rest over: an integrator's train has little power at low frequencies."""
    _, power, rate = spike_spectrum(IFNode(v_reset=None), period=64)
    assert rate == pytest.approx(0.5, abs=0.01)
    assert float(power[:4].mean()) < 0.6 < float(power[-4:].mean())


def test_a_neuron_that_hardly_leaks_is_driven_as_an_integrator() -> None:
    _, power, rate = spike_spectrum(DCTLIFNode(), period=64)
    assert 0.3 < rate < 0.6
    assert power.max() > 1.5 * power.min()
