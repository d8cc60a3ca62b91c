"""Computes amplitudes (theta) from the distributions of activations, one for each layer or one for each channel."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import torch
from torch import Tensor

from transpike.checks import choice, number, whole
from transpike.moments import Moments
from transpike.quantiles import ChannelQuantiles, Quantiles

__all__ = ["Calibration", "Percentile", "Seen"]

Amplitude = TypeVar("Amplitude", float, Tensor)

_RESIDUAL = 99.9
_FLOOR = 2**-6
_SEEN = 4  # values of a channel up to which it takes the layer's amplitude
_SHARES = tuple(2 ** (-k / 4) for k in range(17))


@dataclass(frozen=True)
class Seen:
    """The statistics that calibration collects for one layer, or for the input.

    Attributes:
        values: the distribution of |activation|.
        channels: the same for each channel. None if no axis counts channels.
        heard: mean and variance of the function's argument, for each channel or for all values together. None if the
            function is neither a ReLU nor an identity.
        signed: whether the function passes on negative arguments, as an identity does.
    """

    values: Quantiles
    channels: ChannelQuantiles | None = None
    heard: Moments | None = None
    signed: bool = False

    def share_above(self, value: Tensor) -> float:
        """Return the share of the magnitudes that exceed ``value``, [] or [channels]."""
        if value.ndim == 0 or self.channels is None:
            return self.values.share_above(float(value))
        return self.channels.share_above(value)


class Calibration(Protocol):
    """Computes amplitudes from the statistics of the calibration images."""

    def amplitudes(
        self,
        seen: Mapping[str, Seen],
        *,
        full: float,
        largest: float,
        residuals: Callable[[Mapping[str, Tensor]], Mapping[str, Quantiles]],
    ) -> dict[str, Tensor]:
        """Return theta of the input and of every layer of neurons, by name: [], or [channels] if by channel.

        Args:
            seen: the statistics of each layer, by name.
            full: `Scheme.full`.
            largest: the largest value that a train can represent, in units of theta.
            residuals: a function that runs the network with given amplitudes on the calibration images. It returns the
                distribution of each layer's |residual| in units of theta.
        """


@dataclass(frozen=True, kw_only=True)
class Percentile:
    """Sets the amplitudes so that the full value of a train is a percentile of |activation|, by layer or by channel.

    The full value of the input is its maximum. If a layer or channel is so sparse that its percentile is 0, its maximum
    is used. A layer that is always 0 gets 1, with a warning, because nothing is known about the values it could have. A
    channel's amplitude is at least a 64th of the largest amplitude of its layer. In a layer of neurons it is at least
    4 / n of it, where n values were not 0, because new images often exceed the largest of few values. In a channel that
    is mostly 0, n is the number of images that excite it.

    A channel has fewer values than its layer, so new images exceed its maximum more often. Therefore the maximum is
    extrapolated to as many values as the layer has, for a distribution that falls exponentially. A percentile is
    extrapolated in the same way if a channel has too few values for it.

    Args:
        percentile: in (0, 100]. 100 is the maximum. ``"fit"`` takes the value that minimises the squared error of a
            decoded activation: the clipped part, and half a unit of the last digit.
        adjustments: how often to enlarge the amplitudes by the residuals of the converted network (CSS, Appendix A.3).
        per: ``"layer"`` or ``"channel"``.
        unit: the value of the last digit, in units of theta.

    Raises:
        ConfigError: A value is outside its range.
    """

    percentile: float | Literal["fit"] = 99.99
    adjustments: int = 0
    per: Literal["layer", "channel"] = "layer"
    unit: float = 1.0

    def __post_init__(self) -> None:
        if self.percentile != "fit":
            number("percentile", self.percentile, above=0, most=100)
        whole("adjustments", self.adjustments, least=0)
        choice("amplitude", self.per, ("layer", "channel"))

    def amplitudes(
        self,
        seen: Mapping[str, Seen],
        *,
        full: float,
        largest: float,
        residuals: Callable[[Mapping[str, Tensor]], Mapping[str, Quantiles]],
    ) -> dict[str, Tensor]:
        """See `Calibration`."""
        peaks = {name: self._peaks(name, each, full, largest) for name, each in seen.items()}
        dead = [name for name, peak in peaks.items() if not peak.any()]
        if dead:
            warnings.warn(
                f"no calibration image activates {', '.join(dead)}: every activation there is 0. The amplitude is set "
                "for values up to 1. Check the calibration images, or remove the layer.",
                stacklevel=3,
            )
        amplitudes = {name: (peak if peak.any() else torch.ones_like(peak)) / full for name, peak in peaks.items()}
        for _ in range(self.adjustments):
            for name, missed in residuals(amplitudes).items():
                amplitudes[name] = adjusted(amplitudes[name], missed.quantile(_RESIDUAL), full)
        return amplitudes

    def _peaks(self, name: str, seen: Seen, full: float, largest: float) -> Tensor:
        """Return the full values of the trains in float64, or 0 where the calibration images gave only zeros."""
        if self.per == "channel" and seen.channels is not None:
            peaks = self._of_channels(name, seen.channels, full, largest)
            most = peaks.max()  # also of channels never excited: a small unit would follow what only seems to come
            floor = torch.tensor(_FLOOR, dtype=torch.float64)
            if name != "input":  # the largest of few values says little: new ones often exceed it, by however much
                floor = (_SEEN / seen.channels.informative().clamp_min(_SEEN).double()).clamp_min(_FLOOR)
            return torch.where(peaks > 0, torch.maximum(peaks, most * floor), most)
        if self.percentile == "fit" and name != "input":
            return _fitted(*seen.values.histogram(), seen.values.maximum, full, largest, self.unit)
        peak = seen.values.quantile(100 if name == "input" or self.percentile == "fit" else self.percentile)
        return torch.tensor(peak or seen.values.quantile(100), dtype=torch.float64)

    def _of_channels(self, name: str, channels: ChannelQuantiles, full: float, largest: float) -> Tensor:
        maxima = _expected(channels)
        if name == "input" or self.percentile == 100:
            return maxima
        if self.percentile == "fit":
            values, counts = channels.histogram()
            pairs = zip(counts, maxima, strict=True)
            return torch.stack([_fitted(values, of, float(most), full, largest, self.unit) for of, most in pairs])
        rare = 1 - self.percentile / 100
        if channels.count * rare >= 1:
            quantiles = channels.quantile(self.percentile).double()
            return torch.where(quantiles > 0, quantiles, maxima)
        return torch.minimum(_carried(channels, 1 / rare), maxima)


def _expected(channels: ChannelQuantiles) -> Tensor:
    """Return a maximum for each channel that new images exceed as rarely as they exceed the layer's maximum."""
    return _carried(channels, channels.count * len(channels.maximum)).clamp_max(float(channels.maximum.max()))


def _carried(channels: ChannelQuantiles, values: float) -> Tensor:
    """Return the expected maxima of so many ``values`` of each channel, if the distributions fall exponentially."""
    return channels.maximum.double() * max(math.log(values) / math.log(max(channels.count, 2)), 1)


def _fitted(values: Tensor, counts: Tensor, maximum: float, full: float, largest: float, unit: float) -> Tensor:
    """Return the peak with the least squared error (clipping and last digit) among 17 candidates up to the maximum."""
    values, counts = values.double(), counts.double()
    peaks = torch.tensor(_SHARES, dtype=torch.float64) * maximum
    missed = (values - peaks[:, None] * (largest / full)).clamp_min(0).square() @ counts
    active = counts[values > 0].sum()
    return peaks[(missed + (peaks * (unit / full)).square() / 12 * active).argmin()]


def adjusted(amplitude: Amplitude, residual: float, full: float) -> Amplitude:
    """Enlarge an amplitude by Eq. A18 of CSS, in units of theta.

    The first branch is raised by 0.03, so that the three branches meet. As printed in the paper, the growth falls from
    0.08 to 0.05 where the excess over theta passes 0.05 of ``full``.

    Example:
        >>> adjusted(2.0, 1.0, 255), adjusted(2.0, 1 + 255 * 0.2, 255)
        (2.0, 2.46)
    """
    excess = (residual - 1) / full
    if excess <= 0:
        return amplitude
    growth = 4 * excess if excess <= 0.01 else excess + 0.03
    return amplitude * (1 + growth)
