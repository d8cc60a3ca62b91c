"""Settings of encoders, of the right type and within their range."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from transpike.errors import ConfigError

__all__ = ["INTERMITTENT", "number", "period", "whole"]

INTERMITTENT = (0, 2, 5, 7, 9, 10, 12, 15)
"""The eight of sixteen frequencies of DCT-SNN's supplement, Section 6."""


def whole(name: str, value: Any, *, most: int | None = None) -> int:
    """A whole number of at least 1.

    Raises:
        ConfigError: for anything else, naming the setting.

    >>> whole("phases", 8, most=24)
    8
    >>> whole("phases", 2.5, most=24)
    Traceback (most recent call last):
    ...
    transpike.errors.ConfigError: phases=2.5: expected a whole number from 1 to 24.
    """
    if not _is_whole(value) or value < 1 or (most is not None and value > most):
        limits = "of at least 1" if most is None else f"from 1 to {most}"
        raise ConfigError(f"{name}={value!r}: expected a whole number {limits}.")
    return int(value)


def number(name: str, value: Any, *, above: float, most: float = math.inf) -> float:
    """A finite number above a bound and, where there is one, up to another.

    Raises:
        ConfigError: for anything else, naming the setting.

    >>> number("beta", 1.0, above=1)
    Traceback (most recent call last):
    ...
    transpike.errors.ConfigError: beta=1.0: expected a number above 1.
    """
    real = isinstance(value, Real) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or not above < value <= most:
        limits = f"above {above:g}" if most == math.inf else f"in ({above:g}, {most:g}]"
        raise ConfigError(f"{name}={value!r}: expected a number {limits}.")
    return float(value)


def period(order: str | Sequence[int], frequencies: int | Sequence[int] | None, *, block: int) -> tuple[int, ...]:
    """The zigzag ranks of one period of a `DCTEncoder`.

    Raises:
        ConfigError: for an unknown order, and for ranks that are none.

    >>> period("cyclic", 3, block=4), period([0, 1, 0], None, block=4)
    ((0, 1, 2), (0, 1, 0))
    """
    if isinstance(order, str):
        return _chosen(order, frequencies, block)
    if frequencies is not None:
        raise ConfigError("order as a sequence says which frequencies are shown: leave frequencies out.")
    return _ranks("order", order, block * block)


def _chosen(order: str, frequencies: int | Sequence[int] | None, block: int) -> tuple[int, ...]:
    """The ranks that an order by name shows, each once."""
    total = block * block
    if order not in ("cyclic", "interleaved", "intermittent"):
        raise ConfigError(
            f'order={order!r}: "cyclic", "interleaved", "intermittent", or a sequence of zigzag ranks, one a step.'
        )
    if order == "intermittent" and frequencies is None:
        if block != 4:
            raise ConfigError(
                f'order="intermittent" with block={block}: say which frequencies (the paper: of block 4).'
            )
        return INTERMITTENT
    if frequencies is None:
        return tuple(range(total))
    if not isinstance(frequencies, Sequence):
        return tuple(range(whole("frequencies", frequencies, most=total)))
    ranks = _ranks("frequencies", frequencies, total)
    if len(set(ranks)) < len(ranks):
        raise ConfigError(f"frequencies={ranks}: one occurs twice; what is shown when is said by order=.")
    return ranks


def _ranks(name: str, value: object, total: int) -> tuple[int, ...]:
    listed = value if isinstance(value, Sequence) else ()
    if not listed or not all(_is_whole(rank) and 0 <= rank < total for rank in listed):
        raise ConfigError(f"{name}={value!r}: expected one or more zigzag ranks, 0 to {total - 1}.")
    return tuple(int(rank) for rank in listed)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
