"""The LIF family on the CPU: Numba, blocked over neurons with time inside, one pass over memory each way.

Kept for the backward pass: the input itself, 4 bytes per element and step that whoever made the input already holds,
and nothing else; the membrane is computed again, block by block, in cache. Outputs come from ``numpy.empty``, whose
huge pages fault far less often than PyTorch's; at these sizes page faults cost more than the arithmetic.

There is no contraction to fused multiply-add, so spikes equal the reference's to the bit. Half precision is widened
to float32 and back by PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from transpike.neurons.kernels.reference import Dynamics
from transpike.neurons.kernels.threads import compiled, spread

__all__ = ["backward", "forward"]

_NEURONS = 512  # of a block of the forward pass, whose membranes stay in the first-level cache
_CACHE = 1 << 16  # elements of one block of the backward pass over all steps, which must stay in the second-level cache
_NONE = np.empty(0, np.float32)
_ZERO, _ONE, _TWO, _HALF, _QUARTER = (np.float32(x) for x in (0, 1, 2, 0.5, 0.25))
_SERIES = np.float32(1 / 12), np.float32(1 / 30), np.float32(1 / 56)
_SCALE, _FAR = np.float32(1 / 32), np.float32(40)

Array = npt.NDArray[np.float32]


@compiled
def _charge(v, x, h, d):  # type: ignore[no-untyped-def]
    decay, gain, bias = d.decay, d.gain, d.bias
    for i in range(v.size):
        h[i] = decay * v[i] + gain * x[i] + bias


@compiled
def _step(v, x, s, after, d):  # type: ignore[no-untyped-def]
    """One step of one block in one loop. `after` must not be `v`: loops over what may overlap do not vectorise."""
    decay, gain, bias = d.decay, d.gain, d.bias
    threshold, lower = d.threshold, -d.threshold if d.ternary else np.float32(np.nan)
    carry, rest, drop, keep = d.carry, d.rest, d.drop, d.keep
    for i in range(v.size):
        u = decay * v[i] + gain * x[i] + bias
        spike = _ONE if u >= threshold else (-_ONE if u <= lower else (_ZERO if u == u else u))
        s[i] = spike
        after[i] = keep * u if spike == _ZERO else carry * u + rest - drop * spike


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
    """The surrogate's derivative at ``sign * h - threshold``. One loop per shape, so that each vectorises."""
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
            out[i] = height * (_QUARTER / ((_ONE + u) * (_ONE + u)))
    elif shape == _TWO:
        for i in range(h.size):
            y = _ONE - abs(slope * (sign * h[i] - threshold))
            out[i] = height * (_ZERO if y < _ZERO else y)
    else:
        for i in range(h.size):
            y = abs(slope * (sign * h[i] - threshold))
            out[i] = height if y < _HALF else _ZERO


@compiled
def _pull(h, s, up, down, g, gv, gx, d):  # type: ignore[no-untyped-def]
    """Gradient of one step of one block: `gv` holds dL/dv on entry and dL/dh on return; `gx` receives dL/dx."""
    carry, rest, drop, keep, gain = d.carry, d.rest, d.drop, d.keep, d.gain
    through = _ZERO if d.detach_reset else _ONE
    for i in range(h.size):
        slope, event = up[i] + down[i], up[i] - down[i]
        reset = ((carry - keep) * h[i] + rest) * event - drop * slope
        dv = (keep if s[i] == _ZERO else carry) + through * reset
        gh = g[i] * slope + gv[i] * dv
        gv[i] = gh
        gx[i] = gain * gh


@compiled
def _accumulate(gh, v, x, sums):  # type: ignore[no-untyped-def]
    decay, gain, bias = sums[0], sums[1], sums[2]
    for i in range(gh.size):
        decay += gh[i] * v[i]
        gain += gh[i] * x[i]
        bias += gh[i]
    sums[0], sums[1], sums[2] = decay, gain, bias


@compiled
def _backward(x, v0, g, gx, gv, sums, d, surrogate, block, lo, hi):  # type: ignore[no-untyped-def]
    """`gv` holds dL/dv of the last membrane on entry, of the first on return; `sums`, per block, dL/d(charge)."""
    steps = len(x)
    s, v = np.empty((steps, block), np.float32), np.empty((steps + 1, block), np.float32)
    h = np.empty(block, np.float32)
    up, down = np.empty(block, np.float32), np.zeros(block, np.float32)
    for a in range(lo, hi, block):
        b = min(a + block, hi)
        n = b - a
        if v0.size:
            v[0, :n] = v0[a:b]
        else:
            v[0, :n] = d.start
        for t in range(steps):
            _step(v[t, :n], x[t, a:b], s[t, :n], v[t + 1, :n], d)
        for t in range(steps - 1, -1, -1):
            _charge(v[t, :n], x[t, a:b], h[:n], d)
            _derivative(h[:n], _ONE, up[:n], d.threshold, surrogate)
            if d.ternary:
                _derivative(h[:n], -_ONE, down[:n], d.threshold, surrogate)
            _pull(h[:n], s[t, :n], up[:n], down[:n], g[t, a:b], gv[a:b], gx[t, a:b], d)
            if sums.size:
                _accumulate(gv[a:b], v[t, :n], x[t, a:b], sums[a // block])
            for i in range(a, b):
                gv[i] = d.decay * gv[i]


def _block(steps: int) -> int:
    return min(max(_CACHE // steps, 256), 4096)


def _constants(charge: Tensor | None, dynamics: Sequence[float]) -> Dynamics:
    d = Dynamics(*dynamics)
    if charge is not None:
        decay, gain, bias = charge.tolist()
        d = d._replace(decay=decay, gain=gain, bias=bias)
    return Dynamics(*map(np.float32, d))  # type: ignore[arg-type]


def _array(x: Tensor | None) -> Array:
    return _NONE if x is None else x.detach().float().numpy()


def forward(x: Tensor, v: Tensor | None, charge: Tensor | None, dynamics: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Spikes [T, M] and last membrane [M] of an input [T, M]; both inputs contiguous."""
    steps, neurons = x.shape
    s, last = np.empty(x.shape, np.float32), np.empty(neurons, np.float32)
    arguments = (_array(x), _array(v), s, last, _constants(charge, dynamics), _NEURONS)
    spread(_forward, arguments, items=neurons, cost=steps, align=_NEURONS)
    return torch.from_numpy(s).to(x.dtype), torch.from_numpy(last)


def backward(
    grads: tuple[Tensor | None, Tensor | None],
    x: Tensor,
    v: Tensor | None,
    charge: Tensor | None,
    dynamics: Sequence[float],
    surrogate: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of input [T, M], first membrane [M] and charge [3] from those of spikes and last membrane.

    The sums for the charge are taken block by block, and the blocks do not depend on the number of threads.
    """
    steps, neurons = x.shape
    g = np.zeros(x.shape, np.float32) if grads[0] is None else _array(grads[0])
    gv = np.zeros(neurons, np.float32) if grads[1] is None else _array(grads[1]).copy()
    gx = np.empty(x.shape, np.float32)
    block = _block(steps)
    sums = np.zeros((0 if charge is None else -(-neurons // block), 3))
    constants = _constants(charge, dynamics), tuple(map(np.float32, surrogate))
    arguments = (_array(x), _array(v), g, gx, gv, sums, *constants, block)
    spread(_backward, arguments, items=neurons, cost=steps, align=block)
    return torch.from_numpy(gx).to(x.dtype), torch.from_numpy(gv), torch.from_numpy(sums.sum(0)).float()
