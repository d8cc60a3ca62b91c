"""When an image stops, in NumPy: the stop rule of a saved network, as docs/format.md explains it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from transpike import files
from transpike.checks import number
from transpike.errors import ConfigError

__all__ = ["Stop"]


def _margin(now: Any, before: Any, left: Any) -> Any:
    second, first = np.partition(now, -2)[-2:]
    return first - second


def _bound(now: Any, before: Any, left: Any) -> Any:
    return _margin(now, before, left) / left if left else np.float32(np.inf)


def _entropy(now: Any, before: Any, left: Any) -> Any:
    logs = now - now.max()
    logs = logs - np.log(np.exp(logs).sum())
    return (np.exp(logs) * logs).sum()


def _steady(now: Any, before: Any, left: Any) -> Any:
    return np.float32(-np.inf) if before is None else -np.abs(now - before).max()


_SCORES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "bound": _bound,
    "margin": _margin,
    "entropy": _entropy,
    "steady": _steady,
}


@dataclass(frozen=True)
class Stop:
    """When an image stops, for any agreement.

    Attributes:
        score: how sure an answer is: the name of a score.
        first: the first step of the output at which an image may stop.
        images: the number of calibration images of the rule.
        losses: (threshold, loss) from the largest threshold down.
    """

    score: str
    first: int
    images: int
    losses: tuple[tuple[float, float], ...]

    @classmethod
    def read(cls, entry: files.Record, steps: int) -> Stop:
        """Read the rule from a network's file, for a network with so many steps."""
        first, images = entry.whole("first", least=1, most=steps), entry.whole("images", least=1)
        losses = tuple(zip(entry.numbers("thresholds"), entry.numbers("losses"), strict=True))
        return cls(entry.text("score", choices=tuple(_SCORES)), first, images, losses)

    def threshold(self, agreement: float) -> float:
        """Return the value that a score must exceed.

        Raises:
            ConfigError: The rule has too few images for this agreement.

        Example:
            >>> Stop("margin", 1, 199, ((4.0, 1.0), (2.5, 1.0), (1.0, 1.0))).threshold(0.99)
            2.5
        """
        share = 1 - number("agreement", agreement, above=0, below=1)
        may_lose = share * (self.images + 1) - 1 + 1e-6
        if may_lose < 0:
            most = self.images / (self.images + 1)
            raise ConfigError(
                f"agreement={agreement}: the rule comes from {self.images} images, enough for {most:.6g}; calibrate "
                "on more images, or use a lower agreement"
            )
        lost = 0.0
        for threshold, loss in self.losses:
            lost += loss
            if lost > may_lose:
                return threshold
        return -math.inf

    def sure(self, now: Any, before: Any, left: float) -> float:
        """Return how sure an answer is, from float32 outputs now and a step earlier; -inf if it is not a number."""
        score = float(_SCORES[self.score](now, before, np.float32(left)))
        return -math.inf if math.isnan(score) else score
