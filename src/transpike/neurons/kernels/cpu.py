"""The LIF family on the CPU: Numba, in blocks of neurons with time inside, one pass over memory in each direction.

Only the input is stored for the backward pass: 4 bytes for each element and step, which its creator already holds. The
membrane is computed again, block by block, in cache. Outputs use the memory of earlier outputs
(`transpike.neurons.kernels.memory`), because at these sizes page faults cost more than the arithmetic.

Fused multiply-add is not used, so spikes equal the reference's to the bit. PyTorch converts half precision to float32
and back.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from transpike.neurons.kernels import memory
from transpike.neurons.kernels.reference import Dynamics
from transpike.neurons.kernels.threads import compiled, spread

__all__ = ["backward", "forward"]

_NEURONS = 512  # in a block of the forward pass, whose membranes stay in the first-level cache
_CACHE = 1 << 16  # elements of a block of the backward pass over all steps, which must stay in the second-level cache
_NONE = np.empty(0, np.float32)
_ZERO, _ONE, _TWO, _HALF, _QUARTER = (np.float32(x) for x in (0, 1, 2, 0.5, 0.25))
_SERIES = np.float32(1 / 12), np.float32(1 / 30), np.float32(1 / 56)
_SCALE, _FAR = np.float32(1 / 32), np.float32(40)

Array = npt.NDArray[np.float32]


@compiled
def _fire(h, threshold, lower):  # type: ignore[no-untyped-def]
    # One choice after the other: LLVM compiles nested ones to a masked store for each result, which are slow.
    s = -_ONE if h <= lower else _ZERO
    s = _ONE if h >= threshold else s
    return s if h == h else h


@compiled
def _lower(d):  # type: ignore[no-untyped-def]
    """Return the threshold of negative spikes. Without negative spikes, no value is below it."""
    return -d.threshold if d.ternary else np.float32(np.nan)


@compiled
def _reset(h, s, carry, rest, drop, keep):  # type: ignore[no-untyped-def]
    return keep * h if s == _ZERO else carry * h + rest - drop * s


@compiled
def _step(v, x, s, after, d):  # type: ignore[no-untyped-def]
    """Run one step of one block in one loop. `after` must not be `v`, because overlapping loops do not vectorise."""
    decay, gain, bias = d.decay, d.gain, d.bias
    threshold, lower = d.threshold, _lower(d)
    carry, rest, drop, keep = d.carry, d.rest, d.drop, d.keep
    for i in range(v.size):
        h = decay * v[i] + gain * x[i] + bias
        s[i] = spike = _fire(h, threshold, lower)
        after[i] = _reset(h, spike, carry, rest, drop, keep)


@compiled
def _replay(v, x, h, after, d):  # type: ignore[no-untyped-def]
    """Run `_step` again, and store the charged membrane instead of the spikes."""
    decay, gain, bias = d.decay, d.gain, d.bias
    threshold, lower = d.threshold, _lower(d)
    carry, rest, drop, keep = d.carry, d.rest, d.drop, d.keep
    for i in range(v.size):
        h[i] = u = decay * v[i] + gain * x[i] + bias
        after[i] = _reset(u, _fire(u, threshold, lower), carry, rest, drop, keep)


@compiled
def _forward(x, v0, s, v, d, block, lo, hi):  # type: ignore[no-untyped-def]
    steps = len(x)
    turns = np.empty((2, block), np.float32)
    for a in range(lo, hi, block):
        b = min(a + block, hi)
        n = b - a
        if v0.size:
            turns[0, :n] = v0[a:b]
        else:
            turns[0, :n] = d.start
        for t in range(steps):
            _step(turns[t % 2, :n], x[t, a:b], s[t, a:b], turns[(t + 1) % 2, :n], d)
        v[a:b] = turns[steps % 2, :n]


@compiled
def _derivative(h, sign, out, threshold, surrogate):  # type: ignore[no-untyped-def]
    """Compute the surrogate's derivative at ``sign * h - threshold``, with one loop for each shape, to vectorise."""
    shape, slope, height = surrogate
    if shape == _ZERO:
        for i in range(h.size):
            y = slope * (sign * h[i] - threshold)
            out[i] = height / (_ONE + y * y)
    elif shape == _ONE:
        # sigmoid'(y) = 1 / (4 cosh(y/2)^2). The series of cosh - 1 near zero and four doublings, u -> 2u (u + 2),
        # need no exponential, which would not vectorise.
        c12, c30, c56 = _SERIES
        for i in range(h.size):
            y = abs(slope * (sign * h[i] - threshold))
            z = (y if y < _FAR else (_FAR if y == y else y)) * _SCALE
            q = z * z
            u = _HALF * q * (_ONE + q * c12 * (_ONE + q * c30 * (_ONE + q * c56)))
            u = _TWO * u * (u + _TWO)
            u = _TWO * u * (u + _TWO)
            u = _TWO * u * (u + _TWO)
            u = _TWO * u * (u + _TWO)
            out[i] = _ZERO if y > _FAR else height * (_QUARTER / ((_ONE + u) * (_ONE + u)))
    elif shape == _TWO:
        for i in range(h.size):
            y = _ONE - abs(slope * (sign * h[i] - threshold))
            out[i] = height * (_ZERO if y < _ZERO else y)
    else:
        for i in range(h.size):
            y = abs(slope * (sign * h[i] - threshold))
            out[i] = height if y < _HALF else _ZERO


@compiled
def _pull(h, slope, event, g, gh, gx, leak, d):  # type: ignore[no-untyped-def]
    """Compute the gradient of one step of one block. `gh` is dL/dh of the next step on entry and of this one on return.

    `slope` and `event` are the derivatives of the spike and of its absolute value.
    """
    threshold, lower = d.threshold, _lower(d)
    carry, rest, drop, keep, gain = d.carry, d.rest, d.drop, d.keep, d.gain
    through = _ZERO if d.detach_reset else _ONE
    for i in range(h.size):
        u = h[i]
        reset = ((carry - keep) * u + rest) * event[i] - drop * slope[i]
        dv = (carry if u >= threshold or u <= lower else keep) + through * reset
        grad = g[i] * slope[i] + leak * gh[i] * dv
        gh[i] = grad
        gx[i] = gain * grad


@compiled
def _accumulate(gh, v, x, sums):  # type: ignore[no-untyped-def]
    decay, gain, bias = sums[0], sums[1], sums[2]
    for i in range(gh.size):
        decay += gh[i] * v[i]
        gain += gh[i] * x[i]
        bias += gh[i]
    sums[0], sums[1], sums[2] = decay, gain, bias


@compiled
def _backward(x, v0, g, g_last, gx, g_first, sums, d, surrogate, block, lo, hi):  # type: ignore[no-untyped-def]
    """Compute the gradients of a range of blocks.

    `g_last` and `g_first` are dL/dv after the last step and before the first, and `sums` is dL/d(charge) of each block.
    Empty arrays among them are left out.
    """
    steps = len(x)
    h, v = np.empty((steps, block), np.float32), np.empty((2, block), np.float32)
    before = np.empty((steps if sums.size else 0, block), np.float32)
    slope, other, gh = np.empty(block, np.float32), np.empty(block, np.float32), np.empty(block, np.float32)
    event = other if d.ternary else slope
    for a in range(lo, hi, block):
        b = min(a + block, hi)
        n = b - a
        if v0.size:
            v[0, :n] = v0[a:b]
        else:
            v[0, :n] = d.start
        for t in range(steps):
            if sums.size:
                before[t, :n] = v[t % 2, :n]
            _replay(v[t % 2, :n], x[t, a:b], h[t, :n], v[(t + 1) % 2, :n], d)
        if g_last.size:
            gh[:n] = g_last[a:b]
        else:
            gh[:n] = _ZERO
        leak = _ONE
        for t in range(steps - 1, -1, -1):
            _derivative(h[t, :n], _ONE, slope[:n], d.threshold, surrogate)
            if d.ternary:
                _derivative(h[t, :n], -_ONE, other[:n], d.threshold, surrogate)
                for i in range(n):
                    slope[i], other[i] = slope[i] + other[i], slope[i] - other[i]
            _pull(h[t, :n], slope[:n], event[:n], g[t, a:b], gh[:n], gx[t, a:b], leak, d)
            leak = d.decay
            if sums.size:
                _accumulate(gh[:n], before[t, :n], x[t, a:b], sums[a // block])
        if g_first.size:
            for i in range(n):
                g_first[a + i] = leak * gh[i]


def _block(steps: int) -> int:
    return min(max(_CACHE // steps, 256), 1 << 14)


def _constants(charge: Tensor | None, dynamics: Sequence[float]) -> Dynamics:
    d = Dynamics(*dynamics)
    if charge is not None:
        decay, gain, bias = charge.tolist()
        d = d._replace(decay=decay, gain=gain, bias=bias)
    return Dynamics(*map(np.float32, d))  # type: ignore[arg-type]


def _array(x: Tensor | None) -> Array:
    return _NONE if x is None else x.detach().float().numpy()


def forward(x: Tensor, v: Tensor | None, charge: Tensor | None, dynamics: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return spikes [T, M] and last membrane [M] of an input [T, M]. Both inputs are contiguous."""
    steps, neurons = x.shape
    s, last = memory.empty(x.shape), memory.empty([neurons])
    arguments = (_array(x), _array(v), s.numpy(), last.numpy(), _constants(charge, dynamics), _NEURONS)
    spread(_forward, arguments, items=neurons, cost=steps, align=_NEURONS)
    return s.to(x.dtype), last


def backward(
    grads: tuple[Tensor | None, Tensor | None],
    x: Tensor,
    v: Tensor | None,
    charge: Tensor | None,
    dynamics: Sequence[float],
    surrogate: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return gradients of input [T, M], first membrane [M] and charge [3] from those of spikes and last membrane.

    Without a first membrane its gradient is empty. The sums for the charge are computed block by block, and the blocks
    do not depend on the number of threads.
    """
    steps, neurons = x.shape
    g = np.zeros(x.shape, np.float32) if grads[0] is None else _array(grads[0])
    gx, g_first = memory.empty(x.shape), memory.empty([0 if v is None else neurons])
    block = _block(steps)
    sums = np.zeros((0 if charge is None else -(-neurons // block), 3))
    given = (_array(x), _array(v), g, _array(grads[1]), gx.numpy(), g_first.numpy(), sums)
    constants = (_constants(charge, dynamics), tuple(map(np.float32, surrogate)), block)
    spread(_backward, (*given, *constants), items=neurons, cost=steps, align=block)
    return gx.to(x.dtype), g_first, torch.from_numpy(sums.sum(0)).float()
