"""Phase coding: weighted spikes, whose weight halves from step to step of a repeated period.

Source: Kim, Kim, Huh, Lee, Choi, "Deep neural networks with weighted spikes", Neurocomputing 2018.
`transpike.coding.PhaseEncoder` encodes pixels in the same way. Here the image enters as a current, because normalised
pixels may be negative.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from transpike.checks import whole
from transpike.coding.calibration import Percentile
from transpike.coding.function import Function
from transpike.coding.residuals import Binding
from transpike.coding.scheme import Scheme
from transpike.coding.tracking import TrackingNeuron
from transpike.coding.weighted import WeightedNeuron
from transpike.errors import ConfigError
from transpike.neurons.weighted import WeightedCode

__all__ = ["Phase"]


@dataclass(frozen=True, kw_only=True)
class Phase(Scheme):
    r"""The phase code and its neurons.

    With P phases in a period and K = T / P periods, a train ``s`` of zeros and ones represents

    .. math::
        \theta \sum_t w_t s_t, \qquad w_t = 2^{-(1 + t \bmod P)} / K

    A neuron is a soft-reset integrate-and-fire neuron whose threshold has the weight of the phase, in units of theta:

    .. math::
        V \leftarrow V + w_t z_t, \qquad s_t = [V \ge w_t], \qquad V \leftarrow V - w_t s_t

    No layer waits. So a phase may pass before its input has arrived; later periods correct this. The error falls as 1 /
    K, as in rate coding, with P-bit numbers in place of single spikes. Biases and the image enter as constant currents,
    multiplied by the weight of each phase.

    Args:
        steps: T, either whole periods or fewer steps than one period. Fewer steps are the leading phases of a period.
        phases: P.
        percentile: the percentile of |activation| over the calibration images that a period of ones represents. 100 is
            the maximum.

    Raises:
        ConfigError: A value is outside its range.

    Example:
        >>> Phase(steps=4, phases=2).weights
        (0.25, 0.125, 0.25, 0.125)
        >>> Phase(steps=100)
        Traceback (most recent call last):
        ...
        transpike.errors.ConfigError: steps=100: expected whole periods of 8 phases, such as 104.
    """

    compared: ClassVar[tuple[int, ...]] = (16, 32, 64, 128, 256)

    steps: int = 256
    phases: int = 8
    percentile: float = 99.99

    def __post_init__(self) -> None:
        whole("steps", self.steps)
        whole("phases", self.phases, most=24)
        if self.steps > self.phases and self.steps % self.phases:
            further = self.steps + -self.steps % self.phases
            raise ConfigError(f"steps={self.steps}: expected whole periods of {self.phases} phases, such as {further}.")
        _ = self.calibration

    @cached_property
    def weights(self) -> tuple[float, ...]:
        periods = -(-self.steps // self.phases)
        return tuple(2.0 ** -(1 + t % self.phases) / periods for t in range(self.steps))

    @property
    def digits(self) -> tuple[int, ...]:
        return (0, 1)

    @property
    def calibration(self) -> Percentile:
        return Percentile(percentile=self.percentile)

    @property
    def label(self) -> str:
        return f"phase P={self.phases}"

    @property
    def words(self) -> dict[str, str]:
        return {"phases": f"{self.phases} phases"}

    def remedy(self, binding: Binding, *, foreseen: bool = True) -> Mapping[str, object] | None:
        """Return the maximum for clipping, otherwise twice as many periods."""
        if binding == "clipping":
            return {"percentile": 100} if foreseen and self.percentile != 100 else None
        return {"steps": 2 * max(self.steps, self.phases)}

    def neuron(self, function: Function, *, amplitude: float, wait: int) -> WeightedNeuron | str:
        if reason := TrackingNeuron.refusal(function, signed=False):
            return reason
        code = WeightedCode(weights=self.weights, wait=wait)
        return WeightedNeuron(code=code, function=function, amplitude=amplitude)
