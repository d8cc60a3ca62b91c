"""The neuron of schemes whose weights fall by one ratio: it tracks a function of its running weighted input.

At every step the neuron fires the digit nearest to what its train still misses of the function of what has come in. The
equation stands in `transpike.neurons.tsa.track`; a soft-reset integrate-and-fire neuron is the case of ratio 1 and
digits 0 and 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from transpike.coding.function import Function
from transpike.coding.operations import Operations, amplification
from transpike.coding.scheme import comparisons
from transpike.neurons.tsa import Code, Piecewise, Tracked, accumulate, track

__all__ = ["TrackingNeuron"]


@dataclass(frozen=True, kw_only=True)
class TrackingNeuron:
    """A layer that tracks ``function``; see `transpike.coding.scheme.Neuron`.

    Args:
        code: steps, ratio of the weights, wait and digits.
        function: of real values; see `refusal` for what it may be.
        amplitude: theta.
        last: the worth of a unit spike at the last step, in units of theta.
    """

    code: Code
    function: Function
    amplitude: float
    last: float = 1.0

    @staticmethod
    def refusal(function: Function, *, signed: bool) -> str | None:
        """Why there is no such neuron; None if there is.

        Example:
            >>> TrackingNeuron.refusal(Function.of("leaky_relu.default", 0, 0.1), signed=False)
            'without negative spikes only functions that are never negative, such as ReLU, have a neuron'
        """
        tail = function.tail
        if not function.tracked:
            return f"{function.name} has no neuron in this scheme: it is neither piecewise linear nor a maximum"
        if not signed and tail.slope != 0 and tail.low < 0:
            return "without negative spikes only functions that are never negative, such as ReLU, have a neuron"
        return None

    def __call__(
        self, currents: Sequence[Tensor], constants: Mapping[str, Tensor], *, inplace: bool, final: bool
    ) -> Tracked:
        """Track the function: its piecewise linear ending in the kernel, what comes before on the accumulated input."""
        (z,) = currents
        head, tail = self.function.head, self.function.tail
        unit = self.amplitude * self.last
        function = Piecewise(slope=tail.slope, low=tail.low / unit, high=tail.high / unit)
        if head.calls:
            h = accumulate(z, beta=self.code.beta, silent=self.code.silent)
            held = {key: constant.to(h.dtype) for key, constant in constants.items()}
            h = head(h.flatten(0, 1), constants=held).unflatten(0, h.shape[:2])
            fired = track(h, code=self.code, function=function, accumulated=True, inplace=True, final=final)
            fired = replace(fired, spikes=fired.spikes.to(z.dtype))
        else:
            fired = track(z, code=self.code, function=function, inplace=inplace, final=final)
        if self.last == 1 or fired.residual is None or fired.target is None:
            return fired
        return replace(fired, residual=fired.residual * self.last, target=fired.target * self.last)

    def operations(self, *, neurons: float, spikes: float, inputs: float) -> Operations:
        """The own updates over T and the waiting steps, whether or not the neurons fire.

        Each step amplifies two sums, of what came in and of what was sent; each input step adds the bias; each firing
        step subtracts one from the other and compares the difference with the thresholds (a binary search); each spike
        is added to what was sent. Where a neuron tracks the maximum of several inputs, each keeps its own sum, and is
        compared once a firing step.

        Example:
            >>> layer = TrackingNeuron(code=Code(steps=8, beta=2.0), function=Function(), amplitude=1.0)
            >>> work = layer.operations(neurons=1, spikes=2, inputs=1)
            >>> work.neuron_shifts, work.neuron_accumulates, work.neuron_multiplications
            (18, 26, 0)
        """
        code, further = self.code, max(inputs - neurons, 0)
        additions = neurons * code.steps * (2 + comparisons((0, *code.levels))) + spikes + 2 * further * code.steps
        amplified = (2 * neurons + further) * (code.steps + code.silent)
        return amplification(code.beta) * amplified + Operations(neuron_accumulates=additions)
