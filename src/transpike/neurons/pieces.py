"""Runs `transpike.neurons.tsa.track` in pieces of steps, and carries the state from piece to piece."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType

import torch
from torch import Tensor

from transpike.neurons import tsa
from transpike.neurons.inflow import Inflow
from transpike.neurons.kernels.track_reference import Carried, Feed, Final
from transpike.neurons.tsa import RELU, Code, Piecewise

__all__ = ["Accumulated", "Change", "Pieces", "joined", "kept"]

Change = Callable[[Tensor, int], Tensor]
"""A function of a tensor and its axis of samples. It returns the tensor for other samples."""


@dataclass
class Pieces:
    """Fires exactly the digits of `transpike.neurons.tsa.track`, some steps at a time.

    Args:
        code: the steps, the radix, the silent steps and the digits.
        function: the function to track.
        accumulated: whether rows hold the accumulated input, or estimates, in place of currents.
        unit: theta in the units of the estimates, if rows hold estimates.
        gain: a factor of each current, if rows hold currents.

    Example:
        >>> pieces = Pieces(Code(steps=4, beta=2.0, silent=1))
        >>> z = torch.tensor([0.0, 1.0, 0.0, -1.0])[:, None]
        >>> pieces(z[:2]).flatten().tolist(), pieces(z[2:4], idle=1).flatten().tolist()
        ([1.0], [-1.0, -1.0, 1.0])
    """

    code: Code
    function: Piecewise = RELU
    accumulated: bool = False
    unit: float | None = None
    gain: float = 1.0
    step: int = field(default=0, init=False)
    state: Tensor | None = field(default=None, init=False)

    @torch.no_grad()
    def __call__(self, rows: Tensor, *, idle: int = 0, inflow: Inflow | None = None, inplace: bool = False) -> Tensor:
        """Return the digits [k, N, \\*] of the next steps. k is the number of those that are not silent.

        Args:
            rows: the inputs of the next steps, [steps, N, \\*]. Of estimates there must be at least one.
            idle: the number of further steps. In these no current arrives, and the last estimate stays.
            inflow: an operation on each current before.
            inplace: whether the digits may overwrite ``rows``.
        """
        backend, source, feed, self.state = _laid_out(rows, self.state, 2, inflow)
        fired = max(len(rows) + idle - max(self.code.silent - self.step, 0), 0)
        reuse = (inplace or source.data_ptr() != rows.data_ptr()) and fired <= len(source)
        spikes = source[:fired] if reuse else tsa._allocate(fired, self.state[0], source.dtype)
        if self.state.numel() and len(rows) + idle:
            tables = tsa._tables(self.code, self.function, self.unit, self.gain)
            nothing = Final(empty := source.new_empty(0), empty)
            carried = Carried(tsa._flat(self.state), self.step, idle)
            arguments = (tsa._flat(source), tsa._flat(spikes), nothing, tables)
            backend.track(*arguments, accumulated=self.accumulated, feed=feed, carried=carried)
        self.step += len(rows) + idle
        return spikes.to(rows.dtype)

    def ended(self) -> tuple[Tensor, Tensor]:
        """Return the residual and the target [N, \\*] after the last step, in units of theta."""
        assert self.state is not None
        held, sent = self.state / self.code.beta**self.code.silent
        target = self.function(held)
        return target - sent, target

    def rebatch(self, change: Change) -> None:
        """Replace every tensor of the state by the result of ``change`` for it and its axis of samples."""
        if self.state is not None:
            self.state = change(self.state, 1)


@dataclass
class Accumulated:
    """Computes exactly the sums of `transpike.neurons.tsa.accumulate` and `estimate`, some steps at a time.

    Args:
        beta: the radix.
        worths: the factor of the sum at each step.
        gain: a factor of each current.

    Example:
        >>> sums = Accumulated(2.0, (2.0, 1.0, 0.5))
        >>> sums(torch.tensor([[1.0]])).item(), sums(torch.tensor([[0.0], [-1.0]])).flatten().tolist()
        (2.0, [2.0, 1.5])
    """

    beta: float
    worths: tuple[float, ...]
    gain: float = 1.0
    step: int = field(default=0, init=False)
    state: Tensor | None = field(default=None, init=False)

    @torch.no_grad()
    def __call__(self, rows: Tensor, *, idle: int = 0, inflow: Inflow | None = None, inplace: bool = False) -> Tensor:
        """Return the sums [steps + idle, N, \\*] after each of the next steps.

        Args:
            rows: the currents of the next steps, [steps, N, \\*].
            idle: the number of further steps, in which no current arrives.
            inflow: an operation on each current before.
            inplace: whether the sums may overwrite ``rows``.
        """
        backend, source, feed, self.state = _laid_out(rows, self.state, 1, inflow)
        steps, dtype = len(rows) + idle, self.state.dtype
        reuse = (inplace or source.data_ptr() != rows.data_ptr()) and source.dtype == dtype and not idle
        held = source if reuse else tsa._allocate(steps, self.state[0], dtype)
        if held.numel():
            units = self.worths[self.step : self.step + steps]
            carried = Carried(tsa._flat(self.state), self.step)
            backend.accumulate(
                tsa._flat(source), tsa._flat(held),
                beta=self.beta, units=units, gain=self.gain, feed=feed, carried=carried,
            )  # fmt: skip
        self.step += steps
        return held

    def rebatch(self, change: Change) -> None:
        """Replace every tensor of the state by the result of ``change`` for it and its axis of samples."""
        if self.state is not None:
            self.state = change(self.state, 1)


def kept(x: Tensor, samples: Tensor, *, axis: int) -> Tensor:
    """Return ``x`` with only these samples along an axis, in the same memory format.

    Example:
        >>> kept(torch.arange(6.0).view(2, 3), torch.tensor([0, 2]), axis=1).tolist()
        [[0.0, 2.0], [3.0, 5.0]]
    """
    order = sorted(range(x.ndim), key=x.stride, reverse=True)
    rows = x.permute(order).index_select(order.index(axis), samples)
    return rows.permute([order.index(k) for k in range(x.ndim)])


def joined(parts: Sequence[Tensor], *, axis: int) -> Tensor:
    """Concatenate tensors along an axis, in the memory format of the first.

    Example:
        >>> joined([torch.zeros(2, 1), torch.ones(2, 2)], axis=1).tolist()
        [[0.0, 1.0, 1.0], [0.0, 1.0, 1.0]]
    """
    order = sorted(range(parts[0].ndim), key=parts[0].stride, reverse=True)
    rows = torch.cat([part.permute(order) for part in parts], order.index(axis))
    return rows.permute([order.index(k) for k in range(parts[0].ndim)])


def _laid_out(
    rows: Tensor, state: Tensor | None, values: int, inflow: Inflow | None
) -> tuple[ModuleType, Tensor, Feed, Tensor]:
    """Return the backend, the rows in the memory layout of the state, the kernel's operation on them, and the state.

    The state [values, N, \\*] has the layout of the first rows. It is created for these, if it is None.
    """
    backend, source, feed = tsa._fed(rows, inflow if len(rows) else None, rows=len(rows))
    if state is None:
        return backend, source, feed, tsa._allocate(values, source[0], tsa._state(source))
    if state.stride()[1:] != source.stride()[1:]:
        source = inflow.apply(rows) if inflow and len(rows) else source
        source = tsa._allocate(len(source), state[0], source.dtype).copy_(source)
        feed = Feed()
    return backend, source, feed, state
