"""Differential coding with multi-threshold neurons: spikes represent the changes of a running mean.

Source: Huang et al., "Differential Coding for Training-Free ANN-to-SNN Conversion", ICML 2025 (DCGS): differential
coding, and the multi-threshold (MT) neuron, which fires one of its thresholds in a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

from transpike.checks import whole
from transpike.coding.calibration import Calibration, Percentile
from transpike.coding.function import Function
from transpike.coding.normal import Normal
from transpike.coding.residuals import Binding
from transpike.coding.scheme import Scheme
from transpike.coding.weighted import WeightedNeuron
from transpike.neurons.weighted import WeightedCode

__all__ = ["Differential"]


@dataclass(frozen=True, kw_only=True)
class Differential(Scheme):
    r"""Differential coding and its multi-threshold neurons.

    Rate coding represents a value by the mean of the spikes sent. Differential coding sends only the difference from
    the mean so far. At step t this changes the mean by a t-th of the difference. A train s of zeros and signed powers
    of two represents, step by step,

    .. math::
        A_t = A_{t-1} + \theta s_t / t, \qquad \text{so in all } \theta \sum_{t=1}^{T} s_t / t

    A value that no longer changes needs no spikes. A neuron's membrane holds :math:`t (A^{in}_t - A^{out}_{t-1})`, the
    difference between the mean of its input and the mean of its output. The neuron fires the threshold that is nearest
    to its membrane, among :math:`\pm\theta 2^{n-1}, \dots, \pm\theta`, if the membrane reaches three quarters of the
    least threshold. So it fires the digit k from 3k/4 on. A negative spike of a ReLU takes back no more than was sent.
    Biases and the image enter at the first step.

    Args:
        steps: T.
        thresholds: n for each sign, up to 12. The largest is :math:`2^{n-1} \theta`.
        amplitude: one amplitude for each ``"channel"`` of a layer, or one for each ``"layer"``.
        percentile: ``"normal"`` computes amplitudes from mean and variance (threshold optimisation). A number is the
            percentile of |activation| that the largest spike of the first step represents. ``"fit"`` minimises the
            squared error over the calibration images.

    Raises:
        ConfigError: A value is outside its range.

    Example:
        >>> scheme = Differential(steps=4, thresholds=3)
        >>> scheme.weights, scheme.entry, scheme.digits, scheme.full
        ((1.0, 0.5, 0.3333333333333333, 0.25), (1.0, 0.0, 0.0, 0.0), (-4, -2, -1, 0, 1, 2, 4), 4.0)
    """

    compared: ClassVar[tuple[int, ...]] = (2, 4, 8, 16)

    steps: int = 8
    thresholds: int = 8
    amplitude: Literal["layer", "channel"] = "channel"
    percentile: float | Literal["normal", "fit"] = "normal"

    def __post_init__(self) -> None:
        whole("steps", self.steps)
        whole("thresholds", self.thresholds, most=12)
        _ = self.calibration

    @cached_property
    def weights(self) -> tuple[float, ...]:
        return tuple(1 / t for t in range(1, self.steps + 1))

    @property
    def entry(self) -> tuple[float, ...]:
        return (1.0,) + (0.0,) * (self.steps - 1)

    @property
    def digits(self) -> tuple[int, ...]:
        return (*(-level for level in reversed(self._levels)), 0, *self._levels)

    @property
    def full(self) -> float:
        return float(self._levels[-1])

    @property
    def calibration(self) -> Calibration:
        if self.percentile == "normal":
            return Normal(levels=self.steps * 2**self.thresholds, per=self.amplitude)
        return Percentile(percentile=self.percentile, per=self.amplitude)

    @property
    def label(self) -> str:
        theta = "" if self.percentile == "normal" else f" {self.percentile}"
        return f"differential n={self.thresholds}{theta}"

    @property
    def words(self) -> dict[str, str]:
        return {"thresholds": f"{self.thresholds} thresholds", "amplitude": f"one amplitude per {self.amplitude}"}

    def remedy(self, binding: Binding, *, foreseen: bool = True) -> Mapping[str, object] | None:
        """Return the maximum for clipping, otherwise twice as many steps."""
        if binding == "clipping":
            return {"percentile": 100} if foreseen and self.percentile != 100 else None
        return {"steps": 2 * self.steps}

    def neuron(self, function: Function, *, amplitude: float, wait: int) -> WeightedNeuron:
        rising = tuple(0.75 * level for level in self._levels)
        code = WeightedCode(weights=self.weights, wait=wait, levels=self._levels, rising=rising, signed=True)
        return WeightedNeuron(code=code, function=function, amplitude=amplitude)

    @property
    def _levels(self) -> tuple[int, ...]:
        return tuple(2**k for k in range(self.thresholds))
