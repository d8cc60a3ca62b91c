"""The tracking neuron in pieces of steps; it fires what `transpike.coding.tracking.TrackingNeuron` does, to the bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from transpike.coding.function import Function
from transpike.neurons.pieces import Accumulated, Pieces, kept
from transpike.neurons.tsa import IDENTITY, Code, Piecewise

__all__ = ["TrackingSteps"]


class TrackingSteps:
    """A layer that tracks ``function``, with its state: see `transpike.coding.scheme.Steps`.

    Args:
        code: steps, ratio of the weights, wait and digits.
        function: of real values.
        unit: the worth of a unit spike at the last step, in real units.
        constants: of the function, by name.
        gains: multiply the currents, one an operand; without any, all are 1.
    """

    def __init__(
        self,
        code: Code,
        function: Function,
        *,
        unit: float,
        constants: Mapping[str, Tensor],
        gains: Sequence[float] = (),
    ) -> None:
        self.code, self.function, self.constants = code, function, constants
        self.exact = function.tracked
        self.value: Tensor | None = None  # the function of the last estimates
        ones = (1.0,) * (code.steps + code.silent)
        worths = tuple(unit * beta for beta in code.weights)
        gains = gains or (1.0,) * function.operands
        self.sums = [Accumulated(code.beta, ones if self.exact else worths, gain) for gain in gains]
        if self.exact:
            tail = function.tail
            tracked = Piecewise(slope=tail.slope, low=tail.low / unit, high=tail.high / unit)
            heard = bool(function.head.calls)
            self.pieces = Pieces(code, tracked, accumulated=heard, gain=1.0 if heard else gains[0])
        else:
            self.pieces = Pieces(code, IDENTITY, accumulated=True, unit=unit)

    def __call__(self, currents: Sequence[Tensor], *, idle: int) -> Tensor:
        """The spikes [k, N, \\*] of the next steps."""
        value = self._followed(currents[0], idle) if self.exact else self._evaluated(currents, idle)
        return self.pieces(value).to(currents[0].dtype)

    def _followed(self, z: Tensor, idle: int) -> Tensor:
        """What the kernel tracks: currents, or a maximum of what they have brought."""
        z = torch.cat([z, z.new_zeros(idle, *z.shape[1:])]) if idle else z
        if not self.pieces.accumulated:
            return z
        h = self.sums[0](z)
        value = self.function.head(h.flatten(0, 1), constants=self._like(h), overwrite=True)
        followed: Tensor = value.unflatten(0, h.shape[:2])
        return followed

    def _evaluated(self, currents: Sequence[Tensor], idle: int) -> Tensor:
        """The function of the running estimates; the last one holds on."""
        values = []
        if steps := len(currents[0]):
            real = [total(z).flatten(0, 1) for total, z in zip(self.sums, currents, strict=True)]
            value = self.function(*real, constants=self._like(real[0]), overwrite=True)
            values.append(value.unflatten(0, (steps, -1)))
            self.value = values[0][-1:]
        if idle:
            assert self.value is not None
            values.append(self.value.expand(idle, *self.value.shape[1:]))
        return torch.cat(values) if len(values) > 1 else values[0]

    def keep(self, samples: Tensor) -> None:
        """Go on with these samples alone, by their numbers."""
        self.pieces.keep(samples)
        for total in self.sums:
            total.keep(samples)
        if self.value is not None:
            self.value = kept(self.value, samples, axis=1)

    def _like(self, h: Tensor) -> dict[str, Tensor]:
        """Constants in the type of the accumulated input; masks and indices as they are."""
        return {key: c.to(h.dtype) if c.is_floating_point() else c for key, c in self.constants.items()}
