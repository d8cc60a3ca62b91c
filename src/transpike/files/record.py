"""A JSON object from a stranger, field by field, each of the type that is expected."""

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
    """A JSON object and where it stands. Each method reads a field as one type.

    A field that is missing, of another type or out of its range raises an error that names file, field, what was
    found and what was expected. Null stands for a missing value: see `has`.

    Args:
        content: what should be an object.
        where: the file, for the messages.
        trail: where in the file the object stands, such as "rows[2]".
        remedy: a sentence that says what to do, put at the end of a message.
        error: what to raise.

    Raises:
        DataError: if it is no object; or `error`.

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
            found = f"{trail}={checks.shown(content)}: expected an object." if trail else "expected an object."
            raise self.wrong(found)
        self.content = content

    @classmethod
    def read(cls, path: Path, *, remedy: str = "", error: type[TranspikeError] = DataError) -> Record:
        """The object that a JSON file holds.

        Raises:
            DataError: as `read_json`, or if it holds no object; or `error`.
        """
        return cls(read_json(path, remedy=remedy, error=error), path, remedy=remedy, error=error)

    def has(self, field: str) -> bool:
        """Whether there is a value, which null is not."""
        return self.content.get(field) is not None

    def text(self, field: str, *, choices: tuple[str, ...] = ()) -> str:
        """Text; with ``choices``, one of these."""
        value = self._value(field)
        if choices:
            return checks.choice(self._name(field), value, choices, error=self._error)
        return self._typed(field, value, str, "text")

    def whole(self, field: str, *, least: int | None = None, most: int | None = None) -> int:
        """A whole number."""
        return checks.whole(self._name(field), self._value(field), least=least, most=most, error=self._error)

    def number(self, field: str, *, least: float | None = None, most: float | None = None) -> float:
        """A finite number."""
        return checks.number(self._name(field), self._value(field), least=least, most=most, error=self._error)

    def flag(self, field: str) -> bool:
        """True or false."""
        return self._typed(field, self._value(field), bool, "true or false")

    def values(self, field: str) -> list[JSON]:
        """A list of anything."""
        return self._typed(field, self._value(field), list, "a list")

    def texts(self, field: str) -> list[str]:
        """A list of texts."""
        return self._each(field, lambda name, value: self._typed(name, value, str, "text"))

    def wholes(self, field: str, *, least: int | None = None) -> list[int]:
        """A list of whole numbers."""
        return self._each(
            field, lambda name, value: checks.whole(self._name(name), value, least=least, error=self._error)
        )

    def numbers(self, field: str) -> list[float]:
        """A list of finite numbers."""
        return self._each(field, lambda name, value: checks.number(self._name(name), value, error=self._error))

    def record(self, field: str) -> Record:
        """An object."""
        return self._record(field, self._value(field))

    def records(self, field: str) -> list[Record]:
        """A list of objects."""
        return self._each(field, self._record)

    def only(self, *fields: str) -> None:
        """Refuse fields that are none of these.

        Raises:
            DataError: naming the first, and what comes nearest to it.
        """
        for field in self.content:
            if field not in fields:
                raise self.wrong(f"{self._inside(field)} is unknown.{checks.near(field, fields)}")

    def wrong(self, problem: str) -> TranspikeError:
        """The error for something else that is wrong, to raise: with the file before it and the remedy behind."""
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
