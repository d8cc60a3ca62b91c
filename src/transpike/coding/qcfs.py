"""QCFS: networks trained with the quantiser that an integrate-and-fire neuron is; extra steps that correct its errors.

Sources: T. Bu, W. Fang, J. Ding, P. Dai, Z. Yu, T. Huang, "Optimal ANN-SNN Conversion for High-accuracy and Ultra-low-
latency Spiking Neural Networks", ICLR 2022 (the activation, `transpike.models.activations.QCFS`, and its conversion);
Z. Hao, T. Bu, J. Ding, T. Huang, Z. Yu, "Reducing ANN-SNN Conversion Error through Residual Membrane Potential", AAAI
2023 (SRP); Z. Hao, J. Ding, T. Bu, T. Huang, Z. Yu, "Bridging the Gap between ANNs and SNNs by Calibrating Offset
Spikes", ICLR 2023 (COS).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from transpike.checks import choice, whole
from transpike.coding.calibration import Percentile
from transpike.coding.evaluation import COMPARISONS, Evaluation
from transpike.coding.function import Function
from transpike.coding.neuron import gained
from transpike.coding.operations import Operations
from transpike.coding.residuals import Binding
from transpike.coding.rounding import Rounded, levelled, unrounded
from transpike.coding.scheme import Scheme
from transpike.coding.stepping import Moves
from transpike.coding.tracking import TrackingNeuron
from transpike.neurons.tsa import Code, Tracked

__all__ = ["QCFS"]

_EDGE = 1e-3  # how far a shift goes beyond the threshold


@dataclass(frozen=True, kw_only=True)
class QCFS(Scheme):
    r"""The rate code of networks with QCFS activations, with optional pre-steps.

    The activation with L levels and its trained bound lambda is

    .. math::
        \lambda\, \mathrm{clip}(\lfloor x L / \lambda + 1/2 \rfloor / L,\; 0,\; 1)

    An integrate-and-fire neuron with soft reset, threshold :math:`\theta = \lambda` and first potential :math:`\theta /
    2` computes this activation with T levels, if its input arrives evenly. The train represents :math:`\theta \sum_t
    s_t / T`. A layer with another function takes theta from a percentile, as in rate coding.

    Uneven input leaves a neuron's potential outside of [0, theta) after its last step. ``pre`` extra steps before the T
    steps (pre-steps) show where this happens. They count for nothing in the value, and they are part of the latency.
    Then the potential is reset. With ``"srp"`` a neuron whose potential has become negative stays silent. With
    ``"cos"`` a neuron that still holds theta or more starts higher, so that it fires once more; a neuron below 0 that
    has fired starts lower, so that it fires once less. The shift is at least theta. In the released code of COS each
    layer receives the corrected input of the layer before twice. In a pipeline of ``pre`` + T steps all layers run
    their pre-steps at once, as here and in SRP.

    Layers do not wait, and spikes carry no bits beside their address. A bias enters with every step. So does the image,
    as an analog current. QCFS, ReLU, clips and maxima over windows have neurons.

    Args:
        steps: T.
        pre: the number of pre-steps.
        mend: how the pre-steps correct the neurons, ``"srp"`` or ``"cos"``.
        percentile: the percentile of \|activation\| over the calibration images, for layers whose function has no
            bound.

    Raises:
        ConfigError: A value is outside its range.

    Example:
        >>> QCFS(steps=2, pre=2).weights
        (0.0, 0.0, 0.5, 0.5)
    """

    compared: ClassVar[tuple[int, ...]] = (4, 8, 16, 32)

    steps: int = 8
    pre: int = 0
    mend: Literal["srp", "cos"] = "srp"
    percentile: float = 99.99

    def __post_init__(self) -> None:
        whole("steps", self.steps)
        whole("pre", self.pre, least=0)
        choice("mend", self.mend, ("srp", "cos"))
        _ = self.calibration

    @property
    def weights(self) -> tuple[float, ...]:
        return (0.0,) * self.pre + (1 / self.steps,) * self.steps

    @property
    def digits(self) -> tuple[int, ...]:
        return (0, 1)

    @property
    def calibration(self) -> Percentile:
        return Percentile(percentile=self.percentile)

    @property
    def label(self) -> str:
        return f"QCFS {self.mend.upper()} {self.pre}" if self.pre else "QCFS"

    @property
    def words(self) -> Mapping[str, str]:
        return {"pre": f"{self.pre} steps before" if self.pre else "no step before", "mend": self.mend.upper()}

    def given(self, function: Function) -> float | None:
        """Return the bound of a rounded clip, whose levels the weights around it absorb."""
        tail = unrounded(function).tail
        return tail.high if function != unrounded(function) and math.isfinite(tail.high) else None

    def remedy(self, binding: Binding, *, foreseen: bool = True) -> Mapping[str, object] | None:
        """Return the maximum for clipping, pre-steps for coupling, otherwise twice as many steps."""
        if binding == "clipping":
            return {"percentile": 100} if foreseen and self.percentile != 100 else None
        return {"pre": 4} if binding == "coupling" and not self.pre else {"steps": 2 * self.steps}

    def neuron(self, function: Function, *, amplitude: float, wait: int) -> TrackingNeuron | Rounded | _Mended | str:
        real = unrounded(function)
        if reason := TrackingNeuron.refusal(real, signed=False):
            return reason
        code = Code(steps=self.steps, beta=1.0, silent=wait, signed=False, start=0.5)
        inner = TrackingNeuron(code=code, function=real, amplitude=amplitude, last=1 / self.steps)
        if self.pre:
            return _Mended(inner, self.pre, self.mend, real != function)
        return Rounded(inner) if real != function else inner


@dataclass(frozen=True)
class _Mended:
    """Neurons that compare their potential with its bounds after some pre-steps, and start again; see `QCFS`.

    Args:
        inner: the neurons of the steps that count.
        pre: the number of pre-steps.
        mend: how the pre-steps correct the neurons.
        rounds: whether the neurons' function rounds.
    """

    inner: TrackingNeuron
    pre: int
    mend: Literal["srp", "cos"]
    rounds: bool

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
        before = replace(self.inner, code=replace(self.inner.code, steps=self.pre))
        accumulated = before.heard(z[: self.pre], constants)
        tried = before([z[: self.pre]], constants, inplace=False, final=False).spikes
        potential = accumulated - tried.cumsum(0) + 0.5  # the potential after each step
        first = self._shift(potential, tried) if self.mend == "cos" else 0.0
        fired = self.inner.moved(z[self.pre :], constants, Moves(first=first), final=final)
        spikes = fired.spikes * (potential[-1] >= 0) if self.mend == "srp" else fired.spikes
        if fired.residual is not None:
            silenced = (fired.spikes - spikes).sum(0) * self.inner.last
            fired = replace(fired, residual=fired.residual + silenced)
        fired = replace(fired, spikes=torch.cat([tried, spikes]))
        return levelled(fired, self.inner.amplitude) if self.rounds else fired

    def _shift(self, held: Tensor, tried: Tensor) -> Tensor:
        """Return the shift by which the most excited silent step fires, or the least excited spike does not."""
        nearest = held.masked_fill(tried > 0, -math.inf).amax(0)
        weakest = held.masked_fill(tried == 0, math.inf).amin(0)  # after the spike's reset
        more = (1 + _EDGE - nearest).clamp(min=1).nan_to_num(posinf=1.0) * (held[-1] >= 1)
        fewer = (weakest + _EDGE).clamp(min=1).nan_to_num(posinf=1.0) * ((held[-1] < 0) & (tried.amax(0) > 0))
        return more - fewer

    def operations(
        self, *, neurons: float, spikes: float, inputs: float, evaluation: Evaluation = COMPARISONS
    ) -> Operations:
        """Return those of the inner neurons over all steps, and two comparisons after the pre-steps."""
        code = replace(self.inner.code, steps=self.inner.code.steps + self.pre)
        own = replace(self.inner, code=code).operations(
            neurons=neurons, spikes=spikes, inputs=inputs, evaluation=evaluation
        )
        return own + Operations(neuron_accumulates=2 * neurons)
