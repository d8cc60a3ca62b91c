"""The tracking neuron on CUDA, in Triton. One program runs a block of neurons, with the state in registers.

The interface is that of ``track_reference``, for float32, float16 and bfloat16 tensors. The state is float32. Fused
multiply-add is off, so products and sums are rounded as on the other backends.
"""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from transpike.neurons.kernels.track_reference import PLAIN, Carried, Clip, Digits, Feed, Final, Pattern, Tables

__all__ = ["accumulate", "encode", "track", "track_windows"]

_BLOCK = 1024  # neurons of a program
_FEW = 256  # neurons of a program, if each holds several sums


@triton.jit  # type: ignore[untyped-decorator]
def _digit(value, rising, falling, increments, top, inverse, offset, mirror, LEVELS: tl.constexpr):  # type: ignore[no-untyped-def]
    if LEVELS == 0:
        magnitude = tl.where(value > 0, value, value * mirror)
        rounded = tl.floor(tl.minimum(magnitude * inverse + offset, top))
        digit = tl.where(value > 0, rounded, 0.0 - rounded)
    else:
        digit = tl.zeros_like(value)
        for k in tl.static_range(LEVELS):
            increment = tl.load(increments + k)
            digit += tl.where(value >= tl.load(rising + k), increment, 0.0)
            digit -= tl.where(value <= tl.load(falling + k), increment, 0.0)
    return digit


@triton.jit  # type: ignore[untyped-decorator]
def _current(  # type: ignore[no-untyped-def]
    read, extra, shares, step, there, scale, shift, factor,
    SCALE: tl.constexpr, SHIFT: tl.constexpr, OTHER: tl.constexpr,
):  # fmt: skip
    """Return a row of currents after the operation of `Feed`; 0 where ``there`` is false."""
    current = tl.load(read, mask=there, other=0.0).to(tl.float32)
    if SCALE:
        current = current * scale
    if SHIFT:
        current = current + tl.where(there, shift * tl.load(shares + step), 0.0)
    if OTHER:
        current = current + tl.load(extra, mask=there, other=0.0).to(tl.float32) * factor
    return current


@triton.jit  # type: ignore[untyped-decorator]
def _track(  # type: ignore[no-untyped-def]
    source, spikes, residual, target, state, neurons, rows, begin, silent, simulated, beta, gain, scale, unscale, slope,
    low, high, units, rising, falling, increments, top, inverse, offset, mirror,
    scales, shifts, factors, shares, other, scale_inner, scale_size, shift_inner, shift_size, factor_inner, factor_size,
    worths, relatives, relative_inner, relative_size, clip_slope, clip_low, clip_high,
    CLIP: tl.constexpr, ACCUMULATED: tl.constexpr, FINAL: tl.constexpr, CARRIED: tl.constexpr, LEVELS: tl.constexpr,
    SCALE: tl.constexpr, SHIFT: tl.constexpr, OTHER: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = index < neurons
    read, write, extra = source + index, spikes + index, other + index
    held = tl.zeros([BLOCK], tl.float32)
    sent = tl.zeros([BLOCK], tl.float32)
    value = tl.zeros([BLOCK], tl.float32)
    if CARRIED:
        old = inside & (tl.full([BLOCK], begin, tl.int32) > 0)
        held = tl.load(state + index, mask=old, other=0.0)
        sent = tl.load(state + neurons + index, mask=old, other=0.0)
    by = tl.load(scales + index // scale_inner % scale_size) if SCALE else held
    add = tl.load(shifts + index // shift_inner % shift_size) if SHIFT else held
    join = tl.load(factors + index // factor_inner % factor_size) if OTHER else held
    relative = tl.load(relatives + index // relative_inner % relative_size) if CLIP else held
    for k in range(simulated):
        step = begin + k
        if ACCUMULATED:
            held = tl.load(read, mask=inside, other=0.0).to(tl.float32) * tl.load(units + step)
            held = tl.where(held == held, held, 0.0)
            read += tl.where(k < rows - 1, neurons, 0)
            heard = held
        else:
            there = inside & (tl.full([BLOCK], k, tl.int32) < rows)
            row = tl.minimum(k, rows - 1)
            current = _current(read, extra, shares, row, there, by, add, join, SCALE, SHIFT, OTHER)
            read += neurons
            extra += neurons
            after = held * beta + current * gain
            held = tl.where(tl.full([BLOCK], k, tl.int32) < rows, after, held) if CLIP else after
            heard = held
            if CLIP:
                heard = held * tl.load(worths + row)
                known = heard == heard
                heard = tl.where(heard > 0, heard, heard * clip_slope + 0.0)  # + 0.0, so that ReLU never gives -0
                heard = tl.minimum(tl.maximum(heard, clip_low), clip_high)
                heard = tl.where(known, tl.div_rn(heard, relative) * tl.load(units + step), 0.0)
        value = tl.where(heard > 0, heard, heard * slope)
        value = tl.minimum(tl.maximum(value, tl.load(low + step)), tl.load(high + step))
        sent = sent * beta
        if step >= silent:
            digit = _digit(value - sent, rising, falling, increments, top, inverse, offset, mirror, LEVELS)
            sent = sent + digit * scale
            tl.store(write, digit.to(spikes.dtype.element_ty), mask=inside)
            write += neurons
    if CARRIED:
        tl.store(state + index, held, mask=inside)
        tl.store(state + neurons + index, sent, mask=inside)
    if FINAL:
        tl.store(residual + index, (value - sent) * unscale, mask=inside)
        tl.store(target + index, value * unscale, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _track_windows(  # type: ignore[no-untyped-def]
    source, spikes, residual, target, places, neurons, outputs, width, inputs, rows, silent, simulated,
    beta, gain, scale, unscale, slope, low, high, rising, falling, increments, top, inverse, offset, mirror,
    scales, shifts, factors, shares, other, scale_inner, scale_size, shift_inner, shift_size, factor_inner, factor_size,
    FINAL: tl.constexpr, LEVELS: tl.constexpr, WINDOW: tl.constexpr,
    SCALE: tl.constexpr, SHIFT: tl.constexpr, OTHER: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = index < neurons
    nothing = tl.zeros([BLOCK], tl.float32)
    sent, value = nothing, nothing
    by = tl.load(scales + index // scale_inner % scale_size) if SCALE else nothing
    add = tl.load(shifts + index // shift_inner % shift_size) if SHIFT else nothing
    join = tl.load(factors + index // factor_inner % factor_size) if OTHER else nothing
    held = ()
    at = ()
    for w in tl.static_range(WINDOW):
        place = tl.load(places + w * outputs + index % outputs, mask=inside, other=-1).to(tl.int64)
        at = at + (tl.where(place < 0, place, index // outputs * inputs + place),)  # type: ignore[assignment]  # noqa: RUF005
        held = held + (nothing,)  # type: ignore[assignment]  # noqa: RUF005
    write = spikes + index
    for step in range(simulated):
        row = tl.minimum(step, rows - 1)
        begin = row.to(tl.int64) * width
        there = inside & (tl.full([BLOCK], step, tl.int32) < rows)
        most = tl.full([BLOCK], float("-inf"), tl.float32)
        after = ()
        for w in tl.static_range(WINDOW):
            known = at[w] >= 0
            near = begin + at[w]
            current = _current(
                source + near, other + near, shares, row, there & known, by, add, join, SCALE, SHIFT, OTHER
            )
            total = held[w] * beta + current * gain
            most = tl.where(known, tl.maximum(most, total), most)
            after = after + (total,)  # type: ignore[assignment]  # noqa: RUF005
        held = after
        value = tl.where(most > 0, most, most * slope)
        value = tl.minimum(tl.maximum(value, tl.load(low + step)), tl.load(high + step))
        sent = sent * beta
        if step >= silent:
            digit = _digit(value - sent, rising, falling, increments, top, inverse, offset, mirror, LEVELS)
            sent = sent + digit * scale
            tl.store(write, digit.to(spikes.dtype.element_ty), mask=inside)
            write += neurons
    if FINAL:
        tl.store(residual + index, (value - sent) * unscale, mask=inside)
        tl.store(target + index, value * unscale, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _accumulate(  # type: ignore[no-untyped-def]
    source, held, carried, neurons, rows, begin, simulated, beta, gain, units,
    scales, shifts, factors, shares, other, scale_inner, scale_size, shift_inner, shift_size, factor_inner, factor_size,
    CARRIED: tl.constexpr, SCALE: tl.constexpr, SHIFT: tl.constexpr, OTHER: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = index < neurons
    read, write, extra = source + index, held + index, other + index
    state = tl.zeros([BLOCK], tl.float32)
    if CARRIED:
        old = inside & (tl.full([BLOCK], begin, tl.int32) > 0)
        state = tl.load(carried + index, mask=old, other=0.0)
    by = tl.load(scales + index // scale_inner % scale_size) if SCALE else state
    add = tl.load(shifts + index // shift_inner % shift_size) if SHIFT else state
    join = tl.load(factors + index // factor_inner % factor_size) if OTHER else state
    for k in range(simulated):
        there = inside & (tl.full([BLOCK], k, tl.int32) < rows)
        row = tl.minimum(k, rows - 1)
        current = _current(read, extra, shares, row, there, by, add, join, SCALE, SHIFT, OTHER)
        state = state * beta + current * gain
        tl.store(write, state * tl.load(units + k), mask=inside)
        read += neurons
        extra += neurons
        write += neurons
    if CARRIED:
        tl.store(carried + index, state, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _encode(  # type: ignore[no-untyped-def]
    values, spikes, neurons, steps, beta, start, rising, falling, increments, top, inverse, offset, mirror,
    LEVELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = index < neurons
    write = spikes + index
    state = tl.load(values + index, mask=inside, other=0.0).to(tl.float32) * start
    for _ in range(steps):
        state = state * beta
        digit = _digit(state, rising, falling, increments, top, inverse, offset, mirror, LEVELS)
        state = state - digit
        tl.store(write, digit.to(spikes.dtype.element_ty), mask=inside)
        write += neurons


@cache  # without a limit: a recorded CUDA graph keeps reading them
def _on(device: torch.device, values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)


def _rule(device: torch.device, digits: Digits) -> dict[str, Tensor | float | int]:
    return {
        "rising": _on(device, digits.rising),
        "falling": _on(device, digits.falling),
        "increments": _on(device, digits.increments),
        "top": float(digits.top),
        "inverse": digits.inverse,
        "offset": digits.offset,
        "mirror": digits.mirror,
        "LEVELS": 0 if digits.top else len(digits.rising),
        "BLOCK": _BLOCK,
        "enable_fp_fusion": False,
    }


def _feed(feed: Feed, source: Tensor) -> dict[str, Tensor | float | int]:
    """Return a kernel's arguments for a `Feed`. A pointer to an absent part is not read, so it may point anywhere."""
    arguments: dict[str, Tensor | float | int] = {"other": source if feed.other is None else feed.other}
    shift = feed.shift is not None
    arguments["shares"] = _on(source.device, feed.shares) if shift else source
    named: dict[str, Pattern | None] = {"scale": feed.scale, "shift": feed.shift, "factor": feed.factor}
    for name, pattern in named.items():
        arguments[f"{name}s"] = source if pattern is None else pattern.values
        arguments[f"{name}_inner"] = 1 if pattern is None else pattern.inner
        arguments[f"{name}_size"] = 1 if pattern is None else len(pattern.values)
    return arguments | {"SCALE": feed.scale is not None, "SHIFT": shift, "OTHER": feed.other is not None}


def _clip(clip: Clip | None, source: Tensor) -> dict[str, Tensor | float | int]:
    """Return the kernel's arguments for a `Clip`. A pointer to an absent part is not read, so it may point anywhere."""
    if clip is None:
        numbers = dict.fromkeys(("clip_slope", "clip_low", "clip_high"), 0.0)
        return {
            "worths": source,
            "relatives": source,
            "relative_inner": 1,
            "relative_size": 1,
            "CLIP": False,
            **numbers,
        }
    return {
        "worths": _on(source.device, clip.worths),
        "relatives": clip.relative.values,
        "relative_inner": clip.relative.inner,
        "relative_size": len(clip.relative.values),
        "clip_slope": clip.slope,
        "clip_low": clip.low,
        "clip_high": clip.high,
        "CLIP": True,
    }


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
    neurons, device = source.shape[1], source.device
    block = _FEW if clip else _BLOCK  # so that the state fits in registers
    with torch.cuda.device(source.get_device()):
        _track[(triton.cdiv(neurons, block),)](
            source,
            spikes,
            final.residual,
            final.target,
            carried.values if carried else source,
            neurons,
            len(source),
            carried.begin if carried else 0,
            tables.silent,
            len(source) + carried.idle if carried else len(tables.low),
            tables.beta,
            tables.gain,
            tables.scale,
            tables.inverse,
            tables.slope,
            _on(device, tables.low),
            _on(device, tables.high),
            _on(device, tables.units),
            **_rule(device, tables.digits) | {"BLOCK": block},
            **_feed(feed, source),
            **_clip(clip, source),
            ACCUMULATED=accumulated,
            FINAL=final.target.numel() > 0,
            CARRIED=carried is not None,
        )


def track_windows(
    source: Tensor, spikes: Tensor, final: Final, tables: Tables, places: Tensor, *, feed: Feed = PLAIN
) -> None:
    """Write the digits that track, for each output, the maximum over the accumulated currents of its window.

    ``places`` ``[inputs, outputs]`` has the inputs of each output, for one sample. See
    `transpike.neurons.windows.Window.places`.
    """
    neurons, device = spikes.shape[1], source.device
    outputs = places.shape[1]
    with torch.cuda.device(source.get_device()):
        _track_windows[(triton.cdiv(neurons, _FEW),)](
            source,
            spikes,
            final.residual,
            final.target,
            places,
            neurons,
            outputs,
            source.shape[1],
            source.shape[1] // (neurons // outputs),
            len(source),
            tables.silent,
            len(tables.low),
            tables.beta,
            tables.gain,
            tables.scale,
            tables.inverse,
            tables.slope,
            _on(device, tables.low),
            _on(device, tables.high),
            **_rule(device, tables.digits) | {"BLOCK": _FEW},
            **_feed(feed, source),
            FINAL=final.target.numel() > 0,
            WINDOW=len(places),
        )


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
    neurons = held.shape[1]
    state, begin = (carried.values, carried.begin) if carried else (source, 0)
    with torch.cuda.device(source.get_device()):
        _accumulate[(triton.cdiv(neurons, _BLOCK),)](
            source,
            held,
            state,
            neurons,
            len(source),
            begin,
            len(held),
            beta,
            gain,
            _on(source.device, units),
            **_feed(feed, source),
            CARRIED=carried is not None,
            BLOCK=_BLOCK,
            enable_fp_fusion=False,
        )


def encode(values: Tensor, spikes: Tensor, *, beta: float, start: float, digits: Digits) -> None:
    """See ``track_reference.encode``."""
    neurons = len(values)
    with torch.cuda.device(values.get_device()):
        _encode[(triton.cdiv(neurons, _BLOCK),)](
            values, spikes, neurons, len(spikes), beta, start, **_rule(values.device, digits)
        )
