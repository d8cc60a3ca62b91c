"""The LIF family on CUDA: Triton, one program per block of neurons with time inside, one pass each way.

As on the CPU only the input is kept for the backward pass, which computes the membrane again. It parks it in the
gradient's own buffer where that is float32, and in 4 temporary bytes per element and step in half precision.
Contraction to fused multiply-add is off, so spikes equal the reference's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from transpike.neurons.kernels.reference import Dynamics

__all__ = ["backward", "forward"]

_BLOCK = 1024


@triton.jit
def _fire(h, threshold, TERNARY: tl.constexpr):  # type: ignore[no-untyped-def]
    s = tl.where(h >= threshold, 1.0, tl.where(h == h, 0.0, h))
    if TERNARY:
        s = tl.where(h <= -threshold, -1.0, s)
    return s


@triton.jit
def _reset(h, s, carry, rest, drop, keep):  # type: ignore[no-untyped-def]
    return tl.where(s == 0.0, keep * h, carry * h + rest - drop * s)


@triton.jit
def _derivative(x, slope, height, SHAPE: tl.constexpr):  # type: ignore[no-untyped-def]
    y = tl.abs(slope * x)
    if SHAPE == 0:
        return height / (1.0 + y * y)
    elif SHAPE == 1:
        e = tl.exp(-y)
        return height * (e / ((1.0 + e) * (1.0 + e)))
    elif SHAPE == 2:
        return height * tl.where(y > 1.0, 0.0, 1.0 - y)
    else:
        return tl.where(y < 0.5, height, 0.0)


@triton.jit
def _forward(  # type: ignore[no-untyped-def]
    x, v0, charge, s, last, steps, neurons,
    threshold, decay, gain, bias, carry, rest, drop, keep, start,
    STATE: tl.constexpr, LEARNED: tl.constexpr, TERNARY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < neurons
    if LEARNED:
        decay, gain, bias = tl.load(charge), tl.load(charge + 1), tl.load(charge + 2)
    v = tl.load(v0 + i, inside, other=0.0) if STATE else tl.full([BLOCK], 0.0, tl.float32) + start
    for _ in range(steps):
        h = decay * v + gain * tl.load(x + i, inside, other=0.0).to(tl.float32) + bias
        spike = _fire(h, threshold, TERNARY)
        v = _reset(h, spike, carry, rest, drop, keep)
        tl.store(s + i, spike.to(s.dtype.element_ty), inside)
        x += neurons
        s += neurons
    tl.store(last + i, v, inside)


@triton.jit
def _backward(  # type: ignore[no-untyped-def]
    x, v0, charge, g, gv, membrane, gx, gv0, sums, steps, neurons,
    threshold, decay, gain, bias, carry, rest, drop, keep, start, slope, height,
    STATE: tl.constexpr, LEARNED: tl.constexpr, TERNARY: tl.constexpr, DETACH: tl.constexpr, SHAPE: tl.constexpr,
    SPIKES: tl.constexpr, LAST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < neurons
    nothing = tl.full([BLOCK], 0.0, tl.float32)
    if LEARNED:
        decay, gain, bias = tl.load(charge), tl.load(charge + 1), tl.load(charge + 2)
    first = tl.load(v0 + i, inside, other=0.0) if STATE else nothing + start
    v = first
    at = i
    for _ in range(steps):
        h = decay * v + gain * tl.load(x + at, inside, other=0.0).to(tl.float32) + bias
        v = _reset(h, _fire(h, threshold, TERNARY), carry, rest, drop, keep)
        tl.store(membrane + at, h, inside)
        at += neurons
    tl.debug_barrier()
    pull = tl.load(gv + i, inside, other=0.0) if LAST else nothing
    later = nothing
    by_decay, by_gain, by_bias = nothing, nothing, nothing
    for _ in range(steps):
        at -= neurons
        h = tl.load(membrane + at, inside, other=0.0)
        spike = _fire(h, threshold, TERNARY)
        up = _derivative(h - threshold, slope, height, SHAPE)
        down = _derivative(-h - threshold, slope, height, SHAPE) if TERNARY else nothing
        dv = tl.where(spike == 0.0, keep, carry)
        if not DETACH:
            dv += ((carry - keep) * h + rest) * (up - down) - drop * (up + down)
        gh = pull * dv
        if SPIKES:
            gh += tl.load(g + at, inside, other=0.0).to(tl.float32) * (up + down)
        if LEARNED:
            by_decay += later * _reset(h, spike, carry, rest, drop, keep)
            by_gain += gh * tl.load(x + at, inside, other=0.0).to(tl.float32)
            by_bias += gh
            later = gh
        tl.store(gx + at, (gain * gh).to(gx.dtype.element_ty), inside)
        pull = decay * gh
    if STATE:
        tl.store(gv0 + i, pull, inside)
    if LEARNED:
        by_decay += later * first
        row = sums + tl.program_id(0) * 3
        tl.store(row, tl.sum(tl.where(inside, by_decay, 0.0)))
        tl.store(row + 1, tl.sum(tl.where(inside, by_gain, 0.0)))
        tl.store(row + 2, tl.sum(tl.where(inside, by_bias, 0.0)))


def _launch(kernel: Any, arguments: tuple[Any, ...], x: Tensor, dynamics: Dynamics, **options: Any) -> None:
    numbers = dynamics[: Dynamics._fields.index("ternary")]
    with torch.cuda.device_of(x):
        kernel[(triton.cdiv(x.shape[1], _BLOCK),)](
            *arguments,
            *x.shape,
            *numbers,
            **options,
            TERNARY=dynamics.ternary > 0,
            BLOCK=_BLOCK,
            enable_fp_fusion=False,
        )


def forward(x: Tensor, v: Tensor | None, charge: Tensor | None, dynamics: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Spikes [T, M] and last membrane [M] of an input [T, M]; both inputs contiguous."""
    s, last = torch.empty_like(x), x.new_empty(x.shape[1], dtype=torch.float32)
    given = {"STATE": v is not None, "LEARNED": charge is not None}
    if last.numel():
        _launch(_forward, (x, v, charge, s, last), x, Dynamics(*dynamics), **given)
    return s, last


def backward(
    grads: tuple[Tensor | None, Tensor | None],
    x: Tensor,
    v: Tensor | None,
    charge: Tensor | None,
    dynamics: Sequence[float],
    surrogate: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of input [T, M], first membrane [M] and charge [3] from those of spikes and last membrane.

    Without a first membrane its gradient is empty.
    """
    d = Dynamics(*dynamics)
    gx, gv0 = torch.empty_like(x), x.new_empty(0 if v is None else x.shape[1], dtype=torch.float32)
    membrane = gx if gx.dtype == torch.float32 else torch.empty_like(x, dtype=torch.float32)
    programs = 0 if charge is None else triton.cdiv(x.shape[1], _BLOCK)
    sums = x.new_zeros((programs, 3), dtype=torch.float32)
    given = {
        "STATE": v is not None, "LEARNED": charge is not None, "SPIKES": grads[0] is not None,
        "LAST": grads[1] is not None, "DETACH": d.detach_reset > 0, "SHAPE": int(surrogate[0]),
        "slope": surrogate[1], "height": surrogate[2],
    }  # fmt: skip
    if gx.numel():
        _launch(_backward, (x, v, charge, *grads, membrane, gx, gv0, sums), x, d, **given)
    return gx, gv0, sums.sum(0, dtype=torch.float64).float()
