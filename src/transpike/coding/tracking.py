"""The neuron of schemes whose weights fall by one ratio: it tracks a function of its running weighted input.

At every step the neuron fires the digit nearest to the error of its train: the function of the input so far, minus what
the train already represents. `transpike.neurons.tsa.track` contains the equation. A soft-reset integrate-and-fire
neuron is the case of ratio 1 and digits 0 and 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from transpike.coding.evaluation import COMPARISONS, Evaluation
from transpike.coding.function import RELATIVE, Function
from transpike.coding.operations import Operations, amplification
from transpike.coding.scheme import comparisons
from transpike.coding.stepping import Moves, TrackingSteps
from transpike.neurons.inflow import Inflow
from transpike.neurons.tsa import IDENTITY, Code, Piecewise, Tracked, accumulate, decode, estimate, track
from transpike.neurons.windows import Window, track_windows

__all__ = ["TrackingNeuron"]


@dataclass(frozen=True, kw_only=True)
class TrackingNeuron:
    """A layer of neurons that tracks ``function``; see `transpike.coding.neuron.Neuron`.

    Args:
        code: steps, ratio of the weights, wait and digits.
        function: of real values. `refusal` tells which functions are possible.
        amplitude: theta.
        last: the value of a unit spike at the last step, in units of theta.
    """

    code: Code
    function: Function
    amplitude: float
    last: float = 1.0

    @staticmethod
    def refusal(function: Function, *, signed: bool) -> str | None:
        """Return the reason why no such neuron exists, or None if one does.

        Example:
            >>> TrackingNeuron.refusal(Function.of("leaky_relu.default", 0, 0.1), signed=False)
            'without negative spikes only functions that are never negative, such as ReLU, have a neuron'
        """
        real, tail = function.real, function.real.tail
        if signed:
            return None
        if not real.tracked:
            return f"{real.name} has no neuron in this scheme: it is neither piecewise linear nor a maximum"
        if tail.slope != 0 and tail.low < 0:
            return "without negative spikes only functions that are never negative, such as ReLU, have a neuron"
        return None

    def __call__(
        self,
        currents: Sequence[Tensor],
        constants: Mapping[str, Tensor],
        *,
        gains: Sequence[float] = (),
        inplace: bool,
        final: bool,
    ) -> Tracked:
        """Track the function. The kernel computes its piecewise linear ending; the rest acts on the accumulated input.

        A function of another form is applied as a whole to the running estimate of each operand.

        The kernel also divides a function with bounds by the amplitudes of channels.
        """
        gains = gains or (1.0,) * len(currents)
        if len(currents) == 1:
            return self.fed(currents[0], None, constants, gains=gains, inplace=inplace, final=final)
        fired = self._estimated(currents, None, constants, gains, inplace=inplace, final=final)
        return fired if self.last == 1 else _rescaled(fired, self.last)

    def fed(
        self,
        z: Tensor,
        inflow: Inflow | None,
        constants: Mapping[str, Tensor],
        *,
        gains: Sequence[float] = (),
        inplace: bool,
        final: bool,
    ) -> Tracked:
        """Return the result of a call with the current that ``inflow`` computes from ``z``; the kernel computes it."""
        (gain,) = gains or (1.0,)
        if (clipped := self.function.clipped) is not None:
            fired = track(
                z,
                code=self.code,
                function=clipped,
                unit=self.amplitude * self.last,
                relative=constants[RELATIVE].to(z.dtype if z.dtype == torch.float64 else torch.float32),
                gain=gain,
                inflow=inflow,
                inplace=inplace,
                final=final,
            )
        elif not self.function.tracked:
            fired = self._estimated([z], inflow, constants, (gain,), inplace=inplace, final=final)
        elif (window := self.function.head.window) and (found := self._pooled(z, window, gain, inflow, final)):
            fired = found
        elif self.function.head.calls:
            fired = track(
                self.heard(z, constants, gain=gain, inflow=inflow),
                code=self.code,
                function=self._tail,
                accumulated=True,
                inplace=True,
                final=final,
            )
            fired = replace(fired, spikes=fired.spikes.to(z.dtype))
        else:
            tail = self._tail
            fired = track(z, code=self.code, function=tail, gain=gain, inflow=inflow, inplace=inplace, final=final)
        return fired if self.last == 1 else _rescaled(fired, self.last)

    def _pooled(self, z: Tensor, window: Window, gain: float, inflow: Inflow | None, final: bool) -> Tracked | None:
        """Return the spikes for a maximum over windows, or None if no kernel can compute them."""
        return track_windows(z, window, code=self.code, function=self._tail, gain=gain, inflow=inflow, final=final)

    @property
    def _tail(self) -> Piecewise:
        """The piecewise linear ending, in units of the last step."""
        tail, unit = self.function.tail, self.amplitude * self.last
        return Piecewise(slope=tail.slope, low=tail.low / unit, high=tail.high / unit)

    def heard(
        self, z: Tensor, constants: Mapping[str, Tensor], *, gain: float = 1.0, inflow: Inflow | None = None
    ) -> Tensor:
        """Return the accumulated input after each step [T + Ts, N, \\*], as the piecewise linear ending reads it."""
        heard = accumulate(z, beta=self.code.beta, silent=self.code.silent, gain=gain, inflow=inflow)
        if not self.function.head.calls:
            return heard
        result = self.function.head(heard.flatten(0, 1), constants=_like(heard, constants), overwrite=True)
        value: Tensor = result.unflatten(0, heard.shape[:2])
        return value

    def moved(
        self,
        z: Tensor,
        constants: Mapping[str, Tensor],
        moves: Moves,
        *,
        final: bool,
    ) -> Tracked:
        """Return the result of a call with a current added at every step, and a higher first membrane potential.

        This needs ratio 1. Residual and target are those of the current without the addition.
        """
        heard = self.heard(z + moves.each, constants).add_(moves.first)
        spikes = track(heard, code=self.code, function=self._tail, accumulated=True, inplace=True).spikes.to(z.dtype)
        if not final:
            return Tracked(spikes)
        target = self.function.at(decode(z, beta=1.0) * self.last, unit=self.amplitude, constants=constants)
        return Tracked(spikes, target - decode(spikes, beta=1.0) * self.last, target)

    def _estimated(
        self,
        currents: Sequence[Tensor],
        inflow: Inflow | None,
        constants: Mapping[str, Tensor],
        gains: Sequence[float],
        *,
        inplace: bool,
        final: bool,
    ) -> Tracked:
        """Track the function of the operands' running estimates.

        The kernel brings its value to the scale of each step. It waits while the first digits leave a quotient
        undefined.
        """
        beta, unit = self.code.beta, self.amplitude * self.last
        firsts = [(inflow, inplace), *[(None, False)] * (len(currents) - 1)]
        real = [
            estimate(z, beta=beta, unit=unit, gain=gain, inflow=made, inplace=over).flatten(0, 1)
            for z, gain, (made, over) in zip(currents, gains, firsts, strict=True)
        ]
        value = self.function(*real, constants=_like(real[0], constants), overwrite=True)
        value = value.unflatten(0, (self.code.steps, -1))
        fired = track(value, code=self.code, function=IDENTITY, unit=unit, inplace=True, final=final)
        return replace(fired, spikes=fired.spikes.to(currents[0].dtype))

    def rule(self) -> dict[str, object]:
        """Return the firing rule as plain data, for readers without this class.

        Example:
            >>> TrackingNeuron(code=Code(steps=8, beta=2.0), function=Function(), amplitude=1.0).rule()
            {'beta': 2.0, 'levels': [1], 'signed': True, 'start': 0.5, 'last': 1.0}
        """
        code = self.code
        start = code.start if code.start is not None else 0.5 if code.signed else 0.0
        return {
            "beta": code.beta, "levels": list(code.levels), "signed": code.signed, "start": start, "last": self.last,
        }  # fmt: skip

    def begin(
        self, constants: Mapping[str, Tensor], *, gains: Sequence[float] = (), moves: Moves | None = None
    ) -> TrackingSteps:
        """Return the layer before its first step, to run in pieces of steps; with ``moves``, as in `moved`."""
        return TrackingSteps(
            self.code,
            self.function,
            amplitude=self.amplitude,
            last=self.last,
            constants=constants,
            gains=gains,
            moves=moves,
        )

    def operations(
        self, *, neurons: float, spikes: float, inputs: float, evaluation: Evaluation = COMPARISONS
    ) -> Operations:
        """Return the operations of the layer's own updates over all steps, whether or not the neurons fire.

        Each step amplifies two sums: the input and the output so far. Each input step adds the bias. Each firing step
        subtracts one sum from the other and compares the difference with the thresholds (a binary search). Each spike
        is added to the sum of the output. If a neuron tracks the maximum of several inputs, each input has its own sum,
        and the sums are compared once in each firing step. Any other function is evaluated once in each step.

        Example:
            >>> layer = TrackingNeuron(code=Code(steps=8, beta=2.0), function=Function(), amplitude=1.0)
            >>> work = layer.operations(neurons=1, spikes=2, inputs=1)
            >>> work.neuron_shifts, work.neuron_accumulates, work.neuron_multiplications
            (18, 26, 0)
        """
        code, further = self.code, max(inputs - neurons, 0)
        additions = neurons * code.steps * (2 + comparisons((0, *code.levels))) + spikes + 2 * further * code.steps
        amplified = (2 * neurons + further) * (code.steps + code.silent)
        own = amplification(code.beta) * amplified + Operations(neuron_accumulates=additions)
        if self.function.tracked:
            return own
        once = Operations(function_additions=evaluation.additions, function_multiplications=evaluation.multiplications)
        return own + once * (code.steps + code.silent)


def _rescaled(fired: Tracked, unit: float) -> Tracked:
    if fired.residual is None or fired.target is None:
        return fired
    return replace(fired, residual=fired.residual * unit, target=fired.target * unit)


def _like(h: Tensor, constants: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return constants in the dtype of the accumulated input; masks and indices stay as they are."""
    return {key: c.to(h.dtype) if c.is_floating_point() else c for key, c in constants.items()}
