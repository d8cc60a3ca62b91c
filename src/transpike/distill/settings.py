"""Ranges of the settings that methods share."""

from __future__ import annotations

from transpike.checks import number

__all__ = ["check_settings", "check_weights"]


def check_settings(*, temperature: float, **weights: float) -> None:
    """Refuse a temperature that is not above 0 and weights below 0.

    Raises:
        ConfigError: for either, and for what is not finite.

    >>> check_settings(temperature=0, alpha=1.0)
    Traceback (most recent call last):
    ...
    transpike.errors.ConfigError: temperature=0: expected a number above 0.
    """
    number("temperature", temperature, above=0)
    check_weights(**weights)


def check_weights(**weights: float) -> None:
    """Refuse weights below 0.

    Raises:
        ConfigError: for one, and for what is not finite.
    """
    for name, weight in weights.items():
        number(name, weight, least=0)
