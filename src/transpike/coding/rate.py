"""Rate coding: a value is the share of steps in which a neuron fires; soft-reset integrate-and-fire neurons.

Sources: Rueckauer et al., Frontiers in Neuroscience 2017 (analog input as a constant current, thresholds from a
percentile of the activations); Han, Srinivasan, Roy, "RMP-SNN", CVPR 2020 (reset by subtraction); Bu, Ding, Yu, Huang,
"Optimized Potential Initialization for Low-Latency Spiking Neural Networks", AAAI 2022 (start at half the threshold).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from transpike.checks import number, whole
from transpike.coding.calibration import Percentile
from transpike.coding.function import Function
from transpike.coding.residuals import Binding
from transpike.coding.scheme import Scheme
from transpike.coding.tracking import TrackingNeuron
from transpike.neurons.tsa import Code

__all__ = ["Rate"]


@dataclass(frozen=True, kw_only=True)
class Rate(Scheme):
    r"""The rate code and its neurons.

    A train ``s`` of zeros and ones means :math:`\theta \sum_t s_t / T`. A neuron is, in units of its threshold theta,

    .. math::
        V \leftarrow V + z_t, \qquad s_t = [V \ge 1], \qquad V \leftarrow V - s_t, \qquad V_0 = \text{start}

    A maximum over windows is taken over what the inputs have accumulated. The image enters as a constant current.

    Args:
        steps: T, the steps for which the image is shown.
        start: the membrane's first value in units of theta: 0, or 0.5, which rounds to nearest.
        percentile: of |activation| over the calibration images, which becomes theta; 100 is the maximum.

    Raises:
        ConfigError: if a value is outside its range.

    >>> scheme = Rate(steps=4)
    >>> scheme.weights, scheme.digits, scheme.encoded
    ((0.25, 0.25, 0.25, 0.25), (0, 1), None)
    >>> neuron = scheme.neuron(Function.of("relu.default", 0), amplitude=1.0, wait=0)
    """

    compared: ClassVar[tuple[int, ...]] = (8, 16, 32, 64, 128)

    steps: int = 64
    start: float = 0.5
    percentile: float = 99.99

    def __post_init__(self) -> None:
        whole("steps", self.steps)
        number("start", self.start, least=0, most=0.5)
        _ = self.calibration

    @property
    def weights(self) -> tuple[float, ...]:
        return (1 / self.steps,) * self.steps

    @property
    def digits(self) -> tuple[int, ...]:
        return (0, 1)

    @property
    def calibration(self) -> Percentile:
        return Percentile(percentile=self.percentile)

    @property
    def label(self) -> str:
        return "rate" if self.start == 0.5 else f"rate start={self.start:g}"

    def remedy(self, binding: Binding, *, foreseen: bool = True) -> Mapping[str, object] | None:
        """The maximum for clipping, else twice as many steps."""
        if binding == "clipping":
            return {"percentile": 100} if foreseen and self.percentile != 100 else None
        return {"steps": 2 * self.steps}

    def neuron(self, function: Function, *, amplitude: float, wait: int) -> TrackingNeuron | str:
        if reason := TrackingNeuron.refusal(function, signed=False):
            return reason
        code = Code(steps=self.steps, beta=1.0, silent=wait, signed=False, start=self.start)
        return TrackingNeuron(code=code, function=function, amplitude=amplitude, last=1 / self.steps)
