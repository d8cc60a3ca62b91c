"""How the page writes numbers. Rounding never shows a perfect score that is not perfect, and a dash marks absence."""

from __future__ import annotations

import math
from typing import TypeGuard

__all__ = ["count", "fixed", "known", "loss_words", "microjoules", "percent", "ratio"]

ABSENT = "–"


def known(value: float | None) -> TypeGuard[float]:
    """Whether there is a number. NaN is not one.

    Example:
        >>> known(0.0), known(None), known(float("nan"))
        (True, False, False)
    """
    return value is not None and value == value


def fixed(value: float | None, digits: int = 2) -> str:
    """Return a number with so many decimals, or with more if it would otherwise read as zero.

    Example:
        >>> fixed(3.14159), fixed(0.00012), fixed(-0.5), fixed(None)
        ('3.14', '0.00012', '−0.50', '–')
    """
    if not known(value):
        return ABSENT
    text = f"{value:,.{digits}f}"
    if value and not text.strip("-0.,"):
        text = f"{value:.2g}"
    return text.replace("-", "−")


def percent(value: float | None) -> str:
    """Return a share in percent, as 100 % only if it is exactly 1.

    Example:
        >>> percent(1), percent(0.98611), percent(0.99999), percent(0.5)
        ('100 %', '98.61 %', '> 99.99 %', '50.00 %')
    """
    if not known(value):
        return ABSENT
    if value == 1:
        return "100 %"
    if 0.99995 <= value < 1:
        return "> 99.99 %"
    return f"{fixed(100 * value)} %"


def count(value: float | None) -> str:
    """Return a count with thousands separators, from millions on in millions or billions.

    Example:
        >>> count(360), count(16384), count(9.9e6), count(2.5e9)
        ('360', '16,384', '9.90 M', '2.50 G')
    """
    if not known(value):
        return ABSENT
    for unit, name in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= unit:
            return f"{value / unit:.2f} {name}"
    return f"{value:,.0f}"


def microjoules(value: float | None) -> str:
    """Return an energy with two decimals, or with more if three digits would otherwise be lost.

    Example:
        >>> microjoules(62.4), microjoules(0.0341), microjoules(0.9997), microjoules(None)
        ('62.40', '0.0341', '1.00', '–')
    """
    rounded = abs(float(f"{value:.2e}")) if known(value) else 0.0
    return fixed(value, max(2, 2 - math.floor(math.log10(rounded))) if 0 < rounded < math.inf else 2)


def ratio(value: float | None, whole: float | None) -> str:
    """Return a value as a multiple of the whole.

    Example:
        >>> ratio(3.2, 5.6), ratio(1.0, 0)
        ('0.57 ×', '–')
    """
    return ABSENT if not known(value) or not known(whole) or not whole else f"{fixed(value / whole)} ×"


def loss_words(loss_pp: float | None) -> str:
    """Return the change of accuracy, in words. Empty without labels.

    Example:
        >>> loss_words(0.0), loss_words(-0.28), loss_words(None)
        ('loses 0.00 pp', 'gains 0.28 pp', '')
    """
    if not known(loss_pp):
        return ""
    return f"{'gains' if loss_pp < 0 else 'loses'} {fixed(abs(loss_pp))} pp"
