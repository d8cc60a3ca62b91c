"""The files of a run's folder: results.json and run.json."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transpike import checks, files
from transpike.errors import DataError
from transpike.results.analysis import Analysis
from transpike.results.conversion import Conversion
from transpike.results.records import Mistake, Record, from_json, to_json
from transpike.results.run import Run
from transpike.results.study import Findings
from transpike.results.training import Evaluation, Training

__all__ = ["VERSION", "Finished", "Result", "as_json", "read", "read_result", "read_run", "write"]

VERSION = 2
"""The version of both files. A reader accepts no other."""

Result = Conversion | Training | Evaluation | Analysis | Findings
KINDS: dict[str, type[Result]] = {
    "analysis": Analysis,
    "conversion": Conversion,
    "evaluation": Evaluation,
    "study": Findings,
    "training": Training,
}
RESULTS = files.json_kind("results of transpike", kind=str, version=int)
RUN = files.json_kind("the record of a run of transpike", verb=str, version=int)
AGAIN = "Run the experiment again."


@dataclass(frozen=True)
class Finished:
    """A run that has ended.

    Attributes:
        result: its results.
        run: how it was started. None if there is no run.json.
        folder: its folder. Empty for a result without a folder.
    """

    result: Result
    run: Run | None = None
    folder: str = ""


def read(folder: Path | str) -> Finished:
    """Read the results of a run's folder, and how it was started.

    Raises:
        DataError: As for `read_result` and `read_run`.
    """
    return Finished(read_result(folder), read_run(folder), str(folder))


def read_result(folder: Path | str) -> Result:
    """Read results.json of a run's folder.

    Raises:
        DataError: There is none, or it is damaged, of another version, or has a field that is unknown, missing or of
            the wrong type. The message names file and field.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tested = Evaluation(model="mlp", dataset="digits", images=360, accuracy=0.75, loss=0.5)
        ...     path = write(Path(folder) / "results.json", tested)
        ...     read_result(folder) == tested
        True
    """
    path = Path(folder) / "results.json"
    if not os.path.isfile(path):
        raise DataError(
            f"{folder}: no results.json here. Give the folder of a run: of `transpike train`, `convert`, `analyze`, ..."
        )
    content = _read_object(path)
    kind = content.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        names = [repr(name) for name in KINDS]
        raise checks.refuse(f"{path}: kind", kind, checks.listed(names), error=DataError, guess=f" {AGAIN}")
    return _read_record(KINDS[kind], content, path)


def read_run(folder: Path | str) -> Run | None:
    """Read how a run was started from its folder's run.json. None if there is none.

    Raises:
        DataError: As for `read_result`.
    """
    path = Path(folder) / "run.json"
    return _read_record(Run, _read_object(path), path) if os.path.isfile(path) else None


def write(path: Path | str, record: Result | Run) -> Path:
    """Write results, or how a run was started, as JSON, completely or not at all, and only over the same kind of file.

    Raises:
        ConfigError: The file cannot be written, or the existing file is of another kind.
    """
    return files.write_json(path, as_json(record), kind=RUN if isinstance(record, Run) else RESULTS)


def as_json(record: Result | Run) -> dict[str, Any]:
    """Return what `write` writes."""
    kind = {} if isinstance(record, Run) else {"kind": next(name for name in KINDS if KINDS[name] is type(record))}
    return {**kind, "version": VERSION, **to_json(record)}


def _read_object(path: Path) -> dict[str, Any]:
    found = files.read_json(path, remedy=AGAIN)
    if not isinstance(found, dict):
        raise DataError(f"{path}: damaged: expected an object, found {checks.shown(found)}. {AGAIN}")
    return found


def _read_record(kind: type[Record], found: dict[str, Any], path: Path) -> Record:
    version = found.pop("version", None)
    if version != VERSION:
        newer = isinstance(version, int | float) and version > VERSION
        remedy = "Update transpike." if newer else AGAIN
        age = "a newer" if newer else "an older"
        raise DataError(f"{path}: written in {age} format, version {checks.shown(version)}, not {VERSION}. {remedy}")
    try:
        return from_json(kind, found)
    except Mistake as mistake:
        raise DataError(f"{path}: {mistake} {AGAIN}") from mistake
