"""Neurons whose function ends in a rounding, as a QCFS activation does. The digits that they fire do the rounding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from transpike.coding.evaluation import COMPARISONS, Evaluation
from transpike.coding.function import Function, Result
from transpike.coding.operations import Operations
from transpike.coding.stepping import TrackingSteps
from transpike.coding.tracking import TrackingNeuron
from transpike.neurons.pieces import Change
from transpike.neurons.tsa import Tracked

__all__ = ["Rounded", "levelled", "unrounded"]


def unrounded(function: Function) -> Function:
    """Return the function without the rounding at its end, because the neuron rounds."""
    rounded = Function.of("round.default", Result(len(function.calls) - 2)).calls
    return replace(function, calls=function.calls[:-1]) if function.calls[-1:] == rounded else function


@dataclass(frozen=True)
class Rounded:
    """Neurons whose function rounds to the levels that they fire."""

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
        fired = self.inner(currents, constants, gains=gains, inplace=inplace, final=final)
        return levelled(fired, self.inner.amplitude)

    def begin(self, constants: Mapping[str, Tensor], *, gains: Sequence[float] = ()) -> _Steps:
        """Return the layer before its first step, to run in pieces of steps."""
        return _Steps(self.inner.begin(constants, gains=gains), self.inner.amplitude)

    def operations(
        self, *, neurons: float, spikes: float, inputs: float, evaluation: Evaluation = COMPARISONS
    ) -> Operations:
        """Return those of the inner neurons, because rounding needs no further operation."""
        return self.inner.operations(neurons=neurons, spikes=spikes, inputs=inputs, evaluation=evaluation)


@dataclass
class _Steps:
    """Runs `Rounded` in pieces of steps."""

    inner: TrackingSteps
    amplitude: float

    def __call__(self, currents: Sequence[Tensor], *, idle: int, inplace: bool = False) -> Tensor:
        return self.inner(currents, idle=idle, inplace=inplace)

    def rebatch(self, change: Change) -> None:
        self.inner.rebatch(change)

    def ended(self) -> tuple[Tensor, Tensor]:
        residual, target = self.inner.ended()
        rounded = _nearest(target, self.amplitude)
        return residual + rounded - target, rounded


def levelled(fired: Tracked, amplitude: float) -> Tracked:
    """Return the result with its target rounded, if it has a target."""
    if fired.target is None or fired.residual is None:
        return fired
    target = _nearest(fired.target, amplitude)
    return replace(fired, target=target, residual=fired.residual + target - fired.target)


def _nearest(target: Tensor, amplitude: float) -> Tensor:
    return (target * amplitude).round() / amplitude
