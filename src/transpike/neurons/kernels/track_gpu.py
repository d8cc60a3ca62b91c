"""The tracking neuron on CUDA: Triton, one program per block of neurons, state in registers over all steps.

Same interface as ``track_reference``, for float32, float16 and bfloat16 tensors; state is float32. Launched without
floating-point fusion, so that products and sums round as on the other backends.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from transpike.neurons.kernels.track_reference import Digits, Final, Tables

__all__ = ["accumulate", "encode", "track"]

_BLOCK = 1024


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
def _track(  # type: ignore[no-untyped-def]
    source, spikes, residual, target, neurons, rows, silent, simulated, beta, gain, scale, unscale, slope, low, high,
    units, rising, falling, increments, top, inverse, offset, mirror,
    ACCUMULATED: tl.constexpr, FINAL: tl.constexpr, LEVELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = index < neurons
    read, write = source + index, spikes + index
    held = tl.zeros([BLOCK], tl.float32)
    sent = tl.zeros([BLOCK], tl.float32)
    value = tl.zeros([BLOCK], tl.float32)
    for step in range(simulated):
        if ACCUMULATED:
            held = tl.load(read, mask=inside, other=0.0).to(tl.float32) * tl.load(units + step)
            held = tl.where(held == held, held, 0.0)
            read += tl.where(step < rows - 1, neurons, 0)
        else:
            current = tl.load(read, mask=inside & (tl.full([BLOCK], step, tl.int32) < rows), other=0.0).to(tl.float32)
            read += neurons
            held = held * beta + current * gain
        value = tl.where(held > 0, held, held * slope)
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
def _accumulate(source, held, neurons, rows, simulated, beta, gain, units, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = index < neurons
    read, write = source + index, held + index
    state = tl.zeros([BLOCK], tl.float32)
    for step in range(simulated):
        current = tl.load(read, mask=inside & (tl.full([BLOCK], step, tl.int32) < rows), other=0.0).to(tl.float32)
        state = state * beta + current * gain
        tl.store(write, state * tl.load(units + step), mask=inside)
        read += neurons
        write += neurons


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


@lru_cache(maxsize=4096)
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


def track(source: Tensor, spikes: Tensor, final: Final, tables: Tables, *, accumulated: bool) -> None:
    """See ``track_reference.track``."""
    neurons, device = source.shape[1], source.device
    with torch.cuda.device(source.get_device()):
        _track[(triton.cdiv(neurons, _BLOCK),)](
            source,
            spikes,
            final.residual,
            final.target,
            neurons,
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
            _on(device, tables.units),
            **_rule(device, tables.digits),
            ACCUMULATED=accumulated,
            FINAL=final.target.numel() > 0,
        )


def accumulate(source: Tensor, held: Tensor, *, beta: float, units: tuple[float, ...], gain: float = 1.0) -> None:
    """See ``track_reference.accumulate``."""
    neurons = held.shape[1]
    sizes = (neurons, len(source), len(held))
    with torch.cuda.device(source.get_device()):
        _accumulate[(triton.cdiv(neurons, _BLOCK),)](
            source, held, *sizes, beta, gain, _on(source.device, units), BLOCK=_BLOCK, enable_fp_fusion=False
        )


def encode(values: Tensor, spikes: Tensor, *, beta: float, start: float, digits: Digits) -> None:
    """See ``track_reference.encode``."""
    neurons = len(values)
    with torch.cuda.device(values.get_device()):
        _encode[(triton.cdiv(neurons, _BLOCK),)](
            values, spikes, neurons, len(spikes), beta, start, **_rule(values.device, digits)
        )
