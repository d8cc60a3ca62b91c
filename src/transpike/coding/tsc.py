"""Temporal switch coding (TSC): a spike switches a current on, an opposite spike switches it off.

The interval between the two spikes represents the value.

Source: B. Han and K. Roy, "Deep Spiking Neural Network: Energy Efficiency Through Time Based Coding", ECCV 2020.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from transpike.checks import whole
from transpike.coding.calibration import Percentile
from transpike.coding.evaluation import COMPARISONS, Evaluation
from transpike.coding.function import Function
from transpike.coding.neuron import gained
from transpike.coding.operations import Operations
from transpike.coding.residuals import Binding
from transpike.coding.scheme import Scheme
from transpike.coding.stepping import TrackingSteps
from transpike.coding.tracking import TrackingNeuron
from transpike.neurons.pieces import Accumulated, Change
from transpike.neurons.tsa import Code, Tracked, accumulate

__all__ = ["TSC"]


@dataclass(frozen=True, kw_only=True)
class TSC(Scheme):
    r"""The TSC code and its neurons.

    Steps are counted from 0 here: t = 0 ... T - 1. The source counts them from 1.

    A pixel p in [-1, 1] is two spikes: its sign at t = 0, and the opposite sign at :math:`t = \lfloor |p| (T - 1)
    \rfloor`. If both fall on one step, there is no spike. At the synapse a positive spike switches on a current that
    stays, and a negative spike switches it off. So a train ``s`` represents :math:`\theta \sum_t s_t (T - t) / T`. This
    is a sum of sums and needs no product.

    A neuron integrates the switched currents. Its spikes mark the steps at which it starts and stops to fire. In units
    of theta, with :math:`I = r_{-1} = 0` and :math:`V = 1/2` before the first step:

    .. math::
        I \leftarrow I + z_t, \quad V \leftarrow V + I, \quad r_t = [V \ge 1], \quad V \leftarrow V - r_t, \quad
        s_t = r_t - r_{t-1}

    The values are those of rate coding with as many steps. There are fewer spikes if a neuron fires in many steps in a
    row. The source describes the code of pixels, and neurons that fire while they receive input (its latency is T).
    That the neurons' own trains switch in the same way is our interpretation. Layers do not wait. A spike carries one
    bit, its sign. A bias enters with the first step. The scheme has neurons only for functions that are never negative:
    ReLU, clips, maxima over windows.

    Args:
        steps: T, at least 2.
        percentile: the percentile of \|activation\| over the calibration images that becomes theta (T - 1) / T, the
            longest interval of a pixel. 100 is the maximum.

    Raises:
        ConfigError: A value is outside its range.

    Example:
        >>> TSC(steps=5).encode(torch.tensor([0.8, 0.4, -0.2])).T.tolist()  # theta 1: p = 1, 0.5, -0.25
        [[1.0, 0.0, 0.0, 0.0, -1.0], [1.0, 0.0, -1.0, 0.0, 0.0], [-1.0, 1.0, 0.0, 0.0, 0.0]]
    """

    compared: ClassVar[tuple[int, ...]] = (64, 128, 256)

    steps: int = 512
    percentile: float = 99.99

    def __post_init__(self) -> None:
        whole("steps", self.steps, least=2, most=2**16)
        _ = self.calibration

    @cached_property
    def weights(self) -> tuple[float, ...]:
        return tuple((self.steps - t) / self.steps for t in range(self.steps))

    @property
    def digits(self) -> tuple[int, ...]:
        return (-1, 0, 1)

    @property
    def encoded(self) -> tuple[int, ...]:
        return (-1, 0, 1)

    @property
    def entry(self) -> tuple[float, ...]:
        return (1.0,) + (0.0,) * (self.steps - 1)

    @property
    def reach(self) -> float:
        return 1.0

    @property
    def full(self) -> float:
        return (self.steps - 1) / self.steps

    @property
    def calibration(self) -> Percentile:
        return Percentile(percentile=self.percentile)

    def remedy(self, binding: Binding, *, foreseen: bool = True) -> Mapping[str, object] | None:
        """Return the maximum for clipping, otherwise twice as many steps."""
        if binding == "clipping":
            return {"percentile": 100} if foreseen and self.percentile != 100 else None
        return {"steps": 2 * self.steps} if self.steps <= 2**15 else None

    def encode(self, x: Tensor) -> Tensor:
        # The small factor keeps a value that lies on a step there, whatever its rounding error.
        length = (x.abs() * (self.steps * (1 + 1e-6))).floor_().clamp_(max=self.steps - 1)
        train = x.new_zeros(self.steps, *x.shape)
        train[0] = x.sign() * (length > 0)
        return train.scatter_add_(0, length.long()[None], -train[0][None])

    def neuron(self, function: Function, *, amplitude: float, wait: int) -> _Neuron | str:
        if reason := TrackingNeuron.refusal(function, signed=False):
            return reason
        code = Code(steps=self.steps, beta=1.0, silent=wait, signed=False, start=0.5)
        return _Neuron(TrackingNeuron(code=code, function=function, amplitude=amplitude, last=1 / self.steps))


@dataclass(frozen=True)
class _Neuron:
    """Soft-reset neurons with switched currents and switched trains; see `transpike.coding.neuron.SteppingNeuron`.

    Args:
        inner: the soft-reset neurons.
    """

    inner: TrackingNeuron

    def __call__(
        self,
        currents: Sequence[Tensor],
        constants: Mapping[str, Tensor],
        *,
        gains: Sequence[float] = (),
        inplace: bool,
        final: bool,
    ) -> Tracked:
        flowing = [accumulate(z, beta=1.0, silent=0) for z in gained(currents, gains)]
        fired = self.inner(flowing, constants, inplace=True, final=final)
        return replace(fired, spikes=_switched(fired.spikes, torch.zeros_like(fired.spikes[:1])).to(currents[0].dtype))

    def begin(self, constants: Mapping[str, Tensor], *, gains: Sequence[float] = ()) -> _Steps:
        """Return the layer before its first step, to run in pieces of steps."""
        return _Steps(self.inner.begin(constants), self.inner.code.steps, gains)

    def operations(
        self, *, neurons: float, spikes: float, inputs: float, evaluation: Evaluation = COMPARISONS
    ) -> Operations:
        """Return those of soft-reset neurons, and an addition in each step for each switched current.

        The switches do not show how often a neuron resets its membrane. So a reset counts in every step.
        """
        steps = self.inner.code.steps
        own = self.inner.operations(neurons=neurons, spikes=neurons * steps, inputs=inputs, evaluation=evaluation)
        return own + Operations(neuron_accumulates=max(inputs, neurons) * steps)


class _Steps:
    """Runs `_Neuron` in pieces of steps."""

    def __init__(self, inner: TrackingSteps, steps: int, gains: Sequence[float]) -> None:
        self.inner, self.gains = inner, gains
        self.flowing = Accumulated(1.0, (1.0,) * steps)
        self.fired: Tensor | None = None  # the spikes of the last step before switching

    def __call__(self, currents: Sequence[Tensor], *, idle: int, inplace: bool = False) -> Tensor:
        (z,) = gained(currents, self.gains)
        fired = self.inner([self.flowing(z, inplace=inplace) if len(z) else z], idle=idle, inplace=True)
        before = torch.zeros_like(fired[:1]) if self.fired is None else self.fired
        self.fired = fired[-1:].clone() if len(fired) else self.fired
        return _switched(fired, before).to(z.dtype)

    def rebatch(self, change: Change) -> None:
        self.inner.rebatch(change)
        self.flowing.rebatch(change)
        self.fired = None if self.fired is None else change(self.fired, 1)

    def ended(self) -> tuple[Tensor, Tensor]:
        return self.inner.ended()


def _switched(fired: Tensor, before: Tensor) -> Tensor:
    """Return 1 where neurons start to fire and -1 where they stop."""
    return fired.diff(dim=0, prepend=before.to(fired.dtype))
