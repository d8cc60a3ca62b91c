"""The reference for every backend: the LIF family, as numbers and as a differentiable loop over time."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Dynamics", "Trace", "multi_step"]


class Dynamics(NamedTuple):
    """A neuron of the leaky integrate-and-fire family, as numbers.

    ``[.]`` is 1 if true and 0 otherwise. One step is::

        h = decay v + gain x + bias                                 charge
        s = [h >= threshold] - ternary [h <= -threshold]            fire
        v = keep h  if s = 0,  else  carry h + rest - drop s        reset

    Soft reset: carry 1, rest 0, drop the amplitude. Hard reset: carry 0, rest the reset potential, drop 0. A leak that
    belongs to the reset (DCT-SNN) is keep below 1. The membrane starts at `start`. `ternary` and `detach_reset` are 1
    or 0. With `detach_reset` no gradient flows through the s that resets.
    """

    threshold: float
    decay: float = 1.0
    gain: float = 1.0
    bias: float = 0.0
    carry: float = 1.0
    rest: float = 0.0
    drop: float = 0.0
    keep: float = 1.0
    start: float = 0.0
    ternary: float = 0
    detach_reset: float = 0


class Trace(NamedTuple):
    """Spikes [T, N, *], the membrane after the last step [N, *] and, if requested, after every step [T, N, *]."""

    spikes: Tensor
    v: Tensor
    v_seq: Tensor | None


def multi_step(
    x: Tensor,
    v: Tensor | None,
    charge: Tensor | None,
    dynamics: Dynamics,
    surrogate: Callable[[Tensor], Tensor],
    *,
    store_v_seq: bool = False,
) -> Trace:
    """Run `dynamics` over x by PyTorch operations, step by step. Autograd computes gradients.

    Args:
        x: input current [T, N, *]. The state is float64 for float64 input, float32 for any other.
        v: membrane before the first step [N, *]; None for ``dynamics.start``.
        charge: (decay, gain, bias) as a tensor [3], if they are learned. They replace those of `dynamics`.
        dynamics: the neuron.
        surrogate: any callable that maps the distance to the threshold to a spike.
        store_v_seq: whether to return the membrane after each step.
    """
    d = dynamics
    state = torch.float64 if x.dtype == torch.float64 else torch.float32
    v = torch.full_like(x[0], d.start, dtype=state) if v is None else v.to(state)
    decay, gain, bias = (d.decay, d.gain, d.bias) if charge is None else charge.unbind()
    spikes, membranes = [], []
    for current in x.to(state).unbind():
        h = decay * v + gain * current + bias
        up = surrogate(h - d.threshold)
        down = surrogate(-h - d.threshold) if d.ternary else torch.zeros_like(up)
        spike, fired = up - down, up + down
        spikes.append(spike.to(x.dtype))
        if d.detach_reset:
            spike, fired = spike.detach(), fired.detach()
        v = (1 - fired) * (d.keep * h) + fired * (d.carry * h + d.rest) - d.drop * spike
        if store_v_seq:
            membranes.append(v)
    return Trace(torch.stack(spikes), v, torch.stack(membranes) if store_v_seq else None)
