"""The tracking neuron over some of its steps on the CPU: Numba, blocked over neurons.

Same interface as ``advance_reference``, for float32.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from transpike.neurons.kernels.threads import compiled, spread
from transpike.neurons.kernels.track_cpu import _ALIGN, _BLOCK, _FEW, _arrays, _constants, _digit
from transpike.neurons.kernels.track_reference import Tables

__all__ = ["accumulate", "advance"]


@compiled
def _advance(  # type: ignore[no-untyped-def]
    source,
    spikes,
    held_by,
    sent_by,
    accumulated,
    begin,
    silent,
    constants,
    low,
    high,
    units,
    rising,
    increments,
    rounding,
    first,
    last,
):
    zero = np.float32(0)
    beta, scale, slope, gain = constants[0], constants[1], constants[3], constants[4]
    mirror = rounding[3]
    few = len(rising) == _FEW
    second, third, fourth = (1, 2, 3) if few else (0, 0, 0)
    r0, r1, r2, r3 = rising[0], rising[second], rising[third], rising[fourth]
    i0, i1, i2, i3 = increments[0], increments[second], increments[third], increments[fourth]
    value = np.empty(_BLOCK, np.float32)
    for start in range(first, last, _BLOCK):
        stop = min(start + _BLOCK, last)
        width = stop - start
        held, sent = held_by[start:stop], sent_by[start:stop]
        if begin == 0:
            held[:] = zero
            sent[:] = zero
        for k in range(len(source)):
            row, step = source[k, start:stop], begin + k
            if accumulated:
                unit = units[step]
                for j in range(width):
                    h = row[j] * unit
                    held[j] = h if h == h else zero
            else:
                for j in range(width):
                    held[j] = held[j] * beta + row[j] * gain
            if k < silent:
                continue
            bottom, ceiling = low[step], high[step]
            digit = spikes[k - silent, start:stop]
            if few:  # in one pass
                for j in range(width):
                    h = held[j]
                    v = h if h > zero else h * slope
                    v = v if v > bottom else bottom
                    v = v if v < ceiling else ceiling
                    before = sent[j] * beta
                    v = v - before
                    size = v if v > zero else v * mirror
                    d = (i0 if size >= r0 else zero) + (i1 if size >= r1 else zero)
                    d = d + ((i2 if size >= r2 else zero) + (i3 if size >= r3 else zero))
                    d = d if v > zero else zero - d
                    digit[j] = d
                    sent[j] = before + d * scale
                continue
            for j in range(width):
                h = held[j]
                v = h if h > zero else h * slope
                v = v if v > bottom else bottom
                v = v if v < ceiling else ceiling
                sent[j] = sent[j] * beta
                value[j] = v - sent[j]
            _digit(value[:width], digit, rising, increments, rounding)
            for j in range(width):
                sent[j] = sent[j] + digit[j] * scale


@compiled
def _accumulate(source, held, state, fresh, constants, units, first, last):  # type: ignore[no-untyped-def]
    beta, gain = constants[0], constants[1]
    for start in range(first, last, _BLOCK):
        stop = min(start + _BLOCK, last)
        kept = state[start:stop]
        if fresh:
            kept[:] = np.float32(0)
        for k in range(len(source)):
            row, out, unit = source[k, start:stop], held[k, start:stop], units[k]
            for j in range(stop - start):
                kept[j] = kept[j] * beta + row[j] * gain
                out[j] = kept[j] * unit


def advance(
    source: Tensor, spikes: Tensor, held: Tensor, sent: Tensor, tables: Tables, *, begin: int, accumulated: bool
) -> None:
    """See ``advance_reference.advance``."""
    places = (source.numpy(), spikes.numpy(), held.numpy(), sent.numpy())
    silent = max(tables.silent - begin, 0)
    rule = (accumulated, begin, silent, *_constants(tables), *_arrays(tables.digits))
    spread(_advance, (*places, *rule), items=source.shape[1], cost=len(source), align=_ALIGN)


def accumulate(
    source: Tensor, held: Tensor, state: Tensor, *, beta: float, gain: float, units: tuple[float, ...], fresh: bool
) -> None:
    """See ``advance_reference.accumulate``."""
    constants = np.array((beta, gain), np.float32)
    arguments = (source.numpy(), held.numpy(), state.numpy(), fresh, constants, np.array(units, np.float32))
    spread(_accumulate, arguments, items=source.shape[1], cost=len(source), align=_ALIGN)
