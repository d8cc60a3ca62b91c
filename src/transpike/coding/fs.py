"""Few spikes (FS): a layer first receives its whole input, then writes the digits of a binary fraction.

Source: C. Stöckl and W. Maass, "Optimized spiking neurons can classify images with high accuracy through temporal
coding with two spikes", Nature Machine Intelligence 2021, Eqs. 1 to 3, with the paper's values for ReLU: thresholds,
resets and weights are all alpha 2^-t.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from transpike.checks import whole
from transpike.coding.calibration import Percentile
from transpike.coding.function import Function
from transpike.coding.residuals import Binding
from transpike.coding.scheme import Scheme
from transpike.coding.tracking import TrackingNeuron
from transpike.neurons.tsa import Code

__all__ = ["FS"]


@dataclass(frozen=True, kw_only=True)
class FS(Scheme):
    r"""The FS code and its neurons.

    A train ``s`` of zeros and ones represents :math:`\theta \sum_{t=1}^{T} 2^{-t} s_t`. A neuron receives input for T
    steps. Then it writes the accumulated value V, most significant digit first:

    .. math::
        s_t = [V \ge 2^{-t} \theta], \qquad V \leftarrow V - 2^{-t} \theta s_t

    A bias enters with the first step. So does the image, as an analog current, since pixels may be negative.

    Args:
        steps: T (K in the paper).
        percentile: the percentile of |activation| over the calibration images that a train of ones represents. 100 is
            the maximum.

    Raises:
        ConfigError: A value is outside its range.

    Example:
        >>> FS(steps=3).weights, FS(steps=3).wait
        ((0.5, 0.25, 0.125), 3)
    """

    compared: ClassVar[tuple[int, ...]] = (6, 8, 10, 12, 16)

    steps: int = 10
    percentile: float = 99.99

    def __post_init__(self) -> None:
        whole("steps", self.steps, most=24)
        _ = self.calibration

    @property
    def weights(self) -> tuple[float, ...]:
        return tuple(2.0**-t for t in range(1, self.steps + 1))

    @property
    def entry(self) -> tuple[float, ...]:
        return (2.0,) + (0.0,) * (self.steps - 1)

    @property
    def wait(self) -> int:
        return self.steps

    @property
    def digits(self) -> tuple[int, ...]:
        return (0, 1)

    @property
    def calibration(self) -> Percentile:
        return Percentile(percentile=self.percentile)

    def remedy(self, binding: Binding, *, foreseen: bool = True) -> Mapping[str, object] | None:
        """Return the maximum for clipping, otherwise two more steps; FS neurons know all input before they write."""
        if binding == "clipping":
            return {"percentile": 100} if foreseen and self.percentile != 100 else None
        return {"steps": self.steps + 2} if self.steps <= 22 else None

    def neuron(self, function: Function, *, amplitude: float, wait: int) -> TrackingNeuron | str:
        if reason := TrackingNeuron.refusal(function, signed=False):
            return reason
        code = Code(steps=self.steps, beta=2.0, silent=wait, signed=False)
        return TrackingNeuron(code=code, function=function, amplitude=amplitude, last=self.weights[-1])
