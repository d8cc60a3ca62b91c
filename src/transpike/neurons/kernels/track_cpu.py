"""The tracking neuron on a CPU, in Numba.

The interface is that of ``track_reference``, for float32. The outer loop runs over blocks of neurons and the next one
over time, so the state of a block stays in the L1 cache. The inner loops have no branches, so they are vectorised. Fast
arithmetic is not allowed, so they round as PyTorch does.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from torch import Tensor

from transpike.neurons.kernels.feed_cpu import NOTHING, arguments, clipped, spread_pattern
from transpike.neurons.kernels.threads import compiled, spread
from transpike.neurons.kernels.track_reference import PLAIN, Carried, Clip, Digits, Feed, Final, Tables

__all__ = ["accumulate", "change", "encode", "track"]

_BLOCK = 2048  # neurons
_ALIGN = 16  # neurons of a cache line of float32: threads do not share one
_FEW = 4  # with at most so many levels, digits are found in one pass


@compiled
def _digit(value, digit, rising, increments, rounding):  # type: ignore[no-untyped-def]
    """Round ``value`` to ``digit``. Both hold one block of neurons."""
    zero = np.float32(0)
    top, inverse, offset, mirror = rounding[0], rounding[1], rounding[2], rounding[3]
    if top > 0:
        for j in range(len(value)):
            v = value[j]
            scaled = (v if v > zero else v * mirror) * inverse + offset
            # The conversion to int32 truncates, which equals the floor, since the magnitude is not negative.
            d = np.float32(np.int32(scaled if scaled < top else top))
            digit[j] = d if v > zero else zero - d
        return
    for j in range(len(value)):
        digit[j] = zero
    for k in range(len(rising)):
        high, increment = rising[k], increments[k]
        for j in range(len(value)):
            v = value[j]
            d = increment if (v if v > zero else v * mirror) >= high else zero
            digit[j] += d if v > zero else zero - d


@compiled
def _track(  # type: ignore[no-untyped-def]
    source,
    spikes,
    residual,
    target,
    state,
    steps,
    begin,
    feed,
    clip,
    accumulated,
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
    beta, scale, inverse, slope, gain = constants[0], constants[1], constants[2], constants[3], constants[4]
    mirror = rounding[3]
    single, few = len(rising) == 1, len(rising) in (1, _FEW)
    second, third, fourth = (0, 0, 0) if single else (1, 2, 3)
    r0, r1, r2, r3 = rising[0], rising[second], rising[third], rising[fourth]
    i0, i1, i2, i3 = increments[0], increments[second], increments[third], increments[fourth]
    other, shares, patterns, inner = feed
    feeds, joined, carried = len(shares) > 0, other.shape[1] > 0, state.shape[1] > 0
    held, sent, value = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    by, plus, factor = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    worths, bounds, relatives, relative_inner = clip
    clips, leak, least, most = len(worths) > 0, bounds[0], bounds[1], bounds[2]
    relative, said = np.empty(_BLOCK if clips else 0, np.float32), np.empty(_BLOCK if clips else 0, np.float32)
    heard = said if clips else held
    for start in range(first, last, _BLOCK):
        stop = min(start + _BLOCK, last)
        width = stop - start
        if clips:
            spread_pattern(relatives, relative_inner, relative[:width], start)
        if begin > 0:
            held[:width] = state[0, start:stop]
            sent[:width] = state[1, start:stop]
        else:
            held[:] = zero
            sent[:] = zero
        if feeds:
            spread_pattern(patterns[0], inner[0], by[:width], start)
            spread_pattern(patterns[1], inner[1], plus[:width], start)
            spread_pattern(patterns[2], inner[2], factor[:width], start)
        for k in range(steps):
            step = begin + k
            if accumulated:
                unit = units[step]
                row = source[min(k, len(source) - 1), start:stop]
                for j in range(width):
                    h = row[j] * unit
                    held[j] = h if h == h else zero
            elif k < len(source):
                row = source[k, start:stop]
                if not feeds:
                    for j in range(width):
                        held[j] = held[j] * beta + row[j] * gain
                elif joined:
                    more, share = other[k, start:stop], shares[k]
                    for j in range(width):
                        current = (row[j] * by[j] + plus[j] * share) + more[j] * factor[j]
                        held[j] = held[j] * beta + current * gain
                else:
                    share = shares[k]
                    for j in range(width):
                        current = row[j] * by[j] + plus[j] * share
                        held[j] = held[j] * beta + current * gain
            elif not clips:
                for j in range(width):
                    held[j] = held[j] * beta
            if step < silent:
                continue
            if clips:
                worth, unit = worths[min(k, len(worths) - 1)], units[step]
                for j in range(width):
                    h = held[j] * worth
                    v = h if h > zero else h * leak + zero  # + 0, so that ReLU never gives -0
                    v = v if v > least else least
                    v = v if v < most else most
                    said[j] = (v / relative[j]) * unit if h == h else zero
            bottom, ceiling = low[step], high[step]
            digit = spikes[step - max(silent, begin), start:stop]
            if few:  # in one pass
                plain = slope == 1 and bottom == -np.inf and ceiling == np.inf
                for j in range(width):
                    v = heard[j]
                    if not plain:
                        v = v if v > zero else v * slope
                        v = v if v > bottom else bottom
                        v = v if v < ceiling else ceiling
                    before = sent[j] * beta
                    v = v - before
                    size = v if v > zero else v * mirror
                    d = i0 if size >= r0 else zero
                    if not single:
                        d = d + (i1 if size >= r1 else zero)
                        d = d + ((i2 if size >= r2 else zero) + (i3 if size >= r3 else zero))
                    d = d if v > zero else zero - d
                    digit[j] = d
                    sent[j] = before + d * scale
                continue
            for j in range(width):
                h = heard[j]
                v = h if h > zero else h * slope
                v = v if v > bottom else bottom
                v = v if v < ceiling else ceiling
                sent[j] = sent[j] * beta
                value[j] = v - sent[j]
            _digit(value[:width], digit, rising, increments, rounding)
            for j in range(width):
                sent[j] = sent[j] + digit[j] * scale
        if carried:
            state[0, start:stop] = held[:width]
            state[1, start:stop] = sent[:width]
        if len(target) > 0:
            bottom, ceiling = low[-1], high[-1]
            for j in range(width):
                h = heard[j]
                v = h if h > zero else h * slope
                v = v if v > bottom else bottom
                v = v if v < ceiling else ceiling
                residual[start + j] = (v - sent[j]) * inverse
                target[start + j] = v * inverse


@compiled
def _accumulate(source, held, state, begin, feed, constants, units, first, last):  # type: ignore[no-untyped-def]
    beta, gain = constants[0], constants[1]
    other, shares, patterns, inner = feed
    feeds, joined, carried = len(shares) > 0, other.shape[1] > 0, state.shape[1] > 0
    by, plus, factor = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    kept = np.empty(_BLOCK, np.float32)
    for start in range(first, last, _BLOCK):
        stop = min(start + _BLOCK, last)
        width = stop - start
        if begin > 0:
            kept[:width] = state[0, start:stop]
        else:
            kept[:] = np.float32(0)
        if feeds:
            spread_pattern(patterns[0], inner[0], by[:width], start)
            spread_pattern(patterns[1], inner[1], plus[:width], start)
            spread_pattern(patterns[2], inner[2], factor[:width], start)
        for step in range(len(held)):
            out = held[step, start:stop]
            if step < len(source):
                row = source[step, start:stop]  # read as a whole before it may be overwritten
                if not feeds:
                    for j in range(width):
                        kept[j] = kept[j] * beta + row[j] * gain
                elif joined:
                    more, share = other[step, start:stop], shares[step]
                    for j in range(width):
                        current = (row[j] * by[j] + plus[j] * share) + more[j] * factor[j]
                        kept[j] = kept[j] * beta + current * gain
                else:
                    share = shares[step]
                    for j in range(width):
                        current = row[j] * by[j] + plus[j] * share
                        kept[j] = kept[j] * beta + current * gain
            else:
                for j in range(width):
                    kept[j] = kept[j] * beta
            unit = units[step]
            for j in range(width):
                out[j] = kept[j] * unit
        if carried:
            state[0, start:stop] = kept[:width]


@compiled
def _change(held, shares, first, last):  # type: ignore[no-untyped-def]
    before = np.empty(_BLOCK, np.float32)
    for start in range(first, last, _BLOCK):
        stop = min(start + _BLOCK, last)
        before[:] = np.float32(0)
        for step in range(len(held)):
            row, share = held[step, start:stop], shares[step]
            for j in range(stop - start):
                h = row[j]
                row[j] = (h - before[j]) * share
                before[j] = h


@compiled
def _encode(values, spikes, constants, rising, increments, rounding, first, last):  # type: ignore[no-untyped-def]
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
            _digit(state[:width], digit, rising, increments, rounding)
            for j in range(width):
                state[j] = state[j] - digit[j]


@lru_cache(maxsize=4096)
def _arrays(digits: Digits) -> tuple[Any, ...]:
    """Return a digit rule as float32 arrays for the kernels. The falling thresholds mirror the rising ones.

    Two or three levels are filled up to four with thresholds that no value reaches.
    """
    rounding = (digits.top, digits.inverse, digits.offset, digits.mirror)
    missing = max(0, _FEW - len(digits.rising)) if len(digits.rising) > 1 else 0
    rising, increments = (*digits.rising, *(np.inf,) * missing), (*digits.increments, *(0.0,) * missing)
    return tuple(np.array(x, np.float32) for x in (rising, increments, rounding))


@lru_cache(maxsize=4096)
def _constants(tables: Tables) -> tuple[Any, ...]:
    constants = (tables.beta, tables.scale, tables.inverse, tables.slope, tables.gain)
    return tuple(np.array(x, np.float32) for x in (constants, tables.low, tables.high, tables.units))


def track(
    source: Tensor,
    spikes: Tensor,
    final: Final,
    tables: Tables,
    *,
    accumulated: bool,
    feed: Feed = PLAIN,
    carried: Carried | None = None,
    clip: Clip | None = None,
) -> None:
    """See ``track_reference.track``."""
    places = (source.numpy(), spikes.numpy(), final.residual.numpy(), final.target.numpy())
    state, begin = (carried.values.numpy(), carried.begin) if carried else (NOTHING, 0)
    steps = len(source) + carried.idle if carried else len(tables.low)
    given = (*places, state, steps, begin, arguments(feed, len(source)), clipped(clip), accumulated, tables.silent)
    rule = (*_constants(tables), *_arrays(tables.digits))
    spread(_track, (*given, *rule), items=source.shape[1], cost=steps, align=_ALIGN)


def accumulate(
    source: Tensor,
    held: Tensor,
    *,
    beta: float,
    units: tuple[float, ...],
    gain: float = 1.0,
    feed: Feed = PLAIN,
    carried: Carried | None = None,
) -> None:
    """See ``track_reference.accumulate``."""
    state, begin = (carried.values.numpy(), carried.begin) if carried else (NOTHING, 0)
    rule = (np.array((beta, gain), np.float32), np.array(units, np.float32))
    given = (source.numpy(), held.numpy(), state, begin, arguments(feed, len(source)))
    spread(_accumulate, (*given, *rule), items=held.shape[1], cost=len(held), align=_ALIGN)


def change(held: Tensor, *, shares: tuple[float, ...]) -> None:
    """Write ``shares[t] * (held[t] - held[t - 1])`` over ``held`` ``[T, neurons]``."""
    arguments = (held.numpy(), np.array(shares, np.float32))
    spread(_change, arguments, items=held.shape[1], cost=len(held), align=_ALIGN)


def encode(values: Tensor, spikes: Tensor, *, beta: float, start: float, digits: Digits) -> None:
    """See ``track_reference.encode``."""
    constants = np.array((beta, start), np.float32)
    arguments = (values.numpy(), spikes.numpy(), constants, *_arrays(digits))
    spread(_encode, arguments, items=len(values), cost=len(spikes), align=_ALIGN)
