"""Burst spikes: rate coding in which a neuron may fire up to five spikes in one step.

Source: Y. Li and Y. Zeng, "Efficient and Accurate Conversion of Spiking Neural Network with Burst Spikes", IJCAI 2022:
burst spikes and lateral inhibition pooling. `transpike.coding.BurstEncoder` implements a different code of the same
name (Park et al., DAC 2019): its spikes grow in weight while they follow one another. Here all spikes weigh the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from transpike.checks import number, whole
from transpike.coding.calibration import Percentile
from transpike.coding.function import Function
from transpike.coding.residuals import Binding
from transpike.coding.scheme import Scheme, total
from transpike.coding.tracking import TrackingNeuron
from transpike.neurons.tsa import Code

__all__ = ["Burst"]


@dataclass(frozen=True, kw_only=True)
class Burst(Scheme):
    r"""The burst code and its neurons.

    A train ``s`` of spike counts represents :math:`\theta \sum_t s_t / T`. In units of its threshold theta, a neuron is

    .. math::
        V \leftarrow V + z_t, \qquad s_t = \mathrm{clip}(\lfloor V \rfloor, 0, \Gamma), \qquad V \leftarrow V - s_t

    With :math:`\Gamma = 1` this is ``Rate(start=0)``. With several spikes a step, a neuron can send at once what has
    accumulated above its threshold. The calibrated peak of a layer is ``span`` spikes in every step, so a larger
    ``span`` uses more of the spikes for range. (The authors' program divides activations above 1 by :math:`\Gamma`
    before it takes their percentile. This is span :math:`\Gamma` for large activations and span 1 for small ones.) With
    :math:`\Gamma = 2^n - 1` and ``start=0.5`` the code is `MultiThreshold` with one amplitude for each layer. A maximum
    over windows compares what the inputs have accumulated. This is the total that the authors' lateral inhibition
    pooling passes on. The image enters as a constant current.

    Args:
        steps: T, the steps for which the image is shown.
        spikes: :math:`\Gamma`, the largest number of spikes in a step.
        span: spikes in each step that represent the calibrated peak, 1 to :math:`\Gamma`. None means :math:`\Gamma`.
        start: the first membrane potential in units of theta: 0, as in the paper, or 0.5, which rounds to nearest.
        percentile: the percentile of |activation| over the calibration images that sets theta. The paper uses 99.9.

    Raises:
        ConfigError: A value is outside its range.

    Example:
        >>> Burst(steps=4).digits, Burst(steps=4).weights, Burst().full
        ((0, 1, 2, 3, 4, 5), (0.25, 0.25, 0.25, 0.25), 5.0)
    """

    compared: ClassVar[tuple[int, ...]] = (8, 16, 32, 64, 128)

    steps: int = 32
    spikes: int = 5
    span: int | None = None
    start: float = 0.0
    percentile: float = 99.9

    def __post_init__(self) -> None:
        whole("steps", self.steps)
        whole("spikes", self.spikes, most=255)
        if self.span is not None:
            whole("span", self.span, most=self.spikes)
        number("start", self.start, least=0, most=0.5)
        _ = self.calibration

    @property
    def weights(self) -> tuple[float, ...]:
        return (1 / self.steps,) * self.steps

    @property
    def digits(self) -> tuple[int, ...]:
        return tuple(range(self.spikes + 1))

    @property
    def full(self) -> float:
        return (self.span or self.spikes) * total(self)

    @property
    def calibration(self) -> Percentile:
        return Percentile(percentile=self.percentile)

    @property
    def label(self) -> str:
        span = "" if self.span is None else f" span {self.span}"
        start = "" if self.start == 0 else f" start={self.start:g}"
        return f"burst {self.spikes}{span}{start}"

    @property
    def words(self) -> dict[str, str]:
        return {"spikes": f"up to {self.spikes} spikes a step", "span": f"span {self.span or self.spikes}"}

    def remedy(self, binding: Binding, *, foreseen: bool = True) -> Mapping[str, object] | None:
        """Return a higher percentile for clipping, otherwise twice as many steps."""
        if binding == "clipping":
            return {"percentile": 100} if foreseen and self.percentile != 100 else None
        return {"steps": 2 * self.steps}

    def neuron(self, function: Function, *, amplitude: float, wait: int) -> TrackingNeuron | str:
        if reason := TrackingNeuron.refusal(function, signed=False):
            return reason
        levels = tuple(range(1, self.spikes + 1))
        code = Code(steps=self.steps, beta=1.0, silent=wait, levels=levels, signed=False, start=self.start)
        return TrackingNeuron(code=code, function=function, amplitude=amplitude, last=1 / self.steps)
