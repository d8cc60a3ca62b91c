"""How a value of the model is stored in the graph, where the axis of samples always comes first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

__all__ = ["Form"]


@dataclass(frozen=True)
class Form:
    """The relation between a value in the model's own shape and the graph's value [N, \\*shape] for it.

    The model may have its axis of samples anywhere, and may merge other axes into it (windows, heads). Then its axis
    ``axis`` has length ``outer * N * inner``, in row-major order. The graph moves the samples to the front. The axes
    that were merged with them form one axis, in the same place.

    Example:
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
        """The number of axes of the model's own value."""
        return len(self.shape) + (self.copies == 1)

    def own(self, samples: int) -> tuple[int, ...]:
        """Return the model's own shape for so many samples."""
        behind = self.shape[self.axis + (self.copies > 1) :]
        return (*self.shape[: self.axis], self.copies * samples, *behind)

    def dim(self, own: int) -> int | None:
        """Return the graph's axis for one of the model's own axes, or None for the axis of samples."""
        own %= self.ndim
        if own == self.axis:
            return None
        return own + 1 if own < self.axis or self.copies > 1 else own

    def dims(self, own: Sequence[int]) -> list[int] | None:
        """Return the same for several axes, or None if the axis of samples is among them."""
        axes = [self.dim(axis) for axis in own]
        return None if None in axes else [axis for axis in axes if axis is not None]

    def front(self, own: Tensor) -> Tensor:
        """Convert the model's own value to the graph's value."""
        x: Tensor = own.unflatten(self.axis, (self.outer, -1, self.inner)).movedim(self.axis + 1, 0)
        x = x.flatten(self.axis + 1, self.axis + 2)
        return x.squeeze(self.axis + 1) if self.copies == 1 else x

    def back(self, x: Tensor) -> Tensor:
        """Convert the graph's value to the model's own value."""
        if self.copies == 1:
            return x.movedim(0, self.axis)
        merged: Tensor = x.unflatten(self.axis + 1, (self.outer, self.inner)).movedim(0, self.axis + 1)
        return merged.flatten(self.axis, self.axis + 2)

    def reshaped(self, axis: int, copies: int, sizes: Sequence[int]) -> Form | None:
        """Return the form of a reshape to ``sizes`` (of a sample) with samples in ``axis``. None if it mixes them."""
        before = math.prod(self.own(1)[: self.axis]) * self.outer
        ahead = math.prod(sizes[:axis])
        if not ahead or before % ahead or not before or copies % (before // ahead):
            return None
        outer = before // ahead
        return Form(_shape(axis, copies, sizes), axis, outer, copies // outer)

    def like(self, axis: int, copies: int, sizes: Sequence[int]) -> Form | None:
        """Return the form of another value whose axis of samples has the same copies, or no copies."""
        if copies != 1 and copies != self.copies:
            return None
        outer, inner = (1, 1) if copies == 1 else (self.outer, self.inner)
        return Form(_shape(axis, copies, sizes), axis, outer, inner)

    @staticmethod
    def merged(axis: int, copies: int, sizes: Sequence[int]) -> list[Form]:
        """Return all forms of a value of ``sizes`` (of one sample) whose axis of samples has so many copies."""
        shape = _shape(axis, copies, sizes)
        return [Form(shape, axis, n, copies // n) for n in range(1, copies + 1) if copies % n == 0]


def _shape(axis: int, copies: int, sizes: Sequence[int]) -> tuple[int, ...]:
    merged = (copies,) if copies > 1 else ()
    return (*sizes[:axis], *merged, *sizes[axis + 1 :])
