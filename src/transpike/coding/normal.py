"""Computes amplitudes from mean and variance of a layer's input, assumed normal: threshold optimisation of H-MT."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from transpike.checks import choice
from transpike.coding.calibration import Percentile, Seen
from transpike.quantiles import Quantiles

__all__ = ["Normal", "best_peak"]

_FLOOR = 2**-6
_HALVINGS = 40


@dataclass(frozen=True, kw_only=True)
class Normal:
    """Sets the full value of a train so that the expected squared error of a normal input is smallest.

    Source: Zhang et al., "Generalized Threshold Optimization with Harmony Multi-Threshold Neurons for Accurate
    ANN-to-SNN Conversion", AAAI 2026, Section 4.2, after Huang et al. (ICML 2025). The input of each ReLU or identity
    is assumed to be normal, with the mean and variance from calibration. Two parts are ours: a lower limit, a 64th of
    the layer's largest amplitude, and bisection in place of an iteration. Other functions and the network's input take
    their maximum, as in `Percentile`.

    Args:
        levels: the number of equal steps from 0 to the full value. A decoded train takes no values between them.
        per: ``"layer"`` or ``"channel"``.

    Raises:
        ConfigError: ``per`` has another value.
    """

    levels: int
    per: Literal["layer", "channel"] = "channel"

    def __post_init__(self) -> None:
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
        amplitudes = Percentile(percentile=100, per=self.per).amplitudes(
            seen, full=full, largest=largest, residuals=residuals
        )
        for name, each in seen.items():
            if each.heard is None:
                continue
            mean, variance = each.heard.mean, each.heard.variance
            if amplitudes[name].ndim == 0:
                mean, variance = (torch.tensor(x, dtype=torch.float64) for x in each.heard.joined())
            peak = best_peak(mean, variance.sqrt(), levels=self.levels, signed=each.signed)
            valid = peak.isfinite()
            if valid.any():
                least = peak[valid].max() * _FLOOR
                amplitudes[name] = torch.where(valid, peak, least).clamp_min(least) / full
        return amplitudes


def best_peak(mean: Tensor, deviation: Tensor, *, levels: int, signed: bool) -> Tensor:
    r"""Return the peak :math:`\theta` with the least expected squared error for normal inputs.

    Inputs are rounded to multiples of :math:`\theta / n` and clipped to :math:`[0, \theta]`, or to :math:`[-\theta,
    \theta]` if ``signed``, with n = ``levels``. At the peak the factor k of Eq. 29 is 1. Here the sums of both signs
    are separate, so that nothing cancels:

    .. math::
        k(\theta) = \frac{n}{\theta} \,
        \frac{\mu \sum_i \mathrm{erfc}(x_i) + \sigma \sqrt{2 / \pi} \sum_i e^{-x_i^2}}{\sum_i (2i - 1)
        \mathrm{erfc}(x_i)}, \qquad x_i = \frac{(2i - 1) \theta / 2n - \mu}{\sqrt 2 \sigma}, \quad i = 1 \dots n

    k falls through 1 once (Lemma 4.7). The result is NaN if a channel is constant, or practically never above 0.

    Args:
        mean: :math:`\mu`, any shape.
        deviation: :math:`\sigma`, likewise.
        levels: n.
        signed: whether trains represent negative inputs too.

    Example:
        >>> zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        >>> best_peak(zero, one, levels=1, signed=False)  # an optimal quantiser of two levels, at 0 and here
        tensor([1.2240], dtype=torch.float64)
    """
    odd = 2 * torch.arange(1, levels + 1, dtype=torch.float64) - 1
    signs = (1, -1) if signed else (1,)

    def factor(theta: Tensor) -> Tensor:
        above, below = torch.zeros_like(theta), torch.zeros_like(theta)
        for sign in signs:
            x = (odd * theta[..., None] / (2 * levels) - sign * mean[..., None]) / (math.sqrt(2) * deviation[..., None])
            beyond = torch.erfc(x)
            heights = torch.exp(-x.square()).sum(-1)
            above += sign * mean * beyond.sum(-1) + deviation * math.sqrt(2 / math.pi) * heights
            below += (odd * beyond).sum(-1)
        return above * levels / (theta * below)

    low = deviation * 1e-3
    high = (mean.abs() if signed else mean.clamp_min(0)) + 12 * deviation
    valid = factor(high).isfinite() & (deviation > 0)
    for _ in range(_HALVINGS):
        middle = (low * high).sqrt()
        larger = factor(middle) > 1
        low, high = torch.where(larger, middle, low), torch.where(larger, high, middle)
    return torch.where(valid, (low * high).sqrt(), torch.nan)
