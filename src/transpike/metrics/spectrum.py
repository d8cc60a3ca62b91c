"""Frequencies in networks: radial spectra of maps, sorted logits, the response of a leaky neuron."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from transpike.errors import ConfigError, DataError, ModelError
from transpike.spectral.fourier import full_precision

__all__ = [
    "MembraneResponse",
    "RadialSpectrum",
    "full_plane",
    "leak",
    "membrane_gain",
    "membrane_response",
    "sort_logits",
    "spike_spectrum",
]

BLOCKS = 64
"""The largest number of periods before a membrane counts as settled."""


class RadialSpectrum:
    """The mean power of maps by distance from zero frequency, over any number of batches.

    Zero frequency, the maps' mean, is left out. Ring k is at k / n cycles per pixel, with n the maps' smaller side, and
    extends half a ring in both directions. Frequencies beyond 1/2, towards the corners, belong to the last ring.

    Example:
        >>> spectrum = RadialSpectrum()
        >>> stripes = torch.tensor([1.0, 0.0, -1.0, 0.0]).repeat(4, 1)  # a wave of 1/4 cycles per pixel
        >>> spectrum.update(stripes[None] + 7)
        >>> spectrum.frequency.tolist(), spectrum.power.round(decimals=3).tolist(), spectrum.variance
        ([0.25, 0.5], [1.0, 0.0], 0.5)
        >>> spectrum.share_above(0.3)
        0.0
    """

    def __init__(self) -> None:
        self._total: Tensor | None = None
        self._maps = 0

    def update(self, maps: Tensor) -> None:
        """Add maps [*, H, W]. All leading axes are averaged.

        Raises:
            DataError: Their size differs from earlier maps.
        """
        maps = full_precision(maps.detach()).flatten(0, -3)
        power = torch.fft.fft2(maps, norm="ortho").abs().square().double().sum(0).cpu()
        power[0, 0] = 0.0
        if self._total is not None and power.shape != self._total.shape:
            raise DataError(f"maps of {list(power.shape)} after maps of {list(self._total.shape)}: expected one size.")
        self._total = power if self._total is None else self._total + power
        self._maps += len(maps)

    @property
    def plane(self) -> Tensor:
        """The mean power [H, W] at each frequency, in the order of `torch.fft.fft2`. It is 0 at zero frequency."""
        if self._total is None:
            raise DataError("no maps were given, so they have no spectrum: call update first.")
        return self._total / self._maps

    @property
    def variance(self) -> float:
        """The variance of the maps around their own means. By Parseval's theorem it is the mean of `plane`."""
        return float(self.plane.mean())

    @property
    def frequency(self) -> Tensor:
        """The rings' frequencies in cycles per pixel."""
        side = min(self.plane.shape)
        return torch.arange(1, side // 2 + 1) / side

    @property
    def power(self) -> Tensor:
        """The mean power of each ring. For unit white noise it is 1 everywhere."""
        plane, side = self.plane, min(self.plane.shape)
        last = max(side // 2, 1)
        ring = (_radius(plane) * side).round().long().clamp(1, last).flatten()[1:] - 1
        power = plane.flatten()[1:]
        total, count = (power.new_zeros(last).index_add_(0, ring, values) for values in (power, torch.ones_like(power)))
        rings: Tensor = (total / count)[: side // 2]
        return rings

    def share_above(self, cutoff: float = 0.25) -> float:
        """Return the share of the power at frequencies above the cutoff, in cycles per pixel. 0 for constant maps."""
        plane, total = self.plane, self.variance * self.plane.numel()
        return float(plane[_radius(plane) > cutoff].sum()) / total if total else 0.0


def _radius(plane: Tensor) -> Tensor:
    vertical, horizontal = (torch.fft.fftfreq(side, dtype=torch.float64) for side in plane.shape)
    radius: Tensor = (vertical[:, None].square() + horizontal.square()).sqrt()
    return radius


def full_plane(half: Tensor, *, width: int) -> Tensor:
    """Return a real map's magnitudes at all frequencies, zero in the middle, from those of its half spectrum.

    Args:
        half: [*, H, width // 2 + 1], in the order of `torch.fft.rfft2`.
        width: the width of the map.

    Returns:
        [*, H, width], where zero frequency is at (H // 2, width // 2).

    Example:
        >>> full_plane(torch.tensor([[0.0, 1.0, 2.0]]), width=4)
        tensor([[2., 1., 0., 1.]])
    """
    mirrored = half[..., 1 : (width + 1) // 2].flip(-2, -1).roll(1, -2)
    plane: Tensor = torch.fft.fftshift(torch.cat((half, mirrored), -1), dim=(-2, -1))
    return plane


def sort_logits(logits: Tensor, by: Tensor) -> Tensor:
    """Sort logits [N, classes] by descending ``by``, image by image, and subtract each image's mean over classes.

    BSD's Eqs. 12 and 13. A constant on all logits of an image has no meaning.

    Example:
        >>> sort_logits(torch.tensor([[1.0, 5.0, 3.0]]), by=torch.tensor([[0.1, 0.2, 0.7]]))
        tensor([[ 0.,  2., -2.]])
    """
    order = by.argsort(dim=-1, descending=True, stable=True)
    logits = full_precision(logits)
    return (logits - logits.mean(-1, keepdim=True)).gather(-1, order)


def membrane_gain(frequency: Tensor, *, decay: float, gain: float) -> Tensor:
    """Return |H| of a membrane below threshold, u[n] = decay * u[n-1] + gain * i[n].

    |H(f)| = gain / |1 - decay * exp(-2 pi j f)|

    With decay = beta and gain = 1 - beta this is BSD's Eq. 3. With 1 and 1 it is an integrator, infinite at f = 0. The
    membrane's *power* spectrum is |H|^2 times the input's. (BSD's Eq. 4 gives the membrane's spectrum as |H|^2 times
    the input's. Our reading is that this means powers, because it is not true of amplitudes.)

    Args:
        frequency: in cycles per step, from 0 to 1/2.
        decay: the share of the membrane that remains after a step.
        gain: the share of the input that reaches the membrane.

    Example:
        >>> membrane_gain(torch.tensor([0.0, 0.5]), decay=0.5, gain=0.5)
        tensor([1.0000, 0.3333])
    """
    phase = 2 * math.pi * frequency
    return gain / torch.complex(1 - decay * phase.cos(), decay * phase.sin()).abs()


def leak(node: nn.Module) -> tuple[float, float]:
    """Return decay and gain of a neuron's membrane, as in `membrane_gain`, for our neurons and SpikingJelly's.

    Raises:
        ModelError: The neuron is of another library.

    Example:
        >>> from transpike.neurons import IFNode, LIFNode
        >>> leak(LIFNode(tau=4.0)), leak(LIFNode(tau=4.0, decay_input=False)), leak(IFNode())
        ((0.75, 0.25), (0.75, 1.0), (1.0, 1.0))
    """
    neuron: Any = node
    if hasattr(node, "dynamics"):
        dynamics, charge = neuron.dynamics, neuron.charge()
        decay, gain = (dynamics.decay, dynamics.gain) if charge is None else charge.tolist()[:2]
        return float(decay * dynamics.keep), float(gain * dynamics.keep)
    if not hasattr(node, "v_threshold"):
        raise ModelError(f"{type(node).__name__} is no integrate-and-fire neuron of ours or of SpikingJelly's.")
    rate = float(neuron.w.detach().sigmoid()) if hasattr(node, "w") else 1 / getattr(node, "tau", math.inf)
    return 1 - rate, rate if rate and neuron.decay_input else 1.0


@dataclass(frozen=True)
class MembraneResponse:
    """A membrane's response to small inputs.

    Attributes:
        frequency: cycles per step.
        expected: |H| of `membrane_gain`.
        amplitude: the measured amplitude of the membrane for a unit sinusoid. It should equal |H|.
        power: the measured power of the membrane for unit white noise. It should equal |H|^2.
    """

    frequency: Tensor
    expected: Tensor
    amplitude: Tensor
    power: Tensor


def membrane_response(node: nn.Module, *, period: int = 128, seed: int = 0) -> MembraneResponse:
    """Drive a neuron below its threshold with sinusoids and with white noise, and measure its membrane.

    Both inputs are periodic, and the membrane is read after it has settled. So there is no leakage between frequencies,
    and differences from |H| come from the neuron.

    Args:
        node: as in `leak`. A copy is driven.
        period: the period of the inputs in steps. Frequencies are 1 / period to 1/2.
        seed: the seed of the noise.

    Raises:
        ConfigError: The membrane grows by itself (decay above 1).
        ModelError: As for `leak`; or the neuron fires nevertheless.

    Example:
        >>> from transpike.neurons import LIFNode
        >>> measured = membrane_response(LIFNode(tau=2.0), period=8)
        >>> measured.amplitude.round(decimals=4)
        tensor([0.6786, 0.4472, 0.3574, 0.3333], dtype=torch.float64)
        >>> bool((measured.power - measured.expected**2).abs().max() < 1e-6)
        True
    """
    decay, gain = leak(node)
    if decay > 1:
        raise ConfigError(f"{type(node).__name__} amplifies its membrane ({decay:g} per step): it has no response.")
    driven: Any = copy.deepcopy(node).double()
    room = driven.v_threshold - (driven.v_reset or 0.0)
    bins = torch.arange(1, period // 2 + 1)
    expected = membrane_gain(bins.double() / period, decay=decay, gain=gain)
    waves = torch.cos(2 * math.pi * torch.arange(period)[:, None] * bins / period) * (0.1 * room / expected)
    noise = torch.randn(period, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    noise = (noise - noise.mean(0)) * (0.04 * room / expected.square().mean().sqrt())
    drive = torch.cat((waves, noise), 1)
    settling = 1 if decay in (0.0, 1.0) else math.ceil(math.log(1e-10) / math.log(decay) / period)
    blocks = min(max(settling, 1), BLOCKS) + 1
    membrane = _membrane(driven, drive.repeat(blocks, 1))[-period:]
    given, got = (torch.fft.rfft(signal, dim=0)[1:].abs() for signal in (drive, membrane))
    waved = torch.arange(len(bins))
    amplitude = got[waved, waved] / given[waved, waved]
    power = got[:, len(bins) :].square().mean(1) / given[:, len(bins) :].square().mean(1)
    return MembraneResponse(bins / period, expected, amplitude, power)


def _membrane(node: Any, drive: Tensor) -> Tensor:
    """Return the membrane after each step of a drive [T, N] that must not make it fire."""
    node.step_mode, node.store_v_seq = "m", True
    node.reset()
    with torch.no_grad():
        spikes = node(drive)
    if spikes.any():
        raise ModelError(f"{type(node).__name__} fires on a drive below its threshold: its membrane is not linear.")
    membrane: Tensor = node.v_seq
    return membrane


def spike_spectrum(
    node: nn.Module, *, period: int = 128, trials: int = 512, seed: int = 0
) -> tuple[Tensor, Tensor, float]:
    """Return the power spectrum of the spikes of a neuron that noise around a constant drives above its threshold.

    The constant alone would take the membrane to 1.2 times the threshold, and adds at least half the threshold in a
    step. The noise is white, and its standard deviation is half the constant.

    Args:
        node: as in `leak`. A copy is driven.
        period: the steps of a trial.
        trials: the number of spectra to average.
        seed: the seed of the noise.

    Returns:
        Frequencies in cycles per step, and the power there relative to white noise of the same variance (1 if all
        frequencies are equal), both [period // 2]; and spikes per step.

    Example:
        >>> from transpike.neurons import LIFNode
        >>> frequency, power, rate = spike_spectrum(LIFNode(), period=64)
        >>> frequency.shape, 0.2 < rate < 0.5
        (torch.Size([32]), True)
    """
    decay, gain = leak(node)
    driven: Any = copy.deepcopy(node).float()
    driven.step_mode = "m"
    driven.reset()
    mean = float(driven.v_threshold) * max(1.2 * (1 - decay), 0.5) / gain
    noise = torch.randn(2 * period, trials, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        spikes = driven(mean * (1 + 0.5 * noise))[period:]
    power = torch.fft.rfft(spikes - spikes.mean(), dim=0, norm="ortho").abs().square().mean(1)[1:]
    variance = float(spikes.var(unbiased=False))
    frequency = torch.arange(1, period // 2 + 1) / period
    return frequency, power / variance if variance else power, float(spikes.mean())
