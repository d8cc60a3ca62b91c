"""The neuron of schemes whose weights have no single ratio. `transpike.neurons.weighted` contains its equation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from transpike.coding.evaluation import COMPARISONS, Evaluation
from transpike.coding.function import Function
from transpike.coding.neuron import gained
from transpike.coding.operations import Operations, amplification
from transpike.coding.scheme import comparisons
from transpike.neurons.pieces import Change
from transpike.neurons.tsa import IDENTITY, Piecewise, Tracked
from transpike.neurons.weighted import WeightedCode, fire

__all__ = ["WeightedNeuron", "WeightedSteps"]


@dataclass(frozen=True, kw_only=True)
class WeightedNeuron:
    """A layer of neurons that represents ``function`` in ``code``; see `transpike.coding.neuron.Neuron`.

    `transpike.coding.tracking.TrackingNeuron.refusal` tells which functions are possible.

    Args:
        code: weights, wait and digits.
        function: of real values.
        amplitude: theta.
    """

    code: WeightedCode
    function: Function
    amplitude: float

    def __call__(
        self,
        currents: Sequence[Tensor],
        constants: Mapping[str, Tensor],
        *,
        gains: Sequence[float] = (),
        inplace: bool,
        final: bool,
    ) -> Tracked:
        """Compute the spikes: the kernel computes the function's piecewise linear ending from the accumulated input."""
        function = self.function
        if any(gain != 1 for gain in gains):
            currents, inplace = gained(currents, gains), True
        if function.tracked and not function.head.calls:
            return fire(currents[0], code=self.code, function=self.tail, inplace=inplace, final=final)
        value = self.value([_accumulated(z, self.code.weights) for z in currents], constants)
        fired = fire(value, code=self.code, function=self.tail, accumulated=True, inplace=True, final=final)
        return Tracked(fired.spikes.to(currents[0].dtype), fired.residual, fired.target)

    def value(self, heard: Sequence[Tensor], constants: Mapping[str, Tensor]) -> Tensor:
        """Return the function without its ending for the accumulated inputs ``heard``, each [steps, N, \\*]."""
        function, theta, steps = self.function, self.amplitude, len(heard[0])
        flat = [h.flatten(0, 1) for h in heard]
        like = {key: c.to(flat[0].dtype) if c.is_floating_point() else c for key, c in constants.items()}
        if function.tracked:
            result = function.head(*flat, constants=like)
        else:
            result = function(*(h * theta for h in flat), constants=like) / theta
        value: Tensor = result.unflatten(0, (steps, -1))
        return value

    @property
    def tail(self) -> Piecewise:
        """The piecewise linear ending of the function, in units of theta."""
        tail, theta = self.function.tail, self.amplitude
        if not self.function.tracked:
            return IDENTITY
        return Piecewise(slope=tail.slope, low=tail.low / theta, high=tail.high / theta)

    def begin(self, constants: Mapping[str, Tensor], *, gains: Sequence[float] = ()) -> WeightedSteps:
        """Return the layer before its first step, to run in pieces of steps."""
        return WeightedSteps(self, constants, gains)

    def operations(
        self, *, neurons: float, spikes: float, inputs: float, evaluation: Evaluation = COMPARISONS
    ) -> Operations:
        """Return the operations of the layer's own updates over all steps, whether or not the neurons fire.

        Each input step weighs and adds the current and the bias. Each firing step subtracts the sum of the output and
        compares the difference with the thresholds (a binary search), which follow the weight. Each spike is weighed
        and added to the sum of the output. Each further input of a maximum has its own sum, and is compared once in
        each firing step.

        Example:
            >>> layer = WeightedNeuron(code=WeightedCode(weights=(0.5, 0.25)), function=Function(), amplitude=1.0)
            >>> work = layer.operations(neurons=1, spikes=2, inputs=1)
            >>> work.neuron_shifts, work.neuron_accumulates
            (4.0, 10.0)
        """
        steps, further = len(self.code.weights), max(inputs - neurons, 0)
        weighing = sum((amplification(weight) for weight in self.code.weights), Operations())
        additions = neurons * steps * (3 + comparisons((0, *self.code.levels))) + spikes + 2 * further * steps
        own = weighing * (neurons + further + spikes / steps) + Operations(neuron_accumulates=additions)
        if self.function.tracked:
            return own
        once = Operations(function_additions=evaluation.additions, function_multiplications=evaluation.multiplications)
        return own + once * (steps + self.code.wait)


class WeightedSteps:
    """Runs a `WeightedNeuron` in pieces of steps and keeps its state: see `transpike.coding.neuron.Steps`.

    Args:
        layer: the neurons.
        constants: the constants of their function, by name.
        gains: factors of the currents, one for each operand. Without gains, all are 1.
    """

    def __init__(self, layer: WeightedNeuron, constants: Mapping[str, Tensor], gains: Sequence[float]) -> None:
        self.layer, self.constants, self.gains = layer, constants, gains
        self.step = 0
        self.sums: list[Tensor] = []  # the accumulated input of each operand
        self.value: Tensor | None = None  # the value to represent after the last step
        self.state: Tensor | None = None  # the kernel's state

    def __call__(self, currents: Sequence[Tensor], *, idle: int, inplace: bool = False) -> Tensor:
        """Return the spikes [k, N, \\*] of the next steps, never in place."""
        code, steps = self.layer.code, len(currents[0])
        parts = []
        if steps:
            weights, before = code.weights[self.step : self.step + steps], self.sums or (None,) * len(currents)
            inputs = zip(gained(currents, self.gains), before, strict=True)
            heard = [_accumulated(z, weights, held) for z, held in inputs]
            self.sums = [h[-1].clone() for h in heard]
            parts.append(self.layer.value(heard, self.constants))
            self.value = parts[0][-1:].clone()
        assert self.value is not None
        if idle:
            parts.append(self.value.expand(idle, *self.value.shape[1:]))
        rows = torch.cat(parts)[max(code.wait - self.step, 0) :]
        first = max(self.step - code.wait, 0)
        self.step += steps + idle
        if self.state is None:
            self.state = self.value.new_zeros(2, *self.value.shape[1:])
        if not len(rows):
            return rows.to(currents[0].dtype)
        next_ = replace(code, weights=code.weights[first : first + len(rows)], wait=0)
        fired = fire(rows, code=next_, function=self.layer.tail, accumulated=True, inplace=True, state=self.state)
        return fired.spikes.to(currents[0].dtype)

    def rebatch(self, change: Change) -> None:
        """Replace every tensor of the state by the result of ``change`` for it and its axis of samples."""
        self.sums = [change(held, 0) for held in self.sums]
        if self.value is not None and self.state is not None:
            self.value, self.state = (change(x, 1) for x in (self.value, self.state))

    def ended(self) -> tuple[Tensor, Tensor]:
        """Return the residual and the target [N, \\*] after the last step, in units of theta."""
        assert self.value is not None and self.state is not None
        target = self.layer.tail(self.value[0].nan_to_num(0.0, torch.inf, -torch.inf))
        return target - self.state[1], target


def _accumulated(z: Tensor, weights: Sequence[float], before: Tensor | None = None) -> Tensor:
    """Return the accumulated input after each step. Sums have the kernel's order, so that both round alike."""
    weighted = z.to(torch.promote_types(z.dtype, torch.float32), copy=True)
    for step, weight in enumerate(weights):
        weighted[step].mul_(weight)
        if step:
            weighted[step].add_(weighted[step - 1])
        elif before is not None:
            weighted[step].add_(before)
    return weighted
