"""Computes which frequencies a `DCTEncoder` shows, and when."""

from __future__ import annotations

from collections.abc import Sequence

from transpike.checks import is_whole, refuse, whole
from transpike.errors import ConfigError

__all__ = ["INTERMITTENT", "period"]

INTERMITTENT = (0, 2, 5, 7, 9, 10, 12, 15)
"""The eight of sixteen frequencies in DCT-SNN's supplement, Section 6."""


def period(order: str | Sequence[int], frequencies: int | Sequence[int] | None, *, block: int) -> tuple[int, ...]:
    """Return the zigzag ranks of one period of a `DCTEncoder`.

    Raises:
        ConfigError: The order is unknown, or a rank does not exist.

    Example:
        >>> period("cyclic", 3, block=4), period([0, 1, 0], None, block=4)
        ((0, 1, 2), (0, 1, 0))
    """
    if isinstance(order, str):
        return _chosen(order, frequencies, block)
    if frequencies is not None:
        raise ConfigError("order as a sequence already chooses the frequencies: omit frequencies.")
    return _ranks("order", order, block * block)


def _chosen(order: str, frequencies: int | Sequence[int] | None, block: int) -> tuple[int, ...]:
    """Return the ranks that a named order shows, each once."""
    total = block * block
    if order not in ("cyclic", "interleaved", "intermittent"):
        raise ConfigError(
            f'order={order!r}: expected "cyclic", "interleaved", "intermittent", or a sequence of zigzag ranks, one '
            "for each step."
        )
    if order == "intermittent" and frequencies is None:
        if block != 4:
            raise ConfigError(
                f'order="intermittent" with block={block}: set frequencies (the paper gives them for block 4 only).'
            )
        return INTERMITTENT
    if frequencies is None:
        return tuple(range(total))
    if not isinstance(frequencies, Sequence):
        return tuple(range(whole("frequencies", frequencies, most=total)))
    ranks = _ranks("frequencies", frequencies, total)
    if len(set(ranks)) < len(ranks):
        raise ConfigError(f"frequencies={ranks}: a rank occurs twice. Give each once; order= sets when it is shown.")
    return ranks


def _ranks(name: str, value: object, total: int) -> tuple[int, ...]:
    ranks = value if isinstance(value, Sequence) else ()
    if not ranks or not all(is_whole(rank) and 0 <= rank < total for rank in ranks):
        raise refuse(name, value, f"one or more zigzag ranks, 0 to {total - 1}")
    return tuple(int(rank) for rank in ranks)
