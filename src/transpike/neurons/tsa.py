"""The tracking neuron of CSS conversion: functions from currents to signed spikes, and their code.

The code is a signed-digit number of radix beta, most significant digit first. A value ``a``, in units of the spike
amplitude theta, is a train ``s`` with ``a = sum_t beta^(T-1-t) s[t]``. See "Canonic Signed Spike Coding" (CSS):
Theorem 2 is `encode`, its TSA neuron is `track`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from transpike.errors import ConfigError
from transpike.neurons.inflow import Inflow, pattern
from transpike.neurons.kernels import memory, track_reference
from transpike.neurons.kernels.track_reference import Clip, Digits, Feed, Final, Tables

__all__ = [
    "IDENTITY",
    "RELU",
    "Code",
    "Piecewise",
    "Tracked",
    "accumulate",
    "change",
    "decode",
    "encode",
    "estimate",
    "track",
]

_TABLE_LEVELS = 8
_HAS_TRITON = find_spec("triton") is not None


@dataclass(frozen=True, kw_only=True)
class Code:
    """The code that writes a value as a spike train.

    Args:
        steps: T, the number of digits.
        beta: the radix, at least 1. With 1 all steps weigh the same, as in rate coding. Digits represent every value
            without gaps up to beta = 3 for ternary spikes, and up to 2L + 1 if the levels are all integers to L.
        silent: the number of steps in which a neuron receives input before it first fires.
        levels: the magnitudes of spikes, increasing integers from 1.
        signed: whether a spike may be negative.
        start: the first membrane potential, as a share of a unit. Digit k fires from ``k - start``. The default is 0.5,
            which rounds to the nearest digit. Without negative spikes it is 0, which never overshoots.

    Raises:
        ConfigError: A value is outside its range.
    """

    steps: int
    beta: float
    silent: int = 1
    levels: tuple[int, ...] = (1,)
    signed: bool = True
    start: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or self.silent < 0:
            raise ConfigError(f"steps must be at least 1 and silent at least 0, not {self.steps} and {self.silent}")
        if not 1 <= self.beta < math.inf:
            raise ConfigError(f"beta must be a finite number of at least 1, not {self.beta}")
        if not (self.start is None or 0 <= self.start < 1) or (self.signed and self.start not in (None, 0.5)):
            raise ConfigError(f"start must lie in [0, 1), and be 0.5 for signed spikes, not {self.start}")
        if (
            not all(isinstance(level, int) for level in self.levels)
            or self.levels[:1] != (1,)
            or any(a >= b for a, b in zip(self.levels, self.levels[1:], strict=False))
        ):
            raise ConfigError(f"levels must be increasing integers from 1, such as (1, 2, 4, 8), not {self.levels}")
        if (self.steps + self.silent) * math.log2(self.beta) + math.log2(self.levels[-1]) > 100:
            raise ConfigError(
                f"beta^(steps + silent) = {self.beta}^{self.steps + self.silent} exceeds what float32 can hold: "
                f"use fewer steps or a smaller beta"
            )

    @property
    def weights(self) -> tuple[float, ...]:
        """The value of a unit spike at each step: ``beta^(T-1-t)``."""
        return tuple(self.beta ** (self.steps - 1 - step) for step in range(self.steps))


@dataclass(frozen=True, kw_only=True)
class Piecewise:
    """The function ``f(a) = clamp(a if a > 0 else slope * a, low, high)`` that a neuron tracks.

    ``a``, ``low`` and ``high`` are in units of theta. ``Piecewise()`` is ReLU, slope 1 the identity, slope 0.1 a
    leaky ReLU and ``high = 6 / theta`` ReLU6.

    Raises:
        ConfigError: ``low`` exceeds ``high``, or a value is not a number.
    """

    slope: float = 0.0
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if not (math.isfinite(self.slope) and self.low <= self.high):
            raise ConfigError(f"a piecewise function needs a finite slope and low <= high, not {self}")

    def __call__(self, values: Tensor) -> Tensor:
        """Apply the function to values in units of theta, any shape."""
        return torch.where(values > 0, values, values * self.slope).clamp(self.low, self.high)


RELU = Piecewise()
IDENTITY = Piecewise(slope=1.0)


@dataclass(frozen=True)
class Tracked:
    """The result of `track`.

    Args:
        spikes: ``[T, N, *]``, digits in {0, ±levels}, in the input's dtype and memory format.
        residual: ``[N, *]``, the target minus the decoded train, in units of theta: ``target - decode(spikes)``. None
            unless requested, like the target.
        target: ``[N, *]``, the function of the whole input, in units of theta.
    """

    spikes: Tensor
    residual: Tensor | None = None
    target: Tensor | None = None


@torch.no_grad()
def track(
    z: Tensor,
    *,
    code: Code,
    function: Piecewise = RELU,
    accumulated: bool = False,
    unit: float | None = None,
    relative: Tensor | None = None,
    gain: float = 1.0,
    inflow: Inflow | None = None,
    inplace: bool = False,
    final: bool = False,
) -> Tracked:
    r"""Fire the digits of ``function`` of the running weighted input (the TSA neuron of CSS, as a tracker).

    At step t = 0 ... T + Ts - 1, with Ts silent steps, everything in units of theta:

    .. math::
        H &\leftarrow \beta H + z_t \quad (z_t = 0 \text{ for } t \ge T), \qquad G \leftarrow \beta G \\
        s &= \text{nearest digit to } (f_t(H) - G) / \beta^{Ts} \quad \text{if } t \ge Ts \\
        G &\leftarrow G + \beta^{Ts} s, \qquad \text{emit } s \text{ as output step } t - Ts

    ``f_t(h) = f(c h) / c`` with ``c = beta^(T-1-t)`` is the function at the scale of the final value. Ties go away from
    zero: ternary spikes fire at ``|o| >= beta^Ts / 2``. The final residual is at most 1/2 under the following
    conditions: ``|z_t| <= (2L + 1 - beta) beta^Ts / 2`` for all t, the first Ts steps accumulate at most ``beta^Ts /
    2``, the levels are 1 ... L, and the function is homogeneous with a Lipschitz constant of at most 1.

    Args:
        z: input currents ``[T, N, *]`` in units of theta, or the accumulated input H ``[T + Ts, N, *]``, or running
            estimates ``[T, N, *]`` of the tracked value (see `estimate`), with NaN where there is none yet.
        code: steps, radix, silent steps and digits.
        function: the function to track. The caller applies any other positively homogeneous function (a maximum over a
            window, PReLU) to the result of `accumulate`, and then tracks with ``accumulated=True`` and `IDENTITY`.
        accumulated: whether ``z`` is the accumulated input.
        unit: theta in the units of the estimates, if ``z`` holds estimates, or of ``function``, with ``relative``.
        relative: amplitudes of the channels, which broadcast against one sample. With them, ``function`` is of real
            values, and the tracked value is its value at the `estimate` of the currents, divided by them.
        gain: a factor of each current, if ``z`` holds currents.
        inflow: an operation on each current before.
        inplace: whether spikes may overwrite ``z``, which saves memory.
        final: whether to return the final residual and target too.

    Raises:
        ConfigError: The dtype of ``z`` does not hold all levels.
        ValueError: ``z`` does not have the number of steps of ``code``, or is not a floating-point tensor.

    Example:
        >>> z = torch.tensor([0.0, 1.0, 0.0, -1.0])[:, None]  # 2^2 - 2^0 = 3 = 2^3 - 2^2 - 2^1 + 2^0
        >>> fired = track(z, code=Code(steps=4, beta=2.0, silent=1), final=True)
        >>> fired.spikes.flatten().tolist(), fired.residual.item()
        ([1.0, -1.0, -1.0, 1.0], 0.0)
    """
    rows = code.steps + (code.silent if accumulated else 0)
    backend, source, feed = _fed(z, inflow, rows=rows)
    clip: Clip | None = None
    if relative is not None and unit is not None:
        if (spread := pattern(relative, source)) is None:
            known = estimate(z, beta=code.beta, unit=unit, gain=gain, inflow=inflow, inplace=inplace)
            known = function(known).div_(relative)
            fired = track(known, code=code, function=IDENTITY, unit=unit, inplace=True, final=final)
            return replace(fired, spikes=fired.spikes.to(z.dtype))
        worths = _units(code.beta, unit, code.steps)
        clip, function = Clip(worths, function.slope, function.low, function.high, spread), IDENTITY
    if code.levels[-1] > 2 / torch.finfo(z.dtype).eps:
        raise ConfigError(
            f"{z.dtype} does not hold all integers to {code.levels[-1]}, the highest of a spike; use torch.float32."
        )
    reuse = inplace or source.data_ptr() != z.data_ptr()
    spikes = source[: code.steps] if reuse else _allocate(code.steps, source[0], source.dtype)
    ends = [_allocate(1, source[0], _state(z)) for _ in range(2)] if final else []
    if z.numel():
        places = Final(*(_flat(end)[0] for end in ends)) if final else Final(nothing := source.new_empty(0), nothing)
        tables = _tables(code, function, unit, gain)
        heard = accumulated or (unit is not None and clip is None)
        backend.track(_flat(source), _flat(spikes), places, tables, accumulated=heard, feed=feed, clip=clip)
    spikes = spikes.to(z.dtype)
    return Tracked(spikes, *(end[0] for end in ends)) if final else Tracked(spikes)


@torch.no_grad()
def accumulate(z: Tensor, *, beta: float, silent: int, gain: float = 1.0, inflow: Inflow | None = None) -> Tensor:
    """Accumulate currents as `track` does: ``H[t] = beta H[t-1] + gain z[t]``, with no current in the silent steps.

    Args:
        z: currents ``[T, N, *]`` in units of theta.
        beta: the radix.
        silent: Ts, the number of steps after the last current.
        gain: a factor of each current.
        inflow: an operation on each current before.

    Returns:
        H, ``[T + Ts, N, *]``, float32 (float64 for float64 currents), in the memory format of ``z``.

    Raises:
        ValueError: ``z`` is not a floating-point tensor with time first.

    Example:
        >>> accumulate(torch.ones(2, 1), beta=2.0, silent=1).flatten().tolist()
        [1.0, 3.0, 6.0]
    """
    backend, source, feed = _fed(z, inflow, rows=len(z))
    held = _allocate(len(z) + silent, source[0], _state(z))
    if z.numel():
        backend.accumulate(_flat(source), _flat(held), beta=beta, units=(1.0,) * len(held), gain=gain, feed=feed)
    return held


@torch.no_grad()
def estimate(
    z: Tensor, *, beta: float, unit: float, gain: float = 1.0, inflow: Inflow | None = None, inplace: bool = False
) -> Tensor:
    """Return running estimates of the values of currents or trains: ``sum_(i <= t) unit beta^(T-1-i) gain z[i]``.

    Args:
        z: currents or trains ``[T, N, *]``.
        beta: the radix.
        unit: the value of 1 in the last step.
        gain: a factor of each current.
        inflow: an operation on each current before.
        inplace: whether the estimates may overwrite ``z``, which saves memory.

    Returns:
        Estimates ``[T, N, *]``, float32 (float64 for float64), in the memory format of ``z``; the last is the value.

    Raises:
        ValueError: ``z`` is not a floating-point tensor with time first.

    Example:
        >>> estimate(torch.tensor([[1.0], [0.0], [-1.0]]), beta=2.0, unit=0.5).flatten().tolist()
        [2.0, 2.0, 1.5]
    """
    backend, source, feed = _fed(z, inflow, rows=len(z))
    reuse = (inplace or source.data_ptr() != z.data_ptr()) and source.dtype == _state(z)
    held = source if reuse else _allocate(len(z), source[0], _state(z))
    if z.numel():
        units = _units(beta, unit, len(z))
        backend.accumulate(_flat(source), _flat(held), beta=beta, units=units, gain=gain, feed=feed)
    return held


@torch.no_grad()
def change(estimates: Tensor, *, weights: Sequence[float]) -> Tensor:
    """Return the currents with these running estimates: the inverse of `estimate`, written over the estimates.

    Args:
        estimates: ``[T, N, *]``.
        weights: the value of a current at each step. At a step with value 0 nothing changes.

    Example:
        >>> change(torch.tensor([[2.0], [2.0], [1.5]]), weights=(2.0, 1.0, 0.5)).flatten().tolist()
        [1.0, 0.0, -1.0]
    """
    backend, source = _prepare(estimates, rows=len(weights))
    shares = tuple(1 / weight if weight else 0.0 for weight in weights)
    if backend.__name__.endswith("track_cpu"):
        backend.change(_flat(source), shares=shares)
        return source
    for step in reversed(range(1, len(weights))):
        source[step].sub_(source[step - 1])
    for current, share in zip(source, shares, strict=True):
        current.mul_(share)
    return source


@torch.no_grad()
def encode(x: Tensor, *, code: Code) -> Tensor:
    """Write values as signed digits (Theorem 2 of CSS): no silent steps, negative digits always allowed.

    The membrane starts at ``x / beta^T``. Each step amplifies it by beta, fires the nearest digit and subtracts it.
    The error is at most 1/2 for ``|x| <= L m + 1/2``, with ``m = sum_t beta^t`` and levels 1 ... L, as long as
    beta is at most 2L + 1.

    Args:
        x: values ``[N, *]`` in units of theta.
        code: steps, radix and levels; ``silent`` and ``signed`` do not matter.

    Returns:
        Digits ``[T, N, *]`` in {0, ±levels}, with the data type and memory format of ``x``.

    Raises:
        ValueError: ``x`` is not a floating-point tensor.

    Example:
        >>> encode(torch.tensor([3.0, -2.0]), code=Code(steps=3, beta=2.0)).T.tolist()
        [[1.0, -1.0, 1.0], [-1.0, 1.0, 0.0]]
    """
    backend, source = _prepare(x[None], rows=1)
    spikes = _allocate(code.steps, source[0], source.dtype)
    if x.numel():
        start, digits = code.beta**-code.steps, _digits(code.levels, scale=1.0)
        backend.encode(_flat(source)[0], _flat(spikes), beta=code.beta, start=start, digits=digits)
    return spikes.to(x.dtype)


def decode(s: Tensor, *, beta: float) -> Tensor:
    """Read a train: ``sum_t beta^(T-1-t) s[t]``, by Horner's rule, in float32 (float64 for float64 trains).

    Args:
        s: spikes or currents ``[T, N, *]``.
        beta: the radix.

    Returns:
        Values ``[N, *]`` in units of theta (for currents, in the units of the currents).

    Example:
        >>> decode(torch.tensor([[1.0], [0.0], [-1.0]]), beta=2.0).item()
        3.0
    """
    value = s[0].to(_state(s))
    for step in s[1:]:
        value = value * beta + step
    return value


def _prepare(z: Tensor, *, rows: int) -> tuple[ModuleType, Tensor]:
    """Return the backend for ``z``, and ``z`` with time outermost in memory and in a dtype of the backend."""
    if not z.is_floating_point() or z.ndim < 2 or len(z) != rows:
        raise ValueError(
            f"expected a floating-point tensor [{rows}, N, *] with time first, got {z.dtype} of shape {tuple(z.shape)}"
        )
    z = z.detach()
    if not z.is_contiguous():
        order = (0, *sorted(range(1, z.ndim), key=z.stride, reverse=True))
        z = z if z.permute(order).is_contiguous() else z.contiguous()
    if z.dtype == torch.float64:
        return track_reference, z
    if z.is_cuda and _HAS_TRITON:
        from transpike.neurons.kernels import track_gpu

        return track_gpu, z
    if z.device.type == "cpu":
        from transpike.neurons.kernels import track_cpu

        return track_cpu, z.float()
    return track_reference, z.float()


def _fed(z: Tensor, inflow: Inflow | None, *, rows: int) -> tuple[ModuleType, Tensor, Feed]:
    """Return the result of `_prepare`, and the kernel's operation on the currents. Other parts are applied before."""
    backend, source = _prepare(z, rows=rows)
    if inflow is None:
        return backend, source, Feed()
    if (feed := inflow.feed(source)) is not None:
        return backend, source, feed
    return *_prepare(inflow.apply(z), rows=rows), Feed()


def _state(z: Tensor) -> torch.dtype:
    return torch.float64 if z.dtype == torch.float64 else torch.float32


def _allocate(rows: int, like: Tensor, dtype: torch.dtype) -> Tensor:
    """Return an empty ``[rows, *like.shape]`` in the memory format of ``like``."""
    size = rows * like.numel()
    if like.device.type == "cpu" and dtype == torch.float32:
        flat = memory.empty([size])
    else:
        flat = torch.empty(size, dtype=dtype, device=like.device)
    return flat.as_strided((rows, *like.shape), (like.numel(), *like.stride()))


def _flat(x: Tensor) -> Tensor:
    """Return a view ``[T, neurons]`` of a tensor with this memory layout, in any format."""
    width = math.prod(x.shape[1:])
    return x.as_strided((len(x), width), (width, 1))


def _digits(levels: tuple[int, ...], *, scale: float, signed: bool = True, start: float = 0.5) -> Digits:
    below = (0, *levels[:-1])
    rising = tuple((b - start * (b - a)) * scale for a, b in zip(below, levels, strict=True))
    falling = tuple(-r if signed else -math.inf for r in rising)
    increments = tuple(float(b - a) for a, b in zip(below, levels, strict=True))
    rounds = len(levels) > _TABLE_LEVELS and levels[-1] == len(levels)
    return Digits(
        rising=rising,
        falling=falling,
        increments=increments,
        top=levels[-1] if rounds else 0,
        inverse=1 / scale,
        offset=start,
        mirror=-1.0 if signed else 0.0,
    )


def _units(beta: float, unit: float, steps: int) -> tuple[float, ...]:
    """Return the value of 1 at each step, if it is ``unit`` at the last."""
    return tuple(unit * beta**power for power in reversed(range(steps)))


@lru_cache(maxsize=4096)
def _tables(code: Code, function: Piecewise, unit: float | None = None, gain: float = 1.0) -> Tables:
    scale = code.beta**code.silent
    start = code.start if code.start is not None else 0.5 if code.signed else 0.0
    units = [code.beta ** (step - code.steps + 1) for step in range(code.steps + code.silent)]
    return Tables(
        beta=code.beta,
        silent=code.silent,
        scale=scale,
        inverse=1 / scale,
        slope=function.slope,
        low=tuple(function.low * worth for worth in units),
        high=tuple(function.high * worth for worth in units),
        units=tuple(worth / unit if unit else 1.0 for worth in units),
        digits=_digits(code.levels, scale=scale, signed=code.signed, start=start),
        gain=gain,
    )
