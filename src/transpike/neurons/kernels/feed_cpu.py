"""What becomes of currents within the CPU kernels of the tracking neuron: see ``track_reference.Feed``."""

from __future__ import annotations

from typing import Any

import numpy as np

from transpike.neurons.kernels.threads import compiled
from transpike.neurons.kernels.track_reference import Feed

__all__ = ["NOTHING", "arguments", "fed", "spread_pattern"]

NOTHING = np.empty((1, 0), np.float32)
_NO_FEED = (NOTHING, NOTHING[0], (NOTHING[0],) * 3, (1, 1, 1))


def arguments(feed: Feed, rows: int) -> tuple[Any, ...]:
    """A second current, the shares of each row (none where nothing is fed), the patterns, and how each is spread."""
    patterns = (feed.scale, feed.shift, feed.factor)
    if not any(patterns):
        return _NO_FEED
    values = tuple(NOTHING[0] if p is None else p.values.numpy() for p in patterns)
    other = NOTHING if feed.other is None else feed.other.numpy()
    shares = np.array(feed.shares or (0.0,) * rows, np.float32)
    return other, shares, values, tuple(p.inner if p else 1 for p in patterns)


@compiled
def spread_pattern(values, inner, out, start):  # type: ignore[no-untyped-def]
    """Write a pattern's values of the neurons from ``start`` on."""
    channels = len(values)
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


@compiled
def fed(row, other, scale, shift, factor, share, out):  # type: ignore[no-untyped-def]
    """One row of currents as `Feed` says; what is absent has no elements."""
    n = len(row)
    if len(scale) > 0:
        for j in range(n):
            out[j] = row[j] * scale[j]
    else:
        for j in range(n):
            out[j] = row[j]
    if len(shift) > 0:
        for j in range(n):
            out[j] = out[j] + shift[j] * share
    if len(other) > 0:
        for j in range(n):
            out[j] = out[j] + other[j] * factor[j]
