"""Finds coding schemes by name, and writes a scheme as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from transpike.checks import choice, keywords
from transpike.coding.burst import Burst
from transpike.coding.css import CSS
from transpike.coding.differential import Differential
from transpike.coding.fs import FS
from transpike.coding.multithreshold import MultiThreshold
from transpike.coding.phase import Phase
from transpike.coding.qcfs import QCFS
from transpike.coding.quantised import Quantised
from transpike.coding.rate import Rate
from transpike.coding.scheme import Scheme
from transpike.coding.tsc import TSC
from transpike.coding.ttfs import TTFS
from transpike.errors import ConfigError

__all__ = ["DEFAULT", "SCHEMES", "create_scheme", "scheme_settings"]

SCHEMES: dict[str, Callable[..., Scheme]] = {
    "css": CSS,
    "rate": Rate,
    "fs": FS,
    "qcfs": QCFS,
    "tsc": TSC,
    "ttfs": TTFS,
    "burst": Burst,
    "differential": Differential,
    "multithreshold": MultiThreshold,
    "phase": Phase,
    "quantised": Quantised,
}
"""The classes of coding schemes, by name. Their fields are their settings."""

DEFAULT: Scheme = CSS()


def create_scheme(name: str, settings: Mapping[str, object]) -> Scheme:
    """Create a scheme of `SCHEMES` by name.

    Args:
        name: a key of `SCHEMES`.
        settings: fields of the scheme, such as ``steps`` and ``beta``. Lists stand for tuples.

    Raises:
        ConfigError: The name or a setting is unknown (the message names near matches), or a setting has the wrong type
            or is out of range.

    Example:
        >>> create_scheme("css", {"steps": 4, "levels": [1, 2]}) == CSS(steps=4, levels=(1, 2))
        True
        >>> create_scheme("css", {"betta": 2})
        Traceback (most recent call last):
        ...
        transpike.errors.ConfigError: scheme 'css' has no setting 'betta'. Did you mean beta? It has: steps, ...
    """
    make = SCHEMES[choice("scheme", name, SCHEMES)]
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    keywords(f"scheme {name!r}", make, values)
    return make(**values)


def scheme_settings(scheme: Scheme) -> dict[str, object]:
    """Return a scheme's name and all of its fields as plain data, from which `create_scheme` creates it again.

    Raises:
        ConfigError: The scheme has no name.

    Example:
        >>> scheme_settings(Rate(steps=16))
        {'name': 'rate', 'steps': 16, 'start': 0.5, 'percentile': 99.99, 'shift': False, 'correction': None}
    """
    name = next((name for name, kind in SCHEMES.items() if type(scheme) is kind), None)
    if name is None:
        kind = type(scheme).__name__
        raise ConfigError(
            f"scheme: {kind} has no name, and saving or measuring it needs one; give it one, as in "
            f"transpike.coding.SCHEMES[{kind.lower()!r}] = {kind}"
        )
    return {"name": name, **dataclasses.asdict(scheme)}  # type: ignore[call-overload]
