"""The weighted neuron in plain torch: the fallback on any device, and the reference for the kernel.

Everything is ``[neurons]``, in units of theta.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from transpike.neurons.kernels.track_reference import Final

__all__ = ["SLACK", "Rule", "fire"]

SLACK = 2**-10
"""A tolerance, as a share of a unit spike, so that rounding does not prevent taking a spike back."""


class Rule(NamedTuple):
    """The constants of one weighted neuron.

    Attributes:
        weights: the value of a unit spike at each step.
        shares: one over it.
        wait: silent steps before the first spike.
        levels: magnitudes of spikes, increasing.
        rising: the magnitude of the missing value, in units of the step's value, from which each fires.
        mirror: -1 if negative spikes exist, otherwise 0.
        slope: the slope of the function below 0.
        low: its least value.
        high: its largest value.
        floor: the value below which no negative spike may take the output.
    """

    weights: tuple[float, ...]
    shares: tuple[float, ...]
    wait: int
    levels: tuple[int, ...]
    rising: tuple[float, ...]
    mirror: float
    slope: float
    low: float
    high: float
    floor: float


def fire(source: Tensor, spikes: Tensor, final: Final, rule: Rule, state: Tensor, *, accumulated: bool) -> None:
    """Write the digits of ``source`` into ``spikes`` ``[T, neurons]``.

    ``source`` holds currents ``[T, neurons]`` or, if ``accumulated``, the value to represent after each step, whose
    last row stays. NaN counts as 0 there. ``spikes`` may be the first rows of ``source``, because a row is read before
    it is written. ``state`` ``[2, neurons]`` holds the input and the output so far, and is overwritten.
    """
    steps, held, sent = len(rule.weights), state[0], state[1]
    for step in range(steps + rule.wait):
        if accumulated:
            held = source[min(step, len(source) - 1)].nan_to_num(0.0, torch.inf, -torch.inf)
        elif step < steps:
            held = held + source[step] * rule.weights[step]
        value = torch.where(held > 0, held, held * rule.slope).clamp(rule.low, rule.high)
        if step < rule.wait:
            continue
        weight, share = rule.weights[step - rule.wait], rule.shares[step - rule.wait]
        missed = (value - sent) * share
        size = torch.where(missed > 0, missed, missed * rule.mirror)
        digit, below = torch.zeros_like(held), 0
        reach = torch.where(missed > 0, torch.inf, (sent - rule.floor) * share + SLACK)
        for level, rising in zip(rule.levels, rule.rising, strict=True):
            digit += (level - below) * ((size >= rising) & (reach >= level)).to(held.dtype)
            below = level
        digit = torch.where(missed > 0, digit, 0.0 - digit)
        sent = sent + digit * weight
        spikes[step - rule.wait] = digit
    state[0], state[1] = held, sent
    if final.target.numel():
        final.residual.copy_(value - sent)
        final.target.copy_(value)
