"""Harmony multi-threshold neurons (H-MT): rate coding whose spikes are sums of halving thresholds.

Source: Zhang et al., "Generalized Threshold Optimization with Harmony Multi-Threshold Neurons for Accurate ANN-to-SNN
Conversion", AAAI 2026, Eqs. 12 to 22 and Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from transpike.checks import refuse, whole
from transpike.coding.calibration import Calibration, Percentile
from transpike.coding.function import Function
from transpike.coding.normal import Normal
from transpike.coding.residuals import Binding
from transpike.coding.scheme import Scheme
from transpike.coding.tracking import TrackingNeuron
from transpike.neurons.tsa import Code

__all__ = ["MultiThreshold"]


@dataclass(frozen=True, kw_only=True)
class MultiThreshold(Scheme):
    r"""The code of H-MT neurons, and its neurons.

    A train represents :math:`\theta \sum_t s_t / T` with :math:`\theta = \lambda_{min}`, the smallest of n thresholds
    :math:`\theta 2^{n-1}, \dots, 2 \theta, \theta`. In every step the membrane is compared with all of them, the
    highest first. Each threshold that is reached fires and is subtracted. So a neuron sends a number of n bits in each
    step,

    .. math::
        V \leftarrow V + z_t, \qquad s_t = \mathrm{clip}(\lfloor V / \theta \rfloor, 0, 2^n - 1), \qquad
        V \leftarrow V - \theta s_t, \qquad V_0 = \theta / 2

    as one spike with n payload bits, or as up to n binary spikes. The paper counts binary spikes. It calls
    this a Pos neuron. It replaces a ReLU. For functions that may be negative, such as the identity, ``signed`` gives a
    pair of a Pos and a Neg neuron. The two communicate, so that at most one of them fires. The pair fires the nearest
    of all integers up to :math:`\pm(2^n - 1)` (Lemma 4.1).

    Args:
        steps: T.
        thresholds: n, up to 8.
        signed: whether functions that may be negative have neurons.
        amplitude: one amplitude for each ``"channel"`` of a layer, or one for each ``"layer"``.
        percentile: ``"normal"`` is the paper's threshold optimisation from mean and variance. A number is the
            percentile of |activation| that the largest spike represents (99.9 is the paper's baseline). ``"fit"``
            minimises the squared error over the calibration images.

    Raises:
        ConfigError: A value is outside its range.

    Example:
        >>> MultiThreshold(thresholds=3).digits, MultiThreshold(steps=2).weights, MultiThreshold().full
        ((0, 1, 2, 3, 4, 5, 6, 7), (0.5, 0.5), 255.0)
    """

    compared: ClassVar[tuple[int, ...]] = (1, 2, 4, 8)

    steps: int = 4
    thresholds: int = 8
    signed: bool = False
    amplitude: Literal["layer", "channel"] = "channel"
    percentile: float | Literal["normal", "fit"] = "normal"

    def __post_init__(self) -> None:
        whole("steps", self.steps)
        whole("thresholds", self.thresholds, most=8)
        if not isinstance(self.signed, bool):
            raise refuse("signed", self.signed, "true or false")
        _ = self.calibration

    @property
    def weights(self) -> tuple[float, ...]:
        return (1 / self.steps,) * self.steps

    @property
    def digits(self) -> tuple[int, ...]:
        top = 2**self.thresholds - 1
        return tuple(range(-top if self.signed else 0, top + 1))

    @property
    def calibration(self) -> Calibration:
        if self.percentile == "normal":
            return Normal(levels=self.steps * (2**self.thresholds - 1), per=self.amplitude)
        return Percentile(percentile=self.percentile, per=self.amplitude)

    @property
    def label(self) -> str:
        theta = "" if self.percentile == "normal" else f" {self.percentile}"
        return f"H-MT n={self.thresholds}{' signed' if self.signed else ''}{theta}"

    @property
    def words(self) -> dict[str, str]:
        amplitude = f"one amplitude per {self.amplitude}"
        return {"name": "H-MT", "thresholds": f"{self.thresholds} thresholds", "amplitude": amplitude}

    def remedy(self, binding: Binding, *, foreseen: bool = True) -> Mapping[str, object] | None:
        """Return the maximum for clipping, otherwise twice as many steps."""
        if binding == "clipping":
            return {"percentile": 100} if foreseen and self.percentile != 100 else None
        return {"steps": 2 * self.steps}

    def neuron(self, function: Function, *, amplitude: float, wait: int) -> TrackingNeuron | str:
        binary = TrackingNeuron.refusal(function, signed=False)
        if binary and not self.signed:
            return f"{binary}; use signed=True"
        levels = tuple(range(1, 2**self.thresholds))
        signed = binary is not None
        code = Code(steps=self.steps, beta=1.0, silent=wait, levels=levels, signed=signed, start=0.5)
        return TrackingNeuron(code=code, function=function, amplitude=amplitude, last=1 / self.steps)
