"""The tracking neuron on the CPU: Numba, blocked over neurons with time inside, so that state stays in L1 cache.

Same interface as ``track_reference``, for float32. The inner loops have no branches, hence vectorise, and no fast
arithmetic is allowed, hence they round as torch does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from transpike.neurons.kernels.threads import compiled, spread
from transpike.neurons.kernels.track_reference import Digits, Final, Tables

__all__ = ["accumulate", "encode", "track"]

_BLOCK = 2048
_ALIGN = 16


@compiled
def _digit(value, digit, rising, falling, increments, rounding):  # type: ignore[no-untyped-def]
    """Round ``value`` to ``digit``; both hold one block."""
    zero = np.float32(0)
    top = rounding[0]
    if top > 0:
        inverse, offset, mirror = rounding[1], rounding[2], rounding[3]
        for j in range(len(value)):
            v = value[j]
            scaled = (v if v > zero else v * mirror) * inverse + offset
            # Truncation is the floor here, since the magnitude is not negative.
            d = np.float32(np.int32(scaled if scaled < top else top))
            digit[j] = d if v > zero else zero - d
        return
    high, low, increment = rising[0], falling[0], increments[0]
    for j in range(len(value)):
        v = value[j]
        up = increment if v >= high else zero
        down = increment if v <= low else zero
        digit[j] = up - down
    for k in range(1, len(rising)):
        high, low, increment = rising[k], falling[k], increments[k]
        for j in range(len(value)):
            v = value[j]
            up = increment if v >= high else zero
            down = increment if v <= low else zero
            digit[j] += up - down


@compiled
def _track(  # type: ignore[no-untyped-def]
    source,
    spikes,
    residual,
    target,
    accumulated,
    silent,
    constants,
    low,
    high,
    rising,
    falling,
    increments,
    rounding,
    first,
    last,
):
    zero = np.float32(0)
    beta, scale, inverse, slope = constants[0], constants[1], constants[2], constants[3]
    held, sent, value = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    for start in range(first, last, _BLOCK):
        stop = min(start + _BLOCK, last)
        width = stop - start
        held[:] = zero
        sent[:] = zero
        for step in range(len(low)):
            if accumulated:
                held[:width] = source[step, start:stop]
            elif step < len(source):
                row = source[step, start:stop]
                for j in range(width):
                    held[j] = held[j] * beta + row[j]
            else:
                for j in range(width):
                    held[j] = held[j] * beta
            bottom, ceiling = low[step], high[step]
            for j in range(width):
                h = held[j]
                v = h if h > zero else h * slope
                v = v if v > bottom else bottom
                v = v if v < ceiling else ceiling
                sent[j] = sent[j] * beta
                value[j] = v - sent[j]
            if step >= silent:
                digit = spikes[step - silent, start:stop]
                _digit(value[:width], digit, rising, falling, increments, rounding)
                for j in range(width):
                    sent[j] = sent[j] + digit[j] * scale
        if len(target) > 0:
            bottom, ceiling = low[-1], high[-1]
            for j in range(width):
                h = held[j]
                v = h if h > zero else h * slope
                v = v if v > bottom else bottom
                v = v if v < ceiling else ceiling
                residual[start + j] = (v - sent[j]) * inverse
                target[start + j] = v * inverse


@compiled
def _accumulate(source, held, constants, first, last):  # type: ignore[no-untyped-def]
    beta = constants[0]
    state = np.empty(_BLOCK, np.float32)
    for start in range(first, last, _BLOCK):
        stop = min(start + _BLOCK, last)
        state[:] = np.float32(0)
        for step in range(len(held)):
            out = held[step, start:stop]
            if step < len(source):
                row = source[step, start:stop]
                for j in range(stop - start):
                    state[j] = state[j] * beta + row[j]
            else:
                for j in range(stop - start):
                    state[j] = state[j] * beta
            out[:] = state[: stop - start]


@compiled
def _encode(values, spikes, constants, rising, falling, increments, rounding, first, last):  # type: ignore[no-untyped-def]
    beta, scale = constants[0], constants[1]
    state = np.empty(_BLOCK, np.float32)
    for start in range(first, last, _BLOCK):
        stop = min(start + _BLOCK, last)
        width = stop - start
        state[:width] = values[start:stop] * scale
        for step in range(len(spikes)):
            for j in range(width):
                state[j] = state[j] * beta
            digit = spikes[step, start:stop]
            _digit(state[:width], digit, rising, falling, increments, rounding)
            for j in range(width):
                state[j] = state[j] - digit[j]


def _arrays(digits: Digits) -> tuple[Any, ...]:
    """A digit rule as the float32 arrays the kernels take."""
    rounding = (digits.top, digits.inverse, digits.offset, digits.mirror)
    return tuple(np.array(x, np.float32) for x in (digits.rising, digits.falling, digits.increments, rounding))


def track(source: Tensor, spikes: Tensor, final: Final, tables: Tables, *, accumulated: bool) -> None:
    """See ``track_reference.track``."""
    constants = np.array((tables.beta, tables.scale, tables.inverse, tables.slope), np.float32)
    low, high = np.array(tables.low, np.float32), np.array(tables.high, np.float32)
    places = (source.numpy(), spikes.numpy(), final.residual.numpy(), final.target.numpy())
    rule = (accumulated, tables.silent, constants, low, high, *_arrays(tables.digits))
    spread(_track, (*places, *rule), items=source.shape[1], cost=len(low), align=_ALIGN)


def accumulate(source: Tensor, held: Tensor, *, beta: float) -> None:
    """See ``track_reference.accumulate``."""
    constants = np.array((beta,), np.float32)
    arguments = (source.numpy(), held.numpy(), constants)
    spread(_accumulate, arguments, items=held.shape[1], cost=len(held), align=_ALIGN)


def encode(values: Tensor, spikes: Tensor, *, beta: float, start: float, digits: Digits) -> None:
    """See ``track_reference.encode``."""
    constants = np.array((beta, start), np.float32)
    arguments = (values.numpy(), spikes.numpy(), constants, *_arrays(digits))
    spread(_encode, arguments, items=len(values), cost=len(spikes), align=_ALIGN)
