"""The neuron of schemes whose weights fall by no single ratio; its equation stands in `transpike.neurons.weighted`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

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
        self,
        currents: Sequence[Tensor],
        constants: Mapping[str, Tensor],
        *,
        gains: Sequence[float] = (),
        inplace: bool,
        final: bool,
    ) -> Tracked:
        """Say the function: its piecewise linear ending in the kernel, what comes before on the accumulated input."""
        function, theta, tail = self.function, self.amplitude, self._tail
        if any(gain != 1 for gain in gains):
            currents, inplace = [z * gain for z, gain in zip(currents, gains, strict=True)], True
        if function.tracked and not function.head.calls:
            return fire(currents[0], code=self.code, function=tail, inplace=inplace, final=final)
        heard = [_accumulated(z, self.code.weights).flatten(0, 1) for z in currents]
        like = {key: c.to(heard[0].dtype) if c.is_floating_point() else c for key, c in constants.items()}
        if function.tracked:
            value = function.head(*heard, constants=like)
        else:
            value, tail = function(*(h * theta for h in heard), constants=like) / theta, IDENTITY
        value = value.unflatten(0, (len(self.code.weights), -1))
        fired = fire(value, code=self.code, function=tail, accumulated=True, inplace=True, final=final)
        return Tracked(fired.spikes.to(currents[0].dtype), fired.residual, fired.target)

    @property
    def _tail(self) -> Piecewise:
        tail, theta = self.function.tail, self.amplitude
        return Piecewise(slope=tail.slope, low=tail.low / theta, high=tail.high / theta)

    @property
    def streams(self) -> bool:
        """Whether it can go on where it stopped: without a wait, for functions that the kernel says."""
        return not self.code.wait and self.function.tracked

    def resume(
        self, currents: Sequence[Tensor], constants: Mapping[str, Tensor], state: tuple[Tensor, ...] | None
    ) -> tuple[Tracked, tuple[Tensor, ...]]:
        """Spikes for the next steps of a long current, to the bit those of a whole run, and the state behind them.

        Residual and target are those of what has been heard so far.
        """
        z = currents[0]
        if state is None:
            started = z.new_zeros(z.shape[1:], dtype=torch.promote_types(z.dtype, torch.float32))
            state = (torch.tensor(0), started, torch.zeros(()))
        done, heard, said = state
        code = replace(self.code, weights=self.code.weights[int(done) : int(done) + len(z)])
        trace = _accumulated(z, code.weights, heard)
        value = self.function.head(trace.flatten(0, 1), constants=constants).unflatten(0, (len(z), -1))
        before = value.new_zeros(2, *value.shape[1:])
        before[1] = said
        heard = trace[-1].clone()
        fired = fire(value, code=code, function=self._tail, accumulated=True, final=True, state=before)
        return replace(fired, spikes=fired.spikes.to(z.dtype)), (done + len(z), heard, before[1])

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


def _accumulated(z: Tensor, weights: Sequence[float], before: Tensor | None = None) -> Tensor:
    """What each step's input has brought so far: in the kernel's own order, so that both round alike."""
    held = z.to(torch.promote_types(z.dtype, torch.float32), copy=True)
    for step, weight in enumerate(weights):
        held[step].mul_(weight)
        if step:
            held[step].add_(held[step - 1])
        elif before is not None:
            held[step].add_(before)
    return held
