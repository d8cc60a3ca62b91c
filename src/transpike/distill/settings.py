"""What a method may be told: its settings by name, of which type, in which range."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Literal, get_args, get_origin, get_type_hints

from transpike.errors import ConfigError

__all__ = ["check_kinds", "check_settings", "check_weights", "check_whole"]

WORDS: dict[object, str] = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "a word",
    NoneType: "null",
}


def check_settings(*, temperature: float, **weights: float) -> None:
    """Refuse a temperature that is not above 0 and weights below 0.

    Raises:
        ConfigError: for either, and for what is not finite.

    >>> check_settings(temperature=0, alpha=1.0)
    Traceback (most recent call last):
    ...
    transpike.errors.ConfigError: temperature=0: expected above 0, and finite.
    """
    if not 0 < temperature < math.inf:
        raise ConfigError(f"temperature={temperature}: expected above 0, and finite.")
    check_weights(**weights)


def check_weights(**weights: float) -> None:
    """Refuse weights below 0.

    Raises:
        ConfigError: for one, and for what is not finite.
    """
    for name, weight in weights.items():
        if not 0 <= weight < math.inf:
            raise ConfigError(f"{name}={weight}: a weight is 0 or more, and finite.")


def check_whole(least: int, **numbers: object) -> None:
    """Refuse what is no whole number, or less than that.

    Raises:
        ConfigError: naming the first.

    >>> check_whole(1, width=0)
    Traceback (most recent call last):
    ...
    transpike.errors.ConfigError: width=0: expected a whole number, 1 or more.
    """
    for name, number in numbers.items():
        if type(number) is not int or number < least:
            raise ConfigError(f"{name}={number!r}: expected a whole number, {least} or more.")


def check_kinds(name: str, make: Callable[..., object], settings: Mapping[str, object]) -> None:
    """Refuse settings that a method does not have, or of another type than it takes.

    Args:
        name: of the method.
        make: its class, whose arguments after the first are the settings.
        settings: by name.

    Raises:
        ConfigError: naming the setting and what is known or expected.

    >>> def make(stages, *, width: int = 8, sigma: float | None = None): ...
    >>> check_kinds("mine", make, {"width": 4, "sigma": 1})
    >>> check_kinds("mine", make, {"width": "4"})
    Traceback (most recent call last):
    ...
    transpike.errors.ConfigError: method 'mine': width='4': expected a whole number.
    >>> check_kinds("mine", make, {"widht": 4})
    Traceback (most recent call last):
    ...
    transpike.errors.ConfigError: method 'mine' has no setting 'widht'. Did you mean width? It has: width, sigma.
    """
    kinds = get_type_hints(make.__init__ if inspect.isclass(make) else make)
    known = list(inspect.signature(make).parameters)[1:]
    for setting, value in settings.items():
        if setting not in known:
            near = difflib.get_close_matches(setting, known, n=2)
            guess = f" Did you mean {' or '.join(near)}?" if near else ""
            raise ConfigError(f"method {name!r} has no setting {setting!r}.{guess} It has: {', '.join(known)}.")
        kind = kinds[setting]
        wanted = get_args(kind) if get_origin(kind) is not Literal and get_args(kind) else (kind,)
        if not any(_fits(value, one) for one in wanted):
            raise ConfigError(f"method {name!r}: {setting}={value!r}: expected {' or '.join(map(_told, wanted))}.")


def _fits(value: object, kind: object) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(kind, type):
        return type(value) is kind
    return callable(value)


def _told(kind: object) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    return WORDS.get(kind, "a function")
