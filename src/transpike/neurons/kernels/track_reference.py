"""The tracking neuron in plain torch: what the other backends must equal, spike for spike.

The three backends (this one, ``track_cpu`` and ``track_gpu``) have one interface: flat ``[time, neurons]``
tensors in, results written into tensors that the caller allocated. Every product and every sum is rounded on its
own, and the powers of beta are computed once, in double precision, by the caller: so the backends agree to the bit.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Digits", "Final", "Tables", "accumulate", "encode", "track"]


class Digits(NamedTuple):
    """How a value is rounded to a digit.

    The digit is the sum of ``increments[k]`` over ``value >= rising[k]``, less that over ``value <= falling[k]``.
    If ``top`` is not 0 the digits are all the integers up to it and are found without a table, as
    ``floor(magnitude * inverse + offset)``; ``mirror`` is -1 if negative digits exist, else 0.
    """

    rising: tuple[float, ...]
    falling: tuple[float, ...]
    increments: tuple[float, ...]
    top: int
    inverse: float
    offset: float
    mirror: float


class Tables(NamedTuple):
    """The constants of one tracking neuron; ``low``, ``high`` and ``units`` have one value per simulation step.

    ``units`` take what has been accumulated to the step's own scale; ``gain`` multiplies each current.
    """

    beta: float
    silent: int
    scale: float
    inverse: float
    slope: float
    low: tuple[float, ...]
    high: tuple[float, ...]
    units: tuple[float, ...]
    digits: Digits
    gain: float = 1.0


class Final(NamedTuple):
    """Where the state after the last step is written, in units of theta: both ``[neurons]``, or both empty."""

    residual: Tensor
    target: Tensor


def _digit(value: Tensor, digits: Digits) -> Tensor:
    if digits.top:
        magnitude = torch.where(value > 0, value, value * digits.mirror)
        digit = (magnitude * digits.inverse + digits.offset).clamp_max(digits.top).floor()
        return torch.where(value > 0, digit, 0.0 - digit)
    digit = torch.zeros_like(value)
    for rising, falling, increment in zip(digits.rising, digits.falling, digits.increments, strict=True):
        digit += increment * (value >= rising).to(value.dtype)
        digit -= increment * (value <= falling).to(value.dtype)
    return digit


def track(source: Tensor, spikes: Tensor, final: Final, tables: Tables, *, accumulated: bool) -> None:
    """Write the digits that track ``source`` into ``spikes`` ``[T, neurons]``.

    ``source`` holds currents ``[T, neurons]`` or, if ``accumulated``, the accumulated input: ``[T + silent, neurons]``,
    or ``[T, neurons]`` if the last row holds on. NaN counts as 0 there: the neuron waits. ``spikes`` may be the first
    rows of ``source``: a row is read before it is written.
    """
    held = torch.zeros_like(source[0])
    sent = torch.zeros_like(held)
    for step, (low, high) in enumerate(zip(tables.low, tables.high, strict=True)):
        if accumulated:
            held = (source[min(step, len(source) - 1)] * tables.units[step]).nan_to_num(0.0, torch.inf, -torch.inf)
        else:
            held = held * tables.beta
            if step < len(source):
                held = held + source[step] * tables.gain
        value = torch.where(held > 0, held, held * tables.slope).clamp(low, high)
        sent = sent * tables.beta
        if step >= tables.silent:
            digit = _digit(value - sent, tables.digits)
            sent = sent + digit * tables.scale
            spikes[step - tables.silent] = digit
    if final.target.numel():
        final.residual.copy_((value - sent) * tables.inverse)
        final.target.copy_(value * tables.inverse)


def accumulate(source: Tensor, held: Tensor, *, beta: float, units: tuple[float, ...], gain: float = 1.0) -> None:
    """Write ``units[t] * sum[t]``: ``sum[t] = beta * sum[t - 1] + gain * source[t]``, with zeros after the source."""
    state = torch.zeros_like(held[0])
    for step in range(len(held)):
        state = state * beta
        if step < len(source):
            state = state + source[step] * gain
        held[step] = state * units[step]


def encode(values: Tensor, spikes: Tensor, *, beta: float, start: float, digits: Digits) -> None:
    """Write the digits of ``values`` ``[neurons]``, scaled by ``start`` first, into ``spikes`` ``[T, neurons]``."""
    state = values * start
    for step in range(len(spikes)):
        state = state * beta
        digit = _digit(state, digits)
        state = state - digit
        spikes[step] = digit
