"""Reads a JSON object of unknown origin field by field, each with its expected type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from transpike import checks
from transpike.errors import DataError, TranspikeError
from transpike.files.json import JSON, read_json

__all__ = ["Record"]

T = TypeVar("T")


class Record:
    """A JSON object and its place in a file. Each method reads a field as one type.

    A field that is missing, of another type or out of its range raises an error. The error names file, field, the found
    value and the expected one. Null stands for a missing value: see `has`.

    Args:
        content: the value, which should be an object.
        where: the file, for the messages.
        trail: the object's place in the file, such as "rows[2]".
        remedy: a sentence with what to do, for the end of a message.
        error: the class of errors to raise.

    Raises:
        DataError: It is not an object. Or `error`.

    Example:
        >>> row = Record({"steps": 8, "loss": None, "levels": [1, 2]}, "results.json", trail="rows[0]")
        >>> row.whole("steps"), row.has("loss"), row.wholes("levels")
        (8, False, [1, 2])
        >>> row.text("steps")
        Traceback (most recent call last):
        ...
        transpike.errors.DataError: results.json: rows[0].steps=8: expected text.
        >>> row.number("accuracy")
        Traceback (most recent call last):
        ...
        transpike.errors.DataError: results.json: rows[0].accuracy is missing.
    """

    def __init__(
        self,
        content: JSON,
        where: Path | str,
        *,
        trail: str = "",
        remedy: str = "",
        error: type[TranspikeError] = DataError,
    ) -> None:
        self.where, self.trail, self.remedy, self.error = where, trail, remedy, error
        if not isinstance(content, dict):
            problem = f"{trail}={checks.shown(content)}: expected an object." if trail else "expected an object."
            raise self.wrong(problem)
        self.content = content

    @classmethod
    def read(cls, path: Path, *, remedy: str = "", error: type[TranspikeError] = DataError) -> Record:
        """Read the object in a JSON file.

        Raises:
            DataError: As for `read_json`; or the file has no object. Or `error`.
        """
        return cls(read_json(path, remedy=remedy, error=error), path, remedy=remedy, error=error)

    def has(self, field: str) -> bool:
        """Whether the field has a value. Null is no value."""
        return self.content.get(field) is not None

    def text(self, field: str, *, choices: tuple[str, ...] = ()) -> str:
        """Return a text; with ``choices``, one of these."""
        value = self._value(field)
        if choices:
            return checks.choice(self._name(field), value, choices, error=self._error)
        return self._typed(field, value, str, "text")

    def whole(self, field: str, *, least: int | None = None, most: int | None = None) -> int:
        """Return a whole number."""
        return checks.whole(self._name(field), self._value(field), least=least, most=most, error=self._error)

    def number(self, field: str, *, least: float | None = None, most: float | None = None) -> float:
        """Return a finite number."""
        return checks.number(self._name(field), self._value(field), least=least, most=most, error=self._error)

    def flag(self, field: str) -> bool:
        """Return true or false."""
        return self._typed(field, self._value(field), bool, "true or false")

    def values(self, field: str) -> list[JSON]:
        """Return a list of any values."""
        return self._typed(field, self._value(field), list, "a list")

    def texts(self, field: str) -> list[str]:
        """Return a list of texts."""
        return self._each(field, lambda name, value: self._typed(name, value, str, "text"))

    def wholes(self, field: str, *, least: int | None = None) -> list[int]:
        """Return a list of whole numbers."""
        return self._each(
            field, lambda name, value: checks.whole(self._name(name), value, least=least, error=self._error)
        )

    def numbers(self, field: str) -> list[float]:
        """Return a list of finite numbers."""
        return self._each(field, lambda name, value: checks.number(self._name(name), value, error=self._error))

    def record(self, field: str) -> Record:
        """Return an object."""
        return self._record(field, self._value(field))

    def records(self, field: str) -> list[Record]:
        """Return a list of objects."""
        return self._each(field, self._record)

    def only(self, *fields: str) -> None:
        """Raise an error if there are other fields than these.

        Raises:
            DataError: The message names the first of them, and the nearest known name.
        """
        for field in self.content:
            if field not in fields:
                raise self.wrong(f"{self._inside(field)} is unknown.{checks.near(field, fields)}")

    def wrong(self, problem: str) -> TranspikeError:
        """Return the error for another problem, with the file before and the remedy after it. The caller raises it."""
        return self.error(f"{self.where}: {problem} {self.remedy}".rstrip())

    def _value(self, field: str) -> JSON:
        if field not in self.content:
            raise self.wrong(f"{self._inside(field)} is missing.")
        return self.content[field]

    def _typed(self, field: str, value: JSON, kind: type[T], expected: str) -> T:
        if not isinstance(value, kind):
            raise checks.refuse(self._name(field), value, expected, error=self._error)
        return value

    def _each(self, field: str, take: Callable[[str, JSON], T]) -> list[T]:
        return [take(f"{field}[{index}]", value) for index, value in enumerate(self.values(field))]

    def _record(self, field: str, value: JSON) -> Record:
        return Record(value, self.where, trail=self._inside(field), remedy=self.remedy, error=self.error)

    def _inside(self, field: str) -> str:
        return f"{self.trail}.{field}".removeprefix(".")

    def _name(self, field: str) -> str:
        return f"{self.where}: {self._inside(field)}"

    def _error(self, message: str) -> TranspikeError:
        return self.error(f"{message} {self.remedy}".rstrip())
