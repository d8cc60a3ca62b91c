"""The tracking neuron in plain torch: what the other backends must equal, spike for spike.

The three backends (this one, ``track_cpu`` and ``track_gpu``) have one interface: flat ``[time, neurons]``
tensors in, results written into tensors that the caller allocated. Every product and every sum is rounded on its
own, and the powers of beta are computed once, in double precision, by the caller: so the backends agree to the bit.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["PLAIN", "Carried", "Clip", "Digits", "Feed", "Final", "Pattern", "Tables", "accumulate", "encode", "track"]


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


class Pattern(NamedTuple):
    """One value a channel: that of neuron ``j`` is ``values[j // inner % len(values)]``."""

    values: Tensor
    inner: int

    def spread(self, neurons: int) -> Tensor:
        """Of every neuron."""
        index = torch.arange(neurons, device=self.values.device) // self.inner % len(self.values)
        return self.values[index]


class Feed(NamedTuple):
    """What becomes of each row of currents before anything else, every product and every sum rounded on its own::

        row[t] <- row[t] * scale + shift * shares[t] + other[t] * factor

    Each is left out where it is None; ``other`` ``[T, neurons]`` is a second current, ``factor`` given with it.
    """

    scale: Pattern | None = None
    shift: Pattern | None = None
    shares: tuple[float, ...] = ()
    other: Tensor | None = None
    factor: Pattern | None = None

    def rows(self, source: Tensor) -> list[Tensor]:
        """All rows of currents, in the type of the state."""
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
"""Currents as they are."""


class Carried(NamedTuple):
    """The state ``[2, neurons]`` of a run in pieces (of `accumulate` ``[1, neurons]``), and the first step of this one.

    It is read unless ``begin`` is 0, and written. So many steps as ``idle`` follow those that have rows; `accumulate`
    has one for each row of its result.
    """

    values: Tensor
    begin: int
    idle: int = 0


class Clip(NamedTuple):
    """A function of real values with bounds, which is divided by the amplitude of each channel::

        row[t] <- clamp(x if x > 0 else slope x, low, high) / relative,   x = worths[t] * sum[t]

    where ``sum`` is what the currents have accumulated; ``worths`` has one value a row of currents.
    """

    worths: tuple[float, ...]
    slope: float
    low: float
    high: float
    relative: Pattern

    def value(self, held: Tensor, row: int) -> Tensor:
        """Of what has been accumulated by a row of currents."""
        x = held * self.worths[row]
        x = torch.where(x > 0, x, x * self.slope + 0.0).clamp(self.low, self.high)  # of ReLU 0, never -0
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

    ``source`` holds currents ``[T, neurons]`` or, if ``accumulated``, the accumulated input: ``[T + silent, neurons]``,
    or ``[T, neurons]`` if the last row holds on. NaN counts as 0 there: the neuron waits. ``spikes`` may be the first
    rows of ``source``: a row is read before it is written.

    Where the state is ``carried``, ``source`` has a row for each of the next steps but the idle ones, and ``spikes``
    one for each of them that is not silent.

    With ``clip``, the digits track what it makes of the currents, as if ``source`` held that, ``accumulated``.
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
    """Write ``units[t] * sum[t]``: ``sum[t] = beta * sum[t - 1] + gain * source[t]``, with zeros after the source.

    ``units`` are those of these rows.
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
    """Write the digits of ``values`` ``[neurons]``, scaled by ``start`` first, into ``spikes`` ``[T, neurons]``."""
    state = values * start
    for step in range(len(spikes)):
        state = state * beta
        digit = _digit(state, digits)
        state = state - digit
        spikes[step] = digit
