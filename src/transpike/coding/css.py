"""Canonic signed spikes (CSS): weighted ternary spikes, tracked by self-amplifying neurons, in 8 to 16 steps.

Source: "Canonic Signed Spike Coding for Efficient Spiking Neural Networks"; the equations stand in
`transpike.neurons.tsa`. Beyond the paper: neurons that track any piecewise linear function or maximum, and spikes of
several levels, whose redundancy replaces the silent period (the online delay of signed-digit arithmetic: Trivedi and
Ercegovac, 1977).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from transpike.coding.scheme import Activation
from transpike.errors import ConfigError
from transpike.neurons.tsa import IDENTITY, Code, Piecewise, Tracked, accumulate, decode, encode, track

__all__ = ["CSS"]


@dataclass(frozen=True, kw_only=True)
class CSS:
    r"""The CSS code and its neurons.

    A train ``s`` means :math:`\theta \sum_t \beta^{T-1-t} s_t` with every :math:`s_t` in {0, ±levels}. The amplitude
    :math:`\theta` of a layer is its ``percentile`` of activations divided by :math:`\sum_t \beta^t` (Section 4.2.2).

    Args:
        steps: T, the steps that encode one value.
        beta: the amplification a step, above 1; at most 2k + 1 where the levels hold all integers from 1 to k
            (3 for ternary spikes), since larger radices cannot write every value.
        silent: steps a neuron listens before it fires (the silent period). Each costs a step of latency a layer.
        levels: the magnitudes of spikes, increasing integers from 1. ``(1,)`` is ternary; with ``(1, 2, 4, 8)`` no
            silent step is needed.
        signed: whether neurons fire negative spikes. Without (the paper's ablation) only ReLU-like neurons exist.
        percentile: of |activation| over the calibration images, from which amplitudes follow; 100 is the maximum.
        adjustments: how often to enlarge amplitudes by the residuals seen in calibration (Appendix A.3); 0 is off.

    Raises:
        ConfigError: if a value is outside its range.

    >>> scheme = CSS(steps=8, beta=2.0, silent=1)
    >>> scheme.total, scheme.interval, scheme.latency(20)
    (255.0, 9, 28)
    >>> CSS(steps=0)
    Traceback (most recent call last):
    ...
    transpike.errors.ConfigError: steps must be at least 1 and silent at least 0, not 0 and 2
    """

    steps: int = 8
    beta: float = 2.0
    silent: int = 2
    levels: tuple[int, ...] = (1,)
    signed: bool = True
    percentile: float = 99.99
    adjustments: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(self.levels))
        run = next((k for k, level in enumerate(self.levels) if level != k + 1), len(self.levels))
        if self.code.beta > 2 * run + 1:
            raise ConfigError(
                f"beta must lie in (1, {2 * run + 1}] for levels {self.levels}, not {self.beta}: a larger radix leaves "
                "values that no train encodes; use more consecutive levels or a smaller beta"
            )
        if not 0 < self.percentile <= 100:
            raise ConfigError(f"percentile must lie in (0, 100], not {self.percentile}")
        if self.adjustments < 0:
            raise ConfigError(f"adjustments must be at least 0, not {self.adjustments}")

    @cached_property
    def code(self) -> Code:
        return Code(steps=self.steps, beta=self.beta, silent=self.silent, levels=self.levels, signed=self.signed)

    @property
    def total(self) -> float:
        return sum(self.code.weights)

    @property
    def largest(self) -> float:
        return self.total * self.levels[-1]

    @property
    def interval(self) -> int:
        return self.steps + self.silent

    def latency(self, depth: int) -> int:
        return self.steps + self.silent * depth

    def amplitude(self, peak: float) -> float:
        return peak / self.total

    def adjust(self, amplitude: float, residual: float) -> float:
        """Eq. A18 in units of theta, with the first branch raised by 0.03 so that the three meet."""
        excess = (residual - 1) / self.total
        if excess <= 0:
            return amplitude
        growth = 4 * excess if excess <= 0.01 else excess + 0.03
        return amplitude * (1 + growth)

    def refuses(self, slope: float, low: float | None) -> str | None:
        if self.signed or slope == 0:
            return None
        return "without negative spikes (signed=False) only ReLU and ReLU6 have a neuron; use signed=True"

    def encode(self, x: Tensor) -> Tensor:
        return encode(x, code=self.code)

    def decode(self, s: Tensor) -> Tensor:
        return decode(s, beta=self.beta)

    def fire(self, z: Tensor, activation: Activation, amplitude: float, *, inplace: bool, final: bool) -> Tracked:
        """Track the activation; a maximum or a slope per channel is taken on the accumulated input first."""
        whole = activation.function
        function = replace(whole, low=whole.low / amplitude, high=whole.high / amplitude)
        if activation.pool is None and activation.slope is None:
            return track(z, code=self.code, function=function, inplace=inplace, final=final)
        dtype = z.dtype
        h = accumulate(z, beta=self.beta, silent=self.silent)
        if activation.pool is not None:
            h = activation.pool(h.flatten(0, 1)).unflatten(0, h.shape[:2])
        if activation.slope is not None:
            h = torch.where(h > 0, h, activation.slope * h)
            function = Piecewise(slope=IDENTITY.slope, low=function.low, high=function.high)
        tracked = track(h, code=self.code, function=function, accumulated=True, inplace=True, final=final)
        return replace(tracked, spikes=tracked.spikes.to(dtype))
