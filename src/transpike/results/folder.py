"""The files of a run's folder: results.json and run.json."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path

from transpike.errors import DataError
from transpike.results.analysis import Analysis
from transpike.results.conversion import Conversion
from transpike.results.records import Mistake, from_json, to_json
from transpike.results.run import Run
from transpike.results.training import Evaluation, Training

__all__ = ["VERSION", "Finished", "Result", "as_json", "read", "read_result", "read_run", "result_from_json"]

VERSION = 2
"""Of both files. A reader takes no other."""

Result = Conversion | Training | Evaluation | Analysis
KINDS: dict[str, type[Result]] = {
    "analysis": Analysis,
    "conversion": Conversion,
    "evaluation": Evaluation,
    "training": Training,
}
AGAIN = "Run the experiment again."


@dataclass(frozen=True)
class Finished:
    """A run that has ended.

    Attributes:
        result: what it found.
        run: how it was started; None where there is no run.json.
        folder: where it lies; empty for a result without a folder.
    """

    result: Result
    run: Run | None = None
    folder: str = ""


def read(folder: Path) -> Finished:
    """The results of a run's folder, and how it was started.

    Raises:
        DataError: see `read_result` and `read_run`.
    """
    return Finished(read_result(folder), read_run(folder), str(folder))


def read_result(folder: Path) -> Result:
    """What a run's folder says in results.json.

    Raises:
        DataError: there is none, or it is damaged, of another version, or has a field that is unknown, missing or of
            the wrong type.
    """
    path = Path(folder) / "results.json"
    if not path.is_file():
        raise DataError(
            f"{folder}: no results.json here. Give the folder of a run: of `transpike train`, `convert`, `analyze`, ..."
        )
    return result_from_json(_read_object(path), where=str(path))


def read_run(folder: Path) -> Run | None:
    """How a run was started, from its folder's run.json; None where there is none.

    Raises:
        DataError: it is damaged, of another version, or has a field that is unknown, missing or of the wrong type.
    """
    path = Path(folder) / "run.json"
    if not path.is_file():
        return None
    found = _read_object(path)
    _check_version(found.pop("version", None), str(path))
    return _record(Run, found, str(path))
