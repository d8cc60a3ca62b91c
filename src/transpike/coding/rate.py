"""Rate coding: a value is the share of steps in which a soft-reset integrate-and-fire neuron fires.

Sources: Rueckauer et al., Frontiers in Neuroscience 2017 (analog input as a constant current, thresholds from a
percentile of the activations); Han, Srinivasan, Roy, "RMP-SNN", CVPR 2020 (reset by subtraction); Bu, Ding, Yu, Huang,
"Optimized Potential Initialization for Low-Latency Spiking Neural Networks", AAAI 2022 (start at half the threshold);
Li, Deng, Dong, Gong, Gu, "A Free Lunch From ANN: Towards Efficient, Accurate Spiking Neural Networks Calibration", ICML
2021 (`Rate.calibrated`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from torch import Tensor

from transpike.checks import choice, number, refuse, whole
from transpike.coding.calibration import Percentile
from transpike.coding.evaluation import COMPARISONS, Evaluation
from transpike.coding.function import Function
from transpike.coding.neuron import CORRECTION, Correction, gained
from transpike.coding.operations import Operations
from transpike.coding.residuals import Binding
from transpike.coding.scheme import Scheme
from transpike.coding.stepping import Moves, TrackingSteps
from transpike.coding.tracking import TrackingNeuron
from transpike.neurons.tsa import Code, Tracked

__all__ = ["Rate"]


@dataclass(frozen=True, kw_only=True)
class Rate(Scheme):
    r"""The rate code and its neurons.

    A train ``s`` of zeros and ones represents :math:`\theta \sum_t s_t / T`. In units of its threshold theta, a neuron
    is

    .. math::
        V \leftarrow V + z_t, \qquad s_t = [V \ge 1], \qquad V \leftarrow V - s_t, \qquad V_0 = \text{start}

    A maximum over windows compares what the inputs have accumulated. The image enters as a constant current.

    Args:
        steps: T, the steps for which the image is shown.
        start: the first membrane potential in units of theta: 0, or 0.5, which rounds to nearest.
        percentile: the percentile of |activation| over the calibration images that becomes theta. 100 is the maximum.
            ``"fit"`` takes the value with the least squared error of decoded activations at this T.
        shift: whether a current of theta / 2T enters at every step. It compensates for the rounding down of
            ``start=0``.
        correction: what conversion adds to each layer, so that its mean activation over the calibration images equals
            the original's: a constant current for each channel (``"bias"``), the first membrane potential of each
            neuron (``"potential"``), or nothing (None). Layers are corrected one after the other, each with corrected
            inputs.

    Raises:
        ConfigError: A value is outside its range.

    Example:
        >>> scheme = Rate(steps=4)
        >>> scheme.weights, scheme.digits, scheme.encoded
        ((0.25, 0.25, 0.25, 0.25), (0, 1), None)
        >>> neuron = scheme.neuron(Function.of("relu.default", 0), amplitude=1.0, wait=0)
    """

    compared: ClassVar[tuple[int, ...]] = (8, 16, 32, 64, 128)

    steps: int = 64
    start: float = 0.5
    percentile: float | Literal["fit"] = 99.99
    shift: bool = False
    correction: Correction | None = None

    @classmethod
    def calibrated(cls, *, steps: int = 64, **others: Any) -> Rate:
        """Return the light calibration of Li et al.: theta by least squares, the shift, and corrected biases."""
        light: dict[str, Any] = {"start": 0.0, "percentile": "fit", "shift": True, "correction": "bias"}
        return cls(steps=steps, **light | others)

    def __post_init__(self) -> None:
        whole("steps", self.steps)
        number("start", self.start, least=0, most=0.5)
        if not isinstance(self.shift, bool):
            raise refuse("shift", self.shift, "true or false")
        if self.correction is not None:
            choice("correction", self.correction, get_args(Correction))
        _ = self.calibration

    @property
    def weights(self) -> tuple[float, ...]:
        return (1 / self.steps,) * self.steps

    @property
    def digits(self) -> tuple[int, ...]:
        return (0, 1)

    @property
    def calibration(self) -> Percentile:
        return Percentile(percentile=self.percentile, unit=1 / self.steps)

    @property
    def label(self) -> str:
        words = [] if self.start == 0.5 else [f"start={self.start:g}"]
        words += ["fit"] if self.percentile == "fit" else []
        words += ["shift"] if self.shift else []
        return " ".join(["rate", *words, *([f"{self.correction} corrected"] if self.correction else [])])

    def remedy(self, binding: Binding, *, foreseen: bool = True) -> Mapping[str, object] | None:
        """Return the maximum for clipping, otherwise twice as many steps."""
        if binding == "clipping":
            return {"percentile": 100} if foreseen and self.percentile != 100 else None
        return {"steps": 2 * self.steps}

    def neuron(self, function: Function, *, amplitude: float, wait: int) -> TrackingNeuron | _Corrected | str:
        if reason := TrackingNeuron.refusal(function, signed=False):
            return reason
        code = Code(steps=self.steps, beta=1.0, silent=wait, signed=False, start=self.start)
        neuron = TrackingNeuron(code=code, function=function, amplitude=amplitude, last=1 / self.steps)
        return _Corrected(neuron, self.shift, self.correction) if self.shift or self.correction else neuron


@dataclass(frozen=True)
class _Corrected:
    """Neurons with the shift, and with the correction in their layer's constants; see `Rate`."""

    inner: TrackingNeuron
    shift: bool
    correction: Correction | None

    def __call__(
        self,
        currents: Sequence[Tensor],
        constants: Mapping[str, Tensor],
        *,
        gains: Sequence[float] = (),
        inplace: bool,
        final: bool,
    ) -> Tracked:
        (z,) = gained(currents, gains)
        return self.inner.moved(z, constants, self._moves(constants), final=final)

    def begin(self, constants: Mapping[str, Tensor], *, gains: Sequence[float] = ()) -> TrackingSteps:
        """Return the layer before its first step, to run in pieces of steps."""
        return self.inner.begin(constants, gains=gains, moves=self._moves(constants))

    def _moves(self, constants: Mapping[str, Tensor]) -> Moves:
        steps = self.inner.code.steps
        moved = constants.get(CORRECTION, 0.0)  # absent while the correction is being computed
        shift = 0.5 / steps * self.shift
        return Moves(moved + shift) if self.correction == "bias" else Moves(shift, moved * steps)

    def operations(
        self, *, neurons: float, spikes: float, inputs: float, evaluation: Evaluation = COMPARISONS
    ) -> Operations:
        """Return those of the uncorrected neurons, because shift and corrected bias are part of the bias."""
        return self.inner.operations(neurons=neurons, spikes=spikes, inputs=inputs, evaluation=evaluation)
