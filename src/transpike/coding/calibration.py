"""From the distributions of activations to amplitudes, one a layer or one a channel."""

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
    """What the calibration images say of a layer, or of the input.

    Attributes:
        values: the distribution of |activation|.
        channels: that of each channel; None where no axis counts channels.
        heard: mean and variance of the function's argument, by channel or of all values; None where it is no ReLU and
            no identity.
        signed: whether the function passes on negative arguments, as an identity does.
    """

    values: Quantiles
    channels: ChannelQuantiles | None = None
    heard: Moments | None = None
    signed: bool = False

    def share_above(self, value: Tensor) -> float:
        """The share of the magnitudes that exceed ``value``, [] or [channels]."""
        if value.ndim == 0 or self.channels is None:
            return self.values.share_above(float(value))
        return self.channels.share_above(value)


class Calibration(Protocol):
    """From what the calibration images say to amplitudes."""

    def amplitudes(
        self,
        seen: Mapping[str, Seen],
        *,
        full: float,
        largest: float,
        residuals: Callable[[Mapping[str, Tensor]], Mapping[str, Quantiles]],
    ) -> dict[str, Tensor]:
        """theta of the input and of every neuron layer, by name: [] or, one a channel, [channels].

        Args:
            seen: what the calibration images say of each.
            full: `Scheme.full`.
            largest: the largest value that a train can say, in units of theta.
            residuals: runs a network of given amplitudes on the calibration images, and gives the distribution of
                each layer's |residual| in units of theta.
        """


@dataclass(frozen=True, kw_only=True)
class Percentile:
    """What a train says in full is a percentile of |activation|: of the layer's, or of each channel's.

    Of the input it is the largest. A layer or a channel so sparse that its percentile is 0 is given its maximum. A
    layer that is always 0 gets 1, with a warning, for nothing it could carry is known. A channel's amplitude is at
    least a 64th of the layer's largest. In a layer of neurons it is at least 4 / n of it, where n values were not 0;
    in a channel that mostly is 0, where n images excited it: new images often exceed the largest of few values. A
    channel has fewer values than its layer, so new images exceed its maximum more often: the maximum is extrapolated to
    as many values as the layer has, for a distribution that falls exponentially. Where a channel has too few values for
    its percentile, this is extrapolated likewise.

    Args:
        percentile: in (0, 100]; 100 is the maximum. ``"fit"`` takes the value that makes the squared error of a
            decoded activation least: what is clipped, and half a unit of the last digit.
        adjustments: how often amplitudes are enlarged by the residuals of the converted network (CSS, Appendix A.3).
        per: ``"layer"`` or ``"channel"``.
        unit: what the last digit is worth, in units of theta.

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
                f"no calibration image activates {', '.join(dead)}: every activation is 0. Its amplitude is set for "
                "values up to 1; check the calibration images, or remove the layer",
                stacklevel=3,
            )
        amplitudes = {name: (peak if peak.any() else torch.ones_like(peak)) / full for name, peak in peaks.items()}
        for _ in range(self.adjustments):
            for name, missed in residuals(amplitudes).items():
                amplitudes[name] = adjusted(amplitudes[name], missed.quantile(_RESIDUAL), full)
        return amplitudes

    def _peaks(self, name: str, seen: Seen, full: float, largest: float) -> Tensor:
        """What the trains say in full, in float64; 0 where nothing was seen but zeros."""
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
            found = channels.quantile(self.percentile).double()
            return torch.where(found > 0, found, maxima)
        return torch.minimum(_carried(channels, 1 / rare), maxima)


def _expected(channels: ChannelQuantiles) -> Tensor:
    """A maximum for each channel that new images exceed as seldom as they exceed the layer's."""
    return _carried(channels, channels.count * len(channels.maximum)).clamp_max(float(channels.maximum.max()))


def _carried(channels: ChannelQuantiles, values: float) -> Tensor:
    """The maxima that so many values of each channel should have, as of distributions that fall exponentially."""
    return channels.maximum.double() * max(math.log(values) / math.log(max(channels.count, 2)), 1)


def _fitted(values: Tensor, counts: Tensor, maximum: float, full: float, largest: float, unit: float) -> Tensor:
    """The peak whose clipped squares and last digits make the least squared error; one of 17 below the maximum."""
    values, counts = values.double(), counts.double()
    peaks = torch.tensor(_SHARES, dtype=torch.float64) * maximum
    missed = (values - peaks[:, None] * (largest / full)).clamp_min(0).square() @ counts
    active = counts[values > 0].sum()
    return peaks[(missed + (peaks * (unit / full)).square() / 12 * active).argmin()]


def adjusted(amplitude: Amplitude, residual: float, full: float) -> Amplitude:
    """Eq. A18 of CSS in units of theta, with its first branch raised by 0.03 so that the three meet.

    As printed, growth falls from 0.08 to 0.05 where the excess over theta passes 0.05 of ``full``.

    Example:
        >>> adjusted(2.0, 1.0, 255), adjusted(2.0, 1 + 255 * 0.2, 255)
        (2.0, 2.46)
    """
    excess = (residual - 1) / full
    if excess <= 0:
        return amplitude
    growth = 4 * excess if excess <= 0.01 else excess + 0.03
    return amplitude * (1 + growth)
