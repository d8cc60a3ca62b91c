"""Runs `transpike.coding.tracking.TrackingNeuron` in pieces of steps, with exactly the same spikes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from transpike.coding.function import Function
from transpike.coding.neuron import gained
from transpike.neurons.inflow import Inflow
from transpike.neurons.pieces import Accumulated, Change, Pieces
from transpike.neurons.tsa import IDENTITY, Code, Piecewise, decode

__all__ = ["Moves", "TrackingSteps"]


@dataclass(frozen=True)
class Moves:
    """Constants that are added to a layer's input: ``each`` at every step, ``first`` once, before the first step."""

    each: Tensor | float = 0.0
    first: Tensor | float = 0.0


class TrackingSteps:
    """A layer that tracks ``function``, with its state: see `transpike.coding.neuron.Steps`.

    Args:
        code: the steps, the radix, the wait and the digits.
        function: the function of real values to track.
        amplitude: theta of the layer.
        last: the value of a unit spike at the last step, in units of theta.
        constants: the function's constants, by name.
        gains: factors of the currents, one for each operand. Without gains, all are 1.
        moves: constants that are added to the current, see `transpike.coding.tracking.TrackingNeuron`. The residual and
            the target are then those of the current before the addition.
    """

    def __init__(
        self,
        code: Code,
        function: Function,
        *,
        amplitude: float,
        last: float,
        constants: Mapping[str, Tensor],
        gains: Sequence[float] = (),
        moves: Moves | None = None,
    ) -> None:
        self.code, self.function, self.constants = code, function, constants
        self.amplitude, self.last, self.moves, unit = amplitude, last, moves, amplitude * last
        self.came: Tensor | None = None  # the sum of the currents before `moves`
        self.exact = function.tracked
        self.value: Tensor | None = None  # the function's value for the last estimates
        ones = (1.0,) * (code.steps + code.silent)
        worths = tuple(unit * beta for beta in code.weights)
        gains = gains or (1.0,) * function.operands
        self.gain, gains = (gains[0], (1.0,)) if moves else (1.0, gains)  # with `moves`, the gain comes first
        self.sums = [Accumulated(code.beta, ones if self.exact else worths, gain) for gain in gains]
        if self.exact:
            tail = function.tail
            tracked = Piecewise(slope=tail.slope, low=tail.low / unit, high=tail.high / unit)
            heard = bool(function.head.calls or moves)
            self.pieces = Pieces(code, tracked, accumulated=heard, gain=1.0 if heard else gains[0])
        else:
            self.pieces = Pieces(code, IDENTITY, accumulated=True, unit=unit)

    def __call__(self, currents: Sequence[Tensor], *, idle: int, inplace: bool = False) -> Tensor:
        """Return the spikes [k, N, \\*] of the next steps."""
        run = self._followed if self.exact else self._evaluated
        return run(currents, idle, None, inplace).to(currents[0].dtype)

    def fed(self, z: Tensor, inflow: Inflow, *, idle: int, inplace: bool) -> Tensor:
        """Return the result of a call with the current that ``inflow`` computes from ``z``. The kernel computes it."""
        run = self._followed if self.exact else self._evaluated
        return run([z], idle, inflow, inplace).to(z.dtype)

    def _followed(self, currents: Sequence[Tensor], idle: int, inflow: Inflow | None, inplace: bool) -> Tensor:
        """Return the spikes if the kernel can track the currents, or a maximum of the accumulated currents."""
        (z,) = currents
        if self.moves and len(z):
            (z,) = gained([z], (self.gain,))
            came = decode(z, beta=1.0)
            self.came = came if self.came is None else self.came + came
            z, inplace = z + self.moves.each, True
        if not self.pieces.accumulated:
            return self.pieces(z, idle=idle, inflow=inflow, inplace=inplace)
        h = self.sums[0](z, idle=idle, inflow=inflow, inplace=inplace)
        if self.function.head.calls:
            value = self.function.head(h.flatten(0, 1), constants=self._like(h), overwrite=True)
            h = value.unflatten(0, h.shape[:2])
        return self.pieces(h.add_(self.moves.first) if self.moves else h, inplace=True)

    def _evaluated(self, currents: Sequence[Tensor], idle: int, inflow: Inflow | None, inplace: bool) -> Tensor:
        """Return the spikes if the function of running estimates is tracked. In idle steps its last value stays."""
        if not len(currents[0]):
            assert self.value is not None
            return self.pieces(self.value, idle=idle - 1)
        firsts = [(inflow, inplace), *[(None, False)] * (len(currents) - 1)]
        real = [
            total(z, inflow=each, inplace=over).flatten(0, 1)
            for total, z, (each, over) in zip(self.sums, currents, firsts, strict=True)
        ]
        value = self.function(*real, constants=self._like(real[0]), overwrite=True)
        value = value.unflatten(0, (len(currents[0]), -1))
        self.value = value[-1:].clone() if self.code.silent else None
        return self.pieces(value, idle=idle, inplace=True)

    def rebatch(self, change: Change) -> None:
        """Replace every tensor of the state by the result of ``change`` for it and its axis of samples."""
        self.pieces.rebatch(change)
        for total in self.sums:
            total.rebatch(change)
        if self.value is not None:
            self.value = change(self.value, 1)
        if self.came is not None:
            self.came = change(self.came, 0)

    def ended(self) -> tuple[Tensor, Tensor]:
        """Return the residual and the target [N, \\*] after the last step, in units of theta."""
        residual, target = (x * self.last for x in self.pieces.ended())
        if self.came is None:
            return residual, target
        said = target - residual
        target = self.function.at(self.came * self.last, unit=self.amplitude, constants=self.constants)
        return target - said, target

    def _like(self, h: Tensor) -> dict[str, Tensor]:
        """Return the constants in the data type of the accumulated input. Masks and indices keep theirs."""
        return {key: c.to(h.dtype) if c.is_floating_point() else c for key, c in self.constants.items()}
