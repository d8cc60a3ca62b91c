"""The LIF family on CUDA, in Triton. One program runs a block of neurons over all steps, in one pass each way.

As on a CPU, only the input is stored for the backward pass, which computes the membrane again. It does so in spans of
at most 16 steps, from the last to the first, with the membranes of a span in registers. Up to 16 steps need no memory
beside the gradients. More steps need 4 bytes per neuron for each further span: the membrane before it. That is less
than 0.5 bytes per neuron and step. Fused multiply-add is off, so spikes equal those of the reference.
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

Norm = tuple[Tensor, Tensor, int]
"""The scale and the shift of each channel, float32, and how many consecutive neurons belong to one channel."""
_SPAN = 16  # steps whose membranes stay in registers


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
    x, v0, charge, scales, shifts, inner, channels, s, last, steps, neurons,
    threshold, decay, gain, bias, carry, rest, drop, keep, start,
    NORM: tl.constexpr, STATE: tl.constexpr, LEARNED: tl.constexpr, TERNARY: tl.constexpr,
    SPAN: tl.constexpr, WHOLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < neurons
    if LEARNED:
        decay, gain, bias = tl.load(charge), tl.load(charge + 1), tl.load(charge + 2)
    v = tl.load(v0 + i, inside, other=0.0) if STATE else tl.full([BLOCK], 0.0, tl.float32) + start
    if NORM:
        scale, shift = tl.load(scales + i // inner % channels), tl.load(shifts + i // inner % channels)
    for begin in range(0, steps, SPAN):
        for k in tl.static_range(SPAN):  # unrolled, so that all steps can load at the same time
            there = inside if WHOLE else inside & (tl.full([BLOCK], begin + k, tl.int32) < steps)
            current = tl.load(x + i, there, other=0.0).to(tl.float32)
            if NORM:
                current = current * scale + shift
            h = decay * v + gain * current + bias
            spike = _fire(h, threshold, TERNARY)
            after = _reset(h, spike, carry, rest, drop, keep)
            v = after if WHOLE else tl.where(there, after, v)
            tl.store(s + i, spike.to(s.dtype.element_ty), there)
            x += neurons
            s += neurons
    tl.store(last + i, v, inside)


@triton.jit
def _backward(  # type: ignore[no-untyped-def]
    x, v0, charge, g, gv, marks, gx, gv0, sums, steps, neurons,
    threshold, decay, gain, bias, carry, rest, drop, keep, start, slope, height,
    STATE: tl.constexpr, LEARNED: tl.constexpr, TERNARY: tl.constexpr, DETACH: tl.constexpr, SHAPE: tl.constexpr,
    SPIKES: tl.constexpr, LAST: tl.constexpr, SPANS: tl.constexpr, SPAN: tl.constexpr, WHOLE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < neurons
    nothing = tl.full([BLOCK], 0.0, tl.float32)
    if LEARNED:
        decay, gain, bias = tl.load(charge), tl.load(charge + 1), tl.load(charge + 2)
    first = tl.load(v0 + i, inside, other=0.0) if STATE else nothing + start
    if SPANS > 1:  # the membrane before each span but the first
        v, at = first, i
        for _ in range(SPANS - 1):
            for _k in tl.static_range(SPAN):
                h = decay * v + gain * tl.load(x + at, inside, other=0.0).to(tl.float32) + bias
                v = _reset(h, _fire(h, threshold, TERNARY), carry, rest, drop, keep)
                at += neurons
            tl.store(marks + i, v, inside)
            marks += neurons
        tl.debug_barrier()
    pull = tl.load(gv + i, inside, other=0.0) if LAST else nothing
    later = nothing
    by_decay, by_gain, by_bias = nothing, nothing, nothing
    for back in range(SPANS):
        span = SPANS - 1 - back
        begin = span * SPAN
        at = i + begin.to(tl.int64) * neurons
        v = first
        if SPANS > 1:
            marks -= neurons
            later_span = inside & (tl.full([BLOCK], span, tl.int32) > 0)
            v = tl.where(later_span, tl.load(marks + i, later_span, other=0.0), first)
        charged = ()
        for k in tl.static_range(SPAN):
            there = inside if WHOLE else inside & (tl.full([BLOCK], begin + k, tl.int32) < steps)
            h = decay * v + gain * tl.load(x + at, there, other=0.0).to(tl.float32) + bias
            v = _reset(h, _fire(h, threshold, TERNARY), carry, rest, drop, keep)
            charged = charged + (h,)  # type: ignore[assignment]  # noqa: RUF005  (Triton unpacks nothing)
            at += neurons
        for k in tl.static_range(SPAN):
            at -= neurons
            there = inside if WHOLE else inside & (tl.full([BLOCK], begin + SPAN - 1 - k, tl.int32) < steps)
            h = charged[SPAN - 1 - k]
            spike = _fire(h, threshold, TERNARY)
            up = _derivative(h - threshold, slope, height, SHAPE)
            down = _derivative(-h - threshold, slope, height, SHAPE) if TERNARY else nothing
            dv = tl.where(spike == 0.0, keep, carry)
            if not DETACH:
                dv += ((carry - keep) * h + rest) * (up - down) - drop * (up + down)
            gh = pull * dv
            if SPIKES:
                gh += tl.load(g + at, there, other=0.0).to(tl.float32) * (up + down)
            if LEARNED:
                gh = gh if WHOLE else tl.where(there, gh, 0.0)
                by_decay += later * _reset(h, spike, carry, rest, drop, keep)
                by_gain += gh * tl.load(x + at, there, other=0.0).to(tl.float32)
                by_bias += gh
                later = gh
            tl.store(gx + at, (gain * gh).to(gx.dtype.element_ty), there)
            pull = decay * gh if WHOLE else tl.where(there, decay * gh, pull)
    if STATE:
        tl.store(gv0 + i, pull, inside)
    if LEARNED:
        by_decay += later * first
        row = sums + tl.program_id(0) * 3
        tl.store(row, tl.sum(tl.where(inside, by_decay, 0.0)))
        tl.store(row + 1, tl.sum(tl.where(inside, by_gain, 0.0)))
        tl.store(row + 2, tl.sum(tl.where(inside, by_bias, 0.0)))


def _spans(steps: int) -> tuple[int, int]:
    """Return the number of spans, and the number of steps of each. The last span may have fewer."""
    spans = -(-steps // _SPAN)
    return spans, -(-steps // spans)


def _block(span: int, learned: bool) -> int:
    """Return how many neurons a program runs, such that its state fits in registers. A test checks the H100's code."""
    return 256 if learned or span > 8 else 512


def _launch(kernel: Any, arguments: tuple[Any, ...], x: Tensor, dynamics: Dynamics, **options: Any) -> None:
    numbers = dynamics[: Dynamics._fields.index("ternary")]
    steps, neurons = x.shape
    spans, span = _spans(steps)
    block = _block(span, options["LEARNED"])
    with torch.cuda.device_of(x):
        kernel[(triton.cdiv(neurons, block),)](
            *arguments,
            steps,
            neurons,
            *numbers,
            **options,
            TERNARY=dynamics.ternary > 0,
            SPAN=span,
            WHOLE=spans * span == steps,
            BLOCK=block,
            enable_fp_fusion=False,
        )


def forward(
    x: Tensor, v: Tensor | None, charge: Tensor | None, dynamics: Sequence[float], norm: Norm | None = None
) -> tuple[Tensor, Tensor]:
    """Return the spikes [T, M] and the last membrane [M] for an input [T, M]. ``x`` and ``v`` must be contiguous.

    With ``norm``, the input is first multiplied by its channel's scale, and its channel's shift is added.
    """
    s, last = torch.empty_like(x), x.new_empty(x.shape[1], dtype=torch.float32)
    options = {"NORM": norm is not None, "STATE": v is not None, "LEARNED": charge is not None}
    scale, shift, inner = norm or (None, None, 1)
    channels = 1 if scale is None else len(scale)
    if last.numel():
        _launch(_forward, (x, v, charge, scale, shift, inner, channels, s, last), x, Dynamics(*dynamics), **options)
    return s, last


def backward(
    grads: tuple[Tensor | None, Tensor | None],
    x: Tensor,
    v: Tensor | None,
    charge: Tensor | None,
    dynamics: Sequence[float],
    surrogate: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the input [T, M], the first membrane [M] and the charge [3].

    ``grads`` are the gradients of the spikes and of the last membrane. Without a first membrane its gradient is empty.
    """
    d = Dynamics(*dynamics)
    gx, gv0 = torch.empty_like(x), x.new_empty(0 if v is None else x.shape[1], dtype=torch.float32)
    spans, span = _spans(len(x))
    marks = x.new_empty((spans - 1, x.shape[1]), dtype=torch.float32)
    programs = 0 if charge is None else triton.cdiv(x.shape[1], _block(span, True))
    sums = x.new_zeros((programs, 3), dtype=torch.float32)
    options = {
        "STATE": v is not None, "LEARNED": charge is not None, "SPIKES": grads[0] is not None,
        "LAST": grads[1] is not None, "DETACH": d.detach_reset > 0, "SHAPE": int(surrogate[0]), "SPANS": spans,
        "slope": surrogate[1], "height": surrogate[2],
    }  # fmt: skip
    if gx.numel():
        _launch(_backward, (x, v, charge, *grads, marks, gx, gv0, sums), x, d, **options)
    return gx, gv0, sums.sum(0, dtype=torch.float64).float()
