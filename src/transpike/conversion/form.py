"""How a value of the model stands in the graph, where the axis of samples always comes first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

__all__ = ["Form"]


@dataclass(frozen=True)
class Form:
    """A value of the model's own shape and the graph's value [N, \\*shape] that stands for it.

    The model may keep its axis of samples anywhere, and merge other axes into it (windows, heads): its axis ``axis`` is
    ``outer * N * inner`` long, row by row. The graph takes the samples out and to the front; what was merged with them
    is an axis of its own, in the same place.

    >>> import torch
    >>> form = Form((7, 4, 5), axis=1, outer=2, inner=2)
    >>> x = torch.randn(3, 7, 4, 5)
    >>> form.own(3), form.back(x).shape, torch.equal(form.front(form.back(x)), x)
    ((7, 12, 5), torch.Size([7, 12, 5]), True)
    """

    shape: tuple[int, ...]
    axis: int = 0
    outer: int = 1
    inner: int = 1

    @property
    def copies(self) -> int:
        return self.outer * self.inner

    @property
    def ndim(self) -> int:
        """How many axes the model's own value has."""
        return len(self.shape) + (self.copies == 1)

    def own(self, samples: int) -> tuple[int, ...]:
        """The model's own shape for so many samples."""
        behind = self.shape[self.axis + (self.copies > 1) :]
        return (*self.shape[: self.axis], self.copies * samples, *behind)

    def dim(self, own: int) -> int | None:
        """The graph's axis for one of the model's own; None for that of the samples."""
        own %= self.ndim
        if own == self.axis:
            return None
        return own + 1 if own < self.axis or self.copies > 1 else own

    def dims(self, own: Sequence[int]) -> list[int] | None:
        """The same for several axes; None if that of the samples is among them."""
        found = [self.dim(axis) for axis in own]
        return None if None in found else [axis for axis in found if axis is not None]

    def front(self, own: Tensor) -> Tensor:
        """The graph's value for the model's own."""
        x: Tensor = own.unflatten(self.axis, (self.outer, -1, self.inner)).movedim(self.axis + 1, 0)
        x = x.flatten(self.axis + 1, self.axis + 2)
        return x.squeeze(self.axis + 1) if self.copies == 1 else x

    def back(self, x: Tensor) -> Tensor:
        """The model's own value for the graph's."""
        if self.copies == 1:
            return x.movedim(0, self.axis)
        merged: Tensor = x.unflatten(self.axis + 1, (self.outer, self.inner)).movedim(0, self.axis + 1)
        return merged.flatten(self.axis, self.axis + 2)

    def reshaped(self, axis: int, copies: int, sizes: Sequence[int]) -> Form | None:
        """The form of a reshape to ``sizes`` (of one sample) with the samples in ``axis``; None if it mixes samples."""
        before = math.prod(self.own(1)[: self.axis]) * self.outer
        ahead = math.prod(sizes[:axis])
        if not ahead or before % ahead or not before or copies % (before // ahead):
            return None
        outer = before // ahead
        return Form(_shape(axis, copies, sizes), axis, outer, copies // outer)

    def like(self, axis: int, copies: int, sizes: Sequence[int]) -> Form | None:
        """The form of another value whose axis of samples holds the same copies, or none."""
        if copies != 1 and copies != self.copies:
            return None
        outer, inner = (1, 1) if copies == 1 else (self.outer, self.inner)
        return Form(_shape(axis, copies, sizes), axis, outer, inner)

    @staticmethod
    def merged(axis: int, copies: int, sizes: Sequence[int]) -> list[Form]:
        """All forms of a value of ``sizes`` (of one sample) whose axis of samples holds so many copies."""
        shape = _shape(axis, copies, sizes)
        return [Form(shape, axis, n, copies // n) for n in range(1, copies + 1) if copies % n == 0]


def _shape(axis: int, copies: int, sizes: Sequence[int]) -> tuple[int, ...]:
    held = (copies,) if copies > 1 else ()
    return (*sizes[:axis], *held, *sizes[axis + 1 :])
