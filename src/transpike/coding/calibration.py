"""From the distributions of activations to amplitudes: a percentile, adjusted by residuals on request."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from transpike.checks import number, whole
from transpike.quantiles import Quantiles

__all__ = ["Calibration", "Percentile"]

_RESIDUAL = 99.9


class Calibration(Protocol):
    """From what the calibration images say to amplitudes."""

    def amplitudes(
        self,
        seen: Mapping[str, Quantiles],
        full: float,
        residuals: Callable[[Mapping[str, float]], Mapping[str, Quantiles]],
    ) -> dict[str, float]:
        """theta of the input and of every neuron layer, by name.

        Args:
            seen: the distribution of |activation| of each.
            full: `Scheme.full`.
            residuals: runs a network of given amplitudes on the calibration images, and gives the distribution of
                each layer's |residual| in units of theta.
        """


@dataclass(frozen=True, kw_only=True)
class Percentile:
    """One amplitude a layer: what its train says in full is a percentile of the layer's |activation|.

    Of the input it is the largest. A layer so sparse that its percentile is 0 is given its maximum; one that is always
    0 gets 1, with a warning, for nothing it could carry is known.

    Args:
        percentile: in (0, 100]; 100 is the maximum.
        adjustments: how often amplitudes are enlarged by the residuals of the converted network (CSS, Appendix A.3).

    Raises:
        ConfigError: if a value is outside its range.
    """

    percentile: float = 99.99
    adjustments: int = 0

    def __post_init__(self) -> None:
        number("percentile", self.percentile, above=0, most=100)
        whole("adjustments", self.adjustments, least=0)

    def amplitudes(
        self,
        seen: Mapping[str, Quantiles],
        full: float,
        residuals: Callable[[Mapping[str, float]], Mapping[str, Quantiles]],
    ) -> dict[str, float]:
        """See `Calibration`."""
        amplitudes = {name: peak / full for name, peak in self._peaks(seen).items()}
        for _ in range(self.adjustments):
            for name, missed in residuals(amplitudes).items():
                amplitudes[name] = adjusted(amplitudes[name], missed.quantile(_RESIDUAL), full)
        return amplitudes

    def _peaks(self, seen: Mapping[str, Quantiles]) -> dict[str, float]:
        peaks: dict[str, float] = {}
        for name, values in seen.items():
            peak = values.quantile(100 if name == "input" else self.percentile)
            peaks[name] = peak or values.quantile(100) or math.nan
        dead = [name for name, peak in peaks.items() if math.isnan(peak)]
        if dead:
            warnings.warn(
                f"no calibration image excites {', '.join(dead)}: every activation is 0. Its amplitude is set for "
                "values up to 1; check the calibration images, or remove the layer",
                stacklevel=4,
            )
        return {name: 1.0 if math.isnan(peak) else peak for name, peak in peaks.items()}


def adjusted(amplitude: float, residual: float, full: float) -> float:
    """Eq. A18 of CSS in units of theta, with its first branch raised by 0.03 so that the three meet.

    Example:
        >>> adjusted(2.0, 1.0, 255), adjusted(2.0, 1 + 255 * 0.2, 255)
        (2.0, 2.46)
    """
    excess = (residual - 1) / full
    if excess <= 0:
        return amplitude
    growth = 4 * excess if excess <= 0.01 else excess + 0.03
    return amplitude * (1 + growth)
