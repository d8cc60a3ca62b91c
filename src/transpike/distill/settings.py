"""Checks of the settings that methods share."""

from __future__ import annotations

from transpike.checks import number

__all__ = ["check_settings", "check_weights"]


def check_settings(*, temperature: float, **weights: float) -> None:
    """Raise an error for a temperature that is not above 0, or weights below 0.

    Raises:
        ConfigError: Either is the case, or a value is not finite.

    Example:
        >>> check_settings(temperature=0, alpha=1.0)
        Traceback (most recent call last):
        ...
        transpike.errors.ConfigError: temperature=0: expected a number above 0.
    """
    number("temperature", temperature, above=0)
    check_weights(**weights)


def check_weights(**weights: float) -> None:
    """Raise an error for weights below 0.

    Raises:
        ConfigError: A weight is below 0 or not finite.
    """
    for name, weight in weights.items():
        number(name, weight, least=0)
