"""Converts JSON to frozen dataclasses by their type hints, and back. An error is one sentence with the path."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache, partial
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from transpike import checks
from transpike.errors import DataError

__all__ = [
    "AtLeast",
    "Count",
    "Curve",
    "Matrix",
    "Mistake",
    "Steps",
    "check_lengths",
    "check_matrix",
    "check_named",
    "from_json",
    "to_json",
]

Record = TypeVar("Record")
Read = Callable[[object], Any]

LARGEST = 1e100
"""The largest number: more than float32 holds, and less than what overflows when a page multiplies it."""

WHOLE = 2**53
"""The largest whole number: up to it every JSON reader is exact."""


@dataclass(frozen=True)
class AtLeast:
    """The least value of a whole number in a file."""

    least: int


Count = Annotated[int, AtLeast(0)]
Steps = Annotated[int, AtLeast(1)]
Curve = tuple[float, ...]
Matrix = tuple[tuple[float, ...], ...]


class Mistake(DataError):
    """A mistake in a record, and the path to it within the record.

    Args:
        path: such as "curves[2].power".
        problem: the part of the sentence after the path.

    Example:
        >>> str(Mistake("curves[2].power", " is missing.").within("features[1]"))
        'features[1].curves[2].power is missing.'
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path + problem)
        self.path, self.problem = path, problem

    def within(self, place: str) -> Mistake:
        """Return the same mistake for the record that contains this one at ``place``."""
        joint = "." if self.path and not self.path.startswith("[") else ""
        return Mistake(place + joint + self.path, self.problem)


def check_lengths(place: str = "", /, **lists: Sequence[object]) -> None:
    """Raise an error if lists of the record at ``place`` do not have as many entries as the first of them.

    Example:
        >>> check_lengths("images[0]", steps=(1, 2), rebuilt=("a",))
        Traceback (most recent call last):
        ...
        transpike.results.records.Mistake: images[0].rebuilt: expected 2 entries as in steps, found 1.
    """
    (first, expected), *others = lists.items()
    for name, values in others:
        if len(values) != len(expected):
            wrong = Mistake(name, f": expected {len(expected)} entries as in {first}, found {len(values)}.")
            raise wrong.within(place) if place else wrong


def check_matrix(rows: Matrix, path: str) -> None:
    """Raise an error for a matrix whose rows have different lengths, or that is empty."""
    if not rows or not rows[0] or len({len(row) for row in rows}) > 1:
        raise Mistake(path, ": expected rows of one length, none of them empty.")


def check_named(scheme: Mapping[str, object]) -> None:
    """Raise an error for a scheme without a name."""
    if not isinstance(scheme.get("name"), str):
        raise Mistake("scheme.name", str(checks.refuse("", scheme.get("name"), "text")))


def from_json(kind: type[Record], value: object) -> Record:
    """Return a record of the dataclass ``kind`` from the content of a JSON file.

    Fields are read by their type hints: int, float, str, bool, `object` (any JSON), `X | None`, `tuple[X, ...]`,
        `tuple[X, Y]`, `Mapping[str, X]`, `Literal`, dataclasses, and `Annotated[int, AtLeast(n)]`. A field with a
        default may be missing. A float may be null and becomes NaN, because `to_json` writes numbers that are not
        finite as null.

    Raises:
        Mistake: A field is unknown, missing, or of another type than its hint.

    Example:
        >>> @dataclass(frozen=True)
        ... class Row:
        ...     steps: Steps
        ...     error: float = 0.0
        >>> from_json(Row, {"steps": 4})
        Row(steps=4, error=0.0)
        >>> from_json(Row, {"step": 4})
        Traceback (most recent call last):
        ...
        transpike.results.records.Mistake: step is unknown. Did you mean steps?
        >>> from_json(Row, {"steps": "4"})
        Traceback (most recent call last):
        ...
        transpike.results.records.Mistake: steps='4': expected a whole number of at least 1.
    """
    return cast(Record, _record(kind, value))


def to_json(value: object) -> Any:
    """Return a record or one of its values as JSON: see `from_json`. Fields with their default values are left out.

    Paths become strings, dataclasses become objects, tuples become lists, and numbers that are not finite become null.

    Raises:
        TypeError: A value has no JSON form.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): to_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: to_json(getattr(value, one.name)) for one in fields(value) if not _is_default(one, value)}
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _is_default(field: Field[Any], record: object) -> bool:
    default = field.default if field.default_factory is MISSING else field.default_factory()
    return default is not MISSING and bool(getattr(record, field.name) == default)


@cache
def _reader(hint: Any) -> Read:
    """Return the reader of values of this type hint."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in _PLAIN:
        return _PLAIN[hint]
    if origin is Annotated:
        return partial(_at_least, arguments[1].least)
    if origin in (Union, UnionType):
        (kind,) = (one for one in arguments if one is not NoneType)
        return partial(_optional, _reader(kind))
    if origin is Literal:
        return partial(_choice, arguments)
    if origin is tuple and arguments[-1] is Ellipsis:
        return partial(_list, _reader(arguments[0]))
    if origin is tuple:
        return partial(_fixed, tuple(map(_reader, arguments)))
    if origin is Mapping:
        return partial(_mapping, _reader(arguments[1]))
    if is_dataclass(hint):
        return partial(_record, hint)
    raise TypeError(f"no JSON is read as {hint}")


@cache
def _fields(kind: Any) -> dict[str, tuple[Read, bool]]:
    """Return for each field of a dataclass its reader, and whether the field is required."""
    hints = get_type_hints(kind, include_extras=True)
    return {
        field.name: (_reader(hints[field.name]), field.default is MISSING and field.default_factory is MISSING)
        for field in fields(kind)
    }


def _record(kind: Any, value: object) -> Any:
    entries, known = _object(value), _fields(kind)
    for name in entries:
        if name not in known:
            absent = [one for one in known if one not in entries]
            raise Mistake(_name(name), f" is unknown.{checks.near(name, absent)}")
    values = {}
    for name, (read, required) in known.items():
        if name in entries:
            values[name] = _inside(name, read, entries[name])
        elif required:
            raise Mistake(name, " is missing.")
    return kind(**values)


def _inside(place: str, read: Read, value: object) -> Any:
    try:
        return read(value)
    except Mistake as mistake:
        raise mistake.within(place) from None


def _list(read: Read, value: object) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _wrong(value, "a list")
    return tuple([_inside(f"[{place}]", read, item) for place, item in enumerate(value)])


def _fixed(reads: tuple[Read, ...], value: object) -> tuple[Any, ...]:
    if not isinstance(value, list) or len(value) != len(reads):
        raise _wrong(value, f"a list of {len(reads)}")
    return tuple(_inside(f"[{place}]", read, value[place]) for place, read in enumerate(reads))


def _mapping(read: Read, value: object) -> dict[str, Any]:
    return {_text(name): _inside(_name(name), read, item) for name, item in _object(value).items()}


def _name(name: str) -> str:
    """Return a name as a part of a path, in which dots and brackets would mislead."""
    return name if name.isidentifier() else f"[{checks.shown(name)}]"


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _wrong(value, "an object")
    return value


def _optional(read: Read, value: object) -> Any:
    return None if value is None else read(value)


def _choice(known: tuple[str, ...], value: object) -> str:
    try:
        return checks.choice("", value, known)
    except ValueError as error:
        raise Mistake("", str(error)) from None


def _at_least(least: int, value: object) -> int:
    if not checks.is_whole(value) or not least <= value <= WHOLE:
        raise _wrong(value, f"a whole number of at least {least}")
    return value


def _number(value: object) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        raise _wrong(value, "a number")
    return float(value)


def _whole(value: object) -> int:
    if not checks.is_whole(value) or abs(value) > WHOLE:
        raise _wrong(value, "a whole number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _wrong(value, "text")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise Mistake("", ": expected text in Unicode, found half of a character.")
    return value


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong(value, "true or false")
    return value


def _anything(value: object) -> object:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return [_inside(f"[{place}]", _anything, item) for place, item in enumerate(value)]
    return _mapping(_anything, value) if isinstance(value, dict) else value


def _wrong(value: object, expected: str) -> Mistake:
    return Mistake("", str(checks.refuse("", value, expected)))


_PLAIN: dict[Any, Read] = {float: _number, int: _whole, str: _text, bool: _truth, object: _anything}
