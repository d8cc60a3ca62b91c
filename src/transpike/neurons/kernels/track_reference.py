"""The tracking neuron in plain PyTorch. The other backends must give exactly the same spikes.

The three backends (this one, ``track_cpu`` and ``track_gpu``) have one interface. They read flat ``[time, neurons]``
tensors and write results into tensors that the caller has allocated. Every product and every sum is rounded
separately. The caller computes the powers of beta once, in double precision. So the backends agree bit for bit.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["PLAIN", "Carried", "Clip", "Digits", "Feed", "Final", "Pattern", "Tables", "accumulate", "encode", "track"]


class Digits(NamedTuple):
    """The rule that rounds a value to a digit.

    The digit is the sum of all ``increments[k]`` with ``value >= rising[k]``, minus the sum of all with ``value <=
    falling[k]``. If ``top`` is not 0, the digits are all integers up to it. They are then computed without a table, as
    ``floor(magnitude * inverse + offset)``. ``mirror`` is -1 if negative digits exist, otherwise 0.
    """

    rising: tuple[float, ...]
    falling: tuple[float, ...]
    increments: tuple[float, ...]
    top: int
    inverse: float
    offset: float
    mirror: float


class Tables(NamedTuple):
    """The constants of a layer of tracking neurons.

    Attributes:
        beta: the radix.
        silent: the number of steps before the first spike.
        scale: the value of a unit digit in the scale of the state, beta^silent.
        inverse: the factor from the scale of the state to units of theta.
        slope: the slope of the function for negative values.
        low: the function's lower bound, one for each simulated step.
        high: the function's upper bound, one for each simulated step.
        units: factors from the accumulated input to the scale of each simulated step.
        digits: the rule that rounds to a digit.
        gain: the factor of each current.
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
    """The tensors for the results after the last step, in units of theta: both ``[neurons]``, or both empty."""

    residual: Tensor
    target: Tensor


class Pattern(NamedTuple):
    """One value for each channel. Neuron ``j`` has ``values[j // inner % len(values)]``."""

    values: Tensor
    inner: int

    def spread(self, neurons: int) -> Tensor:
        """Return the value of every neuron, ``[neurons]``."""
        index = torch.arange(neurons, device=self.values.device) // self.inner % len(self.values)
        return self.values[index]


class Feed(NamedTuple):
    """An operation on each row of currents, before all others. Every product and every sum is rounded separately::

        row[t] <- row[t] * scale + shift * shares[t] + other[t] * factor

    Parts that are None are left out. ``other`` ``[T, neurons]`` is a second current, and always has a ``factor``.
    """

    scale: Pattern | None = None
    shift: Pattern | None = None
    shares: tuple[float, ...] = ()
    other: Tensor | None = None
    factor: Pattern | None = None

    def rows(self, source: Tensor) -> list[Tensor]:
        """Return all rows of the resulting currents, in the data type of the state."""
        rows = list(source if source.dtype == torch.float64 else source.float())
        if self.scale:
            scale = self.scale.spread(source.shape[1])
            rows = [row * scale for row in rows]
        if self.shift:
            shift = self.shift.spread(source.shape[1])
            rows = [row + shift * share for row, share in zip(rows, self.shares, strict=True)]
        if self.other is not None and self.factor:
            factor = self.factor.spread(source.shape[1])
            rows = [row + other * factor for row, other in zip(rows, self.other.to(rows[0].dtype), strict=True)]
        return rows


PLAIN = Feed()
"""Leaves currents unchanged."""


class Carried(NamedTuple):
    """The state of a run in pieces of steps.

    Attributes:
        values: the state ``[2, neurons]``, for `accumulate` ``[1, neurons]``. A piece reads it, unless ``begin`` is 0,
            and writes it.
        begin: the first step of this piece.
        idle: the number of steps without input after the rows of the source. `accumulate` does not read it, because its
            result has one row for each step.
    """

    values: Tensor
    begin: int
    idle: int = 0


class Clip(NamedTuple):
    """A function of real values with bounds, divided by the amplitude of each channel::

        row[t] <- clamp(x if x > 0 else slope x, low, high) / relative,   x = worths[t] * sum[t]

    ``sum`` is the accumulated input. ``worths`` has one factor for each row of currents, which gives real units.
    """

    worths: tuple[float, ...]
    slope: float
    low: float
    high: float
    relative: Pattern

    def value(self, held: Tensor, row: int) -> Tensor:
        """Return the function's value for the input ``held`` that is accumulated by this row of currents."""
        x = held * self.worths[row]
        x = torch.where(x > 0, x, x * self.slope + 0.0).clamp(self.low, self.high)  # + 0.0, so that ReLU never gives -0
        return x / self.relative.spread(len(x))


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
    """Write the digits that track ``source`` into ``spikes`` ``[T, neurons]``.

    Args:
        source: currents ``[T, neurons]``. If ``accumulated``, the accumulated input ``[T + silent, neurons]``, or
            ``[T, neurons]`` if the last row stays in the silent steps. There, NaN counts as 0: the neuron waits.
        spikes: the digits. They may be the first rows of ``source``, since a row is read before it is written.
        final: the tensors for the residual and the target.
        tables: the constants of the neurons.
        accumulated: whether ``source`` holds the accumulated input.
        feed: an operation on each current before.
        carried: the state, for a run in pieces of steps. ``source`` then has a row for each next step that is not idle,
            and ``spikes`` has a row for each next step that is not silent.
        clip: a function of the accumulated currents. With it, the digits track its values, as if ``source`` held these
            and were ``accumulated``.
    """
    begin, steps = (carried.begin, len(source) + carried.idle) if carried else (0, len(tables.low))
    state = carried.values if carried else source.new_empty(2, source.shape[1], dtype=_state(source))
    held, sent = (x.clone() if begin else torch.zeros_like(x) for x in state)
    rows = list(source) if accumulated else feed.rows(source)
    for k in range(steps):
        step, row = begin + k, min(k, len(rows) - 1)
        if not accumulated and (k == row or not clip):
            held = held * tables.beta
            if k < len(rows):
                held = held + rows[k] * tables.gain
        heard = rows[row] if accumulated else clip.value(held, row) if clip else held
        if accumulated or clip:
            heard = (heard * tables.units[step]).nan_to_num(0.0, torch.inf, -torch.inf)
        if accumulated:
            held = heard
        if step < tables.silent:
            continue
        value = torch.where(heard > 0, heard, heard * tables.slope).clamp(tables.low[step], tables.high[step])
        sent = sent * tables.beta
        digit = _digit(value - sent, tables.digits)
        sent = sent + digit * tables.scale
        spikes[step - max(tables.silent, begin)] = digit
    if carried:
        state[0], state[1] = held, sent
    if final.target.numel():
        final.residual.copy_((value - sent) * tables.inverse)
        final.target.copy_(value * tables.inverse)


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
    """Write ``units[t] * sum[t]`` into ``held``, with ``sum[t] = beta * sum[t - 1] + gain * source[t]``.

    After the last row of ``source``, currents are 0. ``units`` has one value for each row of ``held``.
    """
    state = torch.zeros_like(held[0])
    if carried and carried.begin:
        state = carried.values[0].clone()
    rows = feed.rows(source)
    for k, unit in enumerate(units):
        state = state * beta
        if k < len(rows):
            state = state + rows[k] * gain
        held[k] = state * unit
    if carried:
        carried.values[0] = state


def _state(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def encode(values: Tensor, spikes: Tensor, *, beta: float, start: float, digits: Digits) -> None:
    """Write the digits of ``start * values``, with values ``[neurons]``, into ``spikes`` ``[T, neurons]``."""
    state = values * start
    for step in range(len(spikes)):
        state = state * beta
        digit = _digit(state, digits)
        state = state - digit
        spikes[step] = digit
