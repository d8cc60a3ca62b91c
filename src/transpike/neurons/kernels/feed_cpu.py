"""Operations on currents inside the CPU kernels of the tracking neuron: ``track_reference.Feed`` and ``Clip``."""

from __future__ import annotations

from typing import Any

import numpy as np

from transpike.neurons.kernels.threads import compiled
from transpike.neurons.kernels.track_reference import Clip, Feed

__all__ = ["NOTHING", "arguments", "clipped", "spread_pattern"]

NOTHING = np.empty((1, 0), np.float32)
_ONE, _ZERO, _BOUNDS = np.ones(1, np.float32), np.zeros(1, np.float32), np.zeros(3, np.float32)
_PLAIN = (NOTHING, NOTHING[0], (_ONE, _ZERO, _ONE), (1, 1, 1))


def arguments(feed: Feed, rows: int) -> tuple[Any, ...]:
    """Return a second current, the shares of each row, the patterns, and how each is spread.

    Without a feed there are no shares. A missing pattern changes nothing.
    """
    patterns = (feed.scale, feed.shift, feed.factor)
    if not any(patterns):
        return _PLAIN
    values = tuple(without if p is None else p.values.numpy() for p, without in zip(patterns, _PLAIN[2], strict=True))
    other = NOTHING if feed.other is None else feed.other.numpy()
    shares = np.array(feed.shares or (0.0,) * rows, np.float32)
    return other, shares, values, tuple(p.inner if p else 1 for p in patterns)


def clipped(clip: Clip | None) -> tuple[Any, ...]:
    """Return each row's worths, slope and bounds, and the pattern of divisors. Without a clip, worths are empty."""
    if clip is None:
        return NOTHING[0], _BOUNDS, _ONE, 1
    worths, bounds = (np.array(x, np.float32) for x in (clip.worths, (clip.slope, clip.low, clip.high)))
    return worths, bounds, clip.relative.values.numpy(), clip.relative.inner


@compiled
def spread_pattern(values, inner, out, start):  # type: ignore[no-untyped-def]
    """Write a pattern's values for the neurons from ``start`` on."""
    channels = len(values)
    if channels == 1:
        out[:] = values[0]
        return
    at = start // inner
    left, channel = (at + 1) * inner - start, at % channels
    j = 0
    while j < len(out):
        if inner == 1:
            n = min(channels - channel, len(out) - j)
            for k in range(n):
                out[j + k] = values[channel + k]
            channel = 0
        else:
            n = min(left, len(out) - j)
            value = values[channel]
            for k in range(n):
                out[j + k] = value
            channel, left = (channel + 1) % channels, inner
        j += n
