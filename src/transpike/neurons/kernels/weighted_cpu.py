"""The weighted neuron on the CPU: Numba, in blocks of neurons with time inside.

It has the interface of ``weighted_reference``, for float32, and the same rounding.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from torch import Tensor

from transpike.neurons.kernels.threads import compiled, spread
from transpike.neurons.kernels.track_reference import Final
from transpike.neurons.kernels.weighted_reference import SLACK, Rule

__all__ = ["fire"]

_BLOCK = 2048
_ALIGN = 16
_SLACK = np.float32(SLACK)


@compiled
def _fire(  # type: ignore[no-untyped-def]
    source, spikes, residual, target, state, accumulated, weights, shares, levels, rising, constants, first, last
):
    zero, endless = np.float32(0), np.float32(np.inf)
    mirror, slope, low, high, floor = constants[0], constants[1], constants[2], constants[3], constants[4]
    held, sent, value = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    size, reach = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    wait = len(weights) - len(spikes)
    for start in range(first, last, _BLOCK):
        stop = min(start + _BLOCK, last)
        width = stop - start
        held[:width] = state[0, start:stop]
        sent[:width] = state[1, start:stop]
        for step in range(len(weights)):
            if accumulated:
                row = source[min(step, len(source) - 1), start:stop]
                for j in range(width):
                    h = row[j]
                    held[j] = h if h == h else zero
            elif step < len(source):
                row, weight = source[step, start:stop], weights[step]
                for j in range(width):
                    held[j] = held[j] + row[j] * weight
            if step < wait:
                continue
            weight, share, digit = weights[step - wait], shares[step - wait], spikes[step - wait, start:stop]
            for j in range(width):
                h = held[j]
                v = h if h > zero else h * slope
                v = v if v > low else low
                v = v if v < high else high
                value[j] = v
                missed = (v - sent[j]) * share
                size[j] = missed if missed > zero else missed * mirror
                reach[j] = endless if missed > zero else (sent[j] - floor) * share + _SLACK
                digit[j] = zero
            below = zero
            for k in range(len(levels)):
                level, least = levels[k], rising[k]
                for j in range(width):
                    digit[j] += level - below if (size[j] >= least) & (reach[j] >= level) else zero
                below = level
            for j in range(width):
                d = digit[j] if value[j] > sent[j] else zero - digit[j]
                digit[j] = d
                sent[j] = sent[j] + d * weight
        state[0, start:stop] = held[:width]
        state[1, start:stop] = sent[:width]
        if len(target) > 0:
            for j in range(width):
                residual[start + j] = value[j] - sent[j]
                target[start + j] = value[j]


@lru_cache(maxsize=4096)
def _arrays(rule: Rule) -> tuple[Any, ...]:
    held = (0.0,) * rule.wait  # the steps after the input's last
    constants = (rule.mirror, rule.slope, rule.low, rule.high, rule.floor)
    arrays = ((*rule.weights, *held), (*rule.shares, *held), rule.levels, rule.rising, constants)
    return tuple(np.array(x, np.float32) for x in arrays)


def fire(source: Tensor, spikes: Tensor, final: Final, rule: Rule, state: Tensor, *, accumulated: bool) -> None:
    """See ``weighted_reference.fire``."""
    places = (source.numpy(), spikes.numpy(), final.residual.numpy(), final.target.numpy(), state.numpy())
    steps = len(rule.weights) + rule.wait
    spread(_fire, (*places, accumulated, *_arrays(rule)), items=source.shape[1], cost=steps, align=_ALIGN)
