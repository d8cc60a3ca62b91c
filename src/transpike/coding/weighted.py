"""The neuron of schemes whose weights fall by no single ratio; its equation stands in `transpike.neurons.weighted`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transpike.coding.evaluation import COMPARISONS, Evaluation
from transpike.coding.function import Function
from transpike.coding.operations import Operations, amplification
from transpike.coding.scheme import comparisons
from transpike.neurons.tsa import IDENTITY, Piecewise, Tracked
from transpike.neurons.weighted import WeightedCode, fire

__all__ = ["WeightedNeuron"]


@dataclass(frozen=True, kw_only=True)
class WeightedNeuron:
    """A layer of neurons that say ``function`` in ``code``; see `transpike.coding.scheme.Neuron`.

    Which functions there are is what `transpike.coding.tracking.TrackingNeuron.refusal` says.

    Args:
        code: weights, wait and digits.
        function: of real values.
        amplitude: theta.
    """

    code: WeightedCode
    function: Function
    amplitude: float

    def __call__(
        self, currents: Sequence[Tensor], constants: Mapping[str, Tensor], *, inplace: bool, final: bool
    ) -> Tracked:
        """Say the function: its piecewise linear ending in the kernel, what comes before on the accumulated input."""
        function, theta = self.function, self.amplitude
        tail = Piecewise(slope=function.tail.slope, low=function.tail.low / theta, high=function.tail.high / theta)
        if function.tracked and not function.head.calls:
            return fire(currents[0], code=self.code, function=tail, inplace=inplace, final=final)
        heard = [self._accumulated(z).flatten(0, 1) for z in currents]
        like = {key: c.to(heard[0].dtype) if c.is_floating_point() else c for key, c in constants.items()}
        if function.tracked:
            value = function.head(*heard, constants=like)
        else:
            value, tail = function(*(h * theta for h in heard), constants=like) / theta, IDENTITY
        value = value.unflatten(0, (len(self.code.weights), -1))
        fired = fire(value, code=self.code, function=tail, accumulated=True, inplace=True, final=final)
        return Tracked(fired.spikes.to(currents[0].dtype), fired.residual, fired.target)

    def _accumulated(self, z: Tensor) -> Tensor:
        """What each step's input has brought so far."""
        state = torch.promote_types(z.dtype, torch.float32)
        weights = torch.tensor(self.code.weights, dtype=state, device=z.device)
        return (z.to(state) * weights.view(-1, *(1,) * (z.ndim - 1))).cumsum_(0)

    def rule(self) -> None:
        """It is not the tracking neuron's; see `transpike.coding.scheme.Neuron`."""

    def operations(
        self, *, neurons: float, spikes: float, inputs: float, evaluation: Evaluation = COMPARISONS
    ) -> Operations:
        """The own updates over T and the waiting steps, whether or not the neurons fire.

        Each input step weighs and adds the current and the bias; each firing step subtracts what was sent, and compares
        the difference with the thresholds, which follow the weight (a binary search); each spike is weighed and added
        to what was sent. Each further input of a maximum keeps its own sum, and is compared once a firing step.

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
