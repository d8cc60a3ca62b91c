"""The tracking neuron over some of its steps, in plain torch: what ``advance_cpu`` must equal to the bit."""

from __future__ import annotations

import torch
from torch import Tensor

from transpike.neurons.kernels.track_reference import Tables, _digit

__all__ = ["accumulate", "advance"]


def advance(
    source: Tensor, spikes: Tensor, held: Tensor, sent: Tensor, tables: Tables, *, begin: int, accumulated: bool
) -> None:
    """Run the simulation steps ``begin``, ``begin + 1``, ... of ``track_reference.track``, one a row of ``source``.

    ``held`` and ``sent`` ``[neurons]`` are the state, whatever they hold before the first step, and are written.
    ``spikes`` has a row for each of these steps that is not silent.
    """
    silent = max(tables.silent - begin, 0)
    if begin == 0:
        held.zero_()
        sent.zero_()
    for row, current in enumerate(source):
        step = begin + row
        if accumulated:
            held.copy_((current * tables.units[step]).nan_to_num(0.0, torch.inf, -torch.inf))
        else:
            held.mul_(tables.beta).add_(current * tables.gain)
        if row < silent:
            continue
        value = torch.where(held > 0, held, held * tables.slope).clamp(tables.low[step], tables.high[step])
        sent.mul_(tables.beta)
        digit = _digit(value - sent, tables.digits)
        sent.add_(digit * tables.scale)
        spikes[row - silent] = digit


def accumulate(
    source: Tensor, held: Tensor, state: Tensor, *, beta: float, gain: float, units: tuple[float, ...], fresh: bool
) -> None:
    """Write ``units[t]`` times the sum after each row, as ``track_reference.accumulate`` does.

    ``state`` ``[neurons]`` is the sum so far, whatever it holds if ``fresh``, and is written.
    """
    if fresh:
        state.zero_()
    for row, out, unit in zip(source, held, units, strict=True):
        state.mul_(beta).add_(row * gain)
        torch.mul(state, unit, out=out)
