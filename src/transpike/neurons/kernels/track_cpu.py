"""The tracking neuron on the CPU: Numba, blocked over neurons with time inside, so that state stays in L1 cache.

Same interface as ``track_reference``, for float32. The inner loops have no branches, hence vectorise, and no fast
arithmetic is allowed, hence they round as torch does.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from typing import Any

import numba
import numpy as np
import torch
from numba.core import event
from torch import Tensor

from transpike.neurons.kernels.track_reference import Digits, Final, Tables

__all__ = ["accumulate", "encode", "track"]

_BLOCK = 2048
_SMALLEST_PIECE = 1 << 16
_log = logging.getLogger(__name__)
_pool: ThreadPoolExecutor | None = None


class _Announce(event.Listener):
    """Numba sends this event only when a kernel is not in its cache on disk."""

    told = False

    def on_start(self, event: Any) -> None:
        if not self.told and event.data["dispatcher"] in (_track, _accumulate, _encode):
            self.told = True
            _log.warning("compiling the CPU kernels of the tracking neuron once: a few seconds")

    def on_end(self, event: Any) -> None:
        pass


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    compiled: Callable[..., Any]
    try:
        compiled = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # Numba found no folder that it may write its cache to.
        compiled = numba.njit(nogil=True)(function)
    return compiled


@_compiled
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


@_compiled
def _track(  # type: ignore[no-untyped-def]
    source,
    spikes,
    residual,
    target,
    span,
    accumulated,
    silent,
    constants,
    low,
    high,
    rising,
    falling,
    increments,
    rounding,
):
    zero = np.float32(0)
    beta, scale, inverse, slope = constants[0], constants[1], constants[2], constants[3]
    held, sent, value = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    for start in range(span[0], span[1], _BLOCK):
        stop = min(start + _BLOCK, span[1])
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


@_compiled
def _accumulate(source, held, span, constants):  # type: ignore[no-untyped-def]
    beta = constants[0]
    state = np.empty(_BLOCK, np.float32)
    for start in range(span[0], span[1], _BLOCK):
        stop = min(start + _BLOCK, span[1])
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


@_compiled
def _encode(values, spikes, span, constants, rising, falling, increments, rounding):  # type: ignore[no-untyped-def]
    beta, scale = constants[0], constants[1]
    state = np.empty(_BLOCK, np.float32)
    for start in range(span[0], span[1], _BLOCK):
        stop = min(start + _BLOCK, span[1])
        width = stop - start
        state[:width] = values[start:stop] * scale
        for step in range(len(spikes)):
            for j in range(width):
                state[j] = state[j] * beta
            digit = spikes[step, start:stop]
            _digit(state[:width], digit, rising, falling, increments, rounding)
            for j in range(width):
                state[j] = state[j] - digit[j]


event.register("numba:compile", _Announce())  # type: ignore[no-untyped-call]


def _forget_pool() -> None:
    global _pool
    _pool = None


# A forked child inherits the pool but none of its threads.
os.register_at_fork(after_in_child=_forget_pool)


def _spread(
    kernel: Callable[..., None], neurons: int, steps: int, before: tuple[Any, ...], after: tuple[Any, ...]
) -> None:
    """Run ``kernel(*before, span, *after)`` over contiguous spans of the neurons, one per torch thread."""
    global _pool
    pieces = max(1, min(torch.get_num_threads(), neurons * steps // _SMALLEST_PIECE))
    edges = [neurons * piece // pieces // 16 * 16 for piece in range(pieces)] + [neurons]
    spans = list(pairwise(edges))
    futures = []
    if pieces > 1:
        if _pool is None:
            _pool = ThreadPoolExecutor(os.cpu_count(), "transpike")
        futures = [_pool.submit(kernel, *before, span, *after) for span in spans[1:]]
    try:
        kernel(*before, spans[0], *after)
    finally:
        wait(futures)
    for future in futures:
        future.result()


def _arrays(digits: Digits) -> tuple[Any, ...]:
    """A digit rule as the float32 arrays the kernels take."""
    rounding = (digits.top, digits.inverse, digits.offset, digits.mirror)
    return tuple(np.array(x, np.float32) for x in (digits.rising, digits.falling, digits.increments, rounding))


def track(source: Tensor, spikes: Tensor, final: Final, tables: Tables, *, accumulated: bool) -> None:
    """See ``track_reference.track``."""
    constants = np.array((tables.beta, tables.scale, tables.inverse, tables.slope), np.float32)
    low, high = np.array(tables.low, np.float32), np.array(tables.high, np.float32)
    before = (source.numpy(), spikes.numpy(), final.residual.numpy(), final.target.numpy())
    after = (accumulated, tables.silent, constants, low, high, *_arrays(tables.digits))
    _spread(_track, source.shape[1], len(low), before, after)


def accumulate(source: Tensor, held: Tensor, *, beta: float) -> None:
    """See ``track_reference.accumulate``."""
    constants = np.array((beta,), np.float32)
    _spread(_accumulate, held.shape[1], len(held), (source.numpy(), held.numpy()), (constants,))


def encode(values: Tensor, spikes: Tensor, *, beta: float, start: float, digits: Digits) -> None:
    """See ``track_reference.encode``."""
    constants = np.array((beta, start), np.float32)
    before, after = (values.numpy(), spikes.numpy()), (constants, *_arrays(digits))
    _spread(_encode, len(values), len(spikes), before, after)
