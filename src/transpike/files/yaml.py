"""Reads YAML of unknown origin within limits, because text that refers to itself can expand without bound."""

from __future__ import annotations

from typing import Any

import yaml
from jsonargparse import get_loader

__all__ = ["LARGEST", "first_line", "load_yaml"]

LARGEST, NODES, DEEPEST = 2**20, 100_000, 60
"""Limits of YAML: bytes; values, where each reference counts again; depth of nested lists and mappings."""

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_yaml(text: str) -> Any:
    """Read YAML, within the limits of size, depth and number of values.

    Raises:
        yaml.YAMLError: The text is not YAML, or exceeds the limits.

    Example:
        >>> load_yaml("steps: [4, 8]")
        {'steps': [4, 8]}
        >>> load_yaml("a: &a [x, x]\\n" + "\\n".join(f"{b}: &{b} [*{a}, *{a}]" for a, b in zip("abcdefghijklmnopq",
        ...     "bcdefghijklmnopqr")))
        Traceback (most recent call last):
        ...
        yaml.error.YAMLError: holds more than 100,000 values, with those that it refers to.
    """
    if len(text) > LARGEST:
        raise yaml.YAMLError(f"longer than {LARGEST:,} characters.")
    total, sizes, opened = 0, dict[str, int](), list[tuple[str | None, int]]()
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in (anchor for anchor, _ in opened):
                raise yaml.YAMLError(f"*{event.anchor} refers to a value that contains it.")
            total += sizes.get(str(event.anchor), 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, total))
            total += 1
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor:
                sizes[anchor] = total - before
        if total > NODES:
            raise yaml.YAMLError(f"holds more than {NODES:,} values, with those that it refers to.")
        if len(opened) > DEEPEST:
            raise yaml.YAMLError(f"nested deeper than {DEEPEST}.")
    try:
        return get_loader("yaml")(text)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        # A number has more digits than Python reads, or a value does not fit its tag.
        raise yaml.YAMLError(f"a value cannot be read ({error}).") from error


def first_line(error: yaml.YAMLError) -> str:
    """Return what is wrong with YAML, in one line."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    return f"line {mark.line + 1}: {getattr(error, 'problem', None) or 'not YAML'}."
