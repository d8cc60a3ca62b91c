"""JSON: conversion of values to it, and reading files of unknown origin, within limits."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, TypeAlias

from transpike.errors import DataError, TranspikeError, reason

__all__ = ["JSON", "dumps", "plain", "read_json", "read_text"]

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

LARGEST = 2**25
"""The largest size of a JSON file in bytes."""

DEEPEST = 100
"""The largest depth of nested objects and lists."""

LONGEST = 400
"""The largest number of digits of a number."""


def read_json(
    path: Path, *, remedy: str = "", error: type[TranspikeError] = DataError, nan: bool = False, largest: int = LARGEST
) -> JSON:
    """Read a JSON file of unknown origin.

    Args:
        path: a regular file. Pipes and devices are not allowed.
        remedy: a sentence with what to do, for the end of a message.
        error: the class of errors to raise.
        nan: whether NaN and Infinity are allowed as numbers.
        largest: the largest size in bytes.

    Raises:
        DataError: The file is missing, cannot be read, is not JSON, or exceeds the limits of size, depth and length of
            numbers. Or `error`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "results.json"
        ...     _ = path.write_text('{"steps": 8}')
        ...     read_json(path)
        {'steps': 8}
    """
    text = read_text(path, remedy=remedy, error=error, largest=largest)
    try:
        return _loads(text, nan)
    except RecursionError:
        raise error(f"{path}: damaged: nested deeper than {DEEPEST}. {remedy}".rstrip()) from None
    except ValueError as cause:
        raise error(f"{path}: damaged: {cause}. {remedy}".rstrip()) from cause


def read_text(path: Path, *, remedy: str = "", error: type[TranspikeError] = DataError, largest: int = LARGEST) -> str:
    """Read the text of a file of unknown origin.

    Args:
        path: a regular file in UTF-8. Pipes and devices are not allowed.
        remedy: a sentence with what to do, for the end of a message.
        error: the class of errors to raise.
        largest: the largest size in bytes.

    Raises:
        DataError: The file is missing, cannot be read, is larger, or is not UTF-8. Or `error`.
    """
    try:
        return _read(path, largest).decode("utf-8-sig")
    except OSError as cause:
        raise error(f"{path}: {reason(cause)} {remedy}".rstrip()) from cause
    except UnicodeDecodeError as cause:
        raise error(f"{path}: damaged: not UTF-8 at byte {cause.start}. {remedy}".rstrip()) from cause
    except ValueError as cause:
        raise error(f"{path}: {cause}. {remedy}".rstrip()) from cause


def _read(path: Path, largest: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("a pipe, a device or a folder, not a file")
    with open(descriptor, "rb") as file:
        data = file.read(largest + 1)
    if len(data) > largest:
        raise ValueError(f"larger than {largest / 2**20:g} MiB")
    return data


def _loads(text: str, nan: bool) -> JSON:
    def whole(digits: str) -> int:
        if len(digits) > LONGEST:
            raise ValueError(f"a number of {len(digits)} digits")
        return int(digits)

    def real(digits: str) -> float:
        value = float(digits)
        if math.isinf(value):
            raise ValueError(f"a number that is too large, {digits[:20]}")
        return value

    def constant(name: str) -> float:
        if not nan:
            raise ValueError(f"{name} is not a number in JSON")
        return float(name.replace("Infinity", "inf"))

    result: JSON = json.loads(text, parse_int=whole, parse_float=real, parse_constant=constant)
    # json's own parser goes as deep as Python's stack. Code that reads the result should not have to.
    brackets = re.sub(r"[^][{}]+", "", re.sub(r'"(?:[^"\\]|\\.)*"', "", text))
    if max(itertools.accumulate(1 if each in "[{" else -1 for each in brackets), default=0) > DEEPEST:
        raise RecursionError
    return result


def dumps(data: object) -> str:
    """Return ``data`` as the text of a JSON file; see `plain`."""
    return json.dumps(plain(data), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def plain(value: Any) -> JSON:
    """Return ``value`` in the form of JSON.

    JSON has no infinity and no NaN; both become null. Paths become strings, dataclasses become objects, and anything
    with ``tolist`` (arrays, tensors, NumPy's scalars) becomes a list or number.

    Example:
        >>> plain({"loss": math.inf, "steps": (4, 8)})
        {'loss': None, 'steps': [4, 8]}
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return str(value)
