"""The folder of a run. It is created with its run.json before anything else, and locked while the run is active."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from types import TracebackType

from transpike import files
from transpike.results.folder import RESULTS, Result, as_json, write
from transpike.results.provenance import provenance
from transpike.results.run import Run

__all__ = ["COPY", "RunFolder", "copy_results", "located", "resumable", "resume_run", "start_run"]

COPY = files.Kind(
    "a copy of results of transpike",
    lambda path: RESULTS.recognises(path) and not os.path.exists(path.parent / "run.json"),
)
"""The kind of file that ``--json`` writes. Beside a run.json lies the run's own file, which no other run replaces."""

BEFORE = ("run.json", "hparams.yaml", "events.out.tfevents")
"""Files of a run before it has results, by the beginnings of their names. The latter two are Lightning's."""

PLACES = ("ann", "balanced", "converted", "model", "root", "student", "teacher", "teacher_weights", "weights")
"""The options that are, or may be, a file or a folder."""


@dataclass(frozen=True)
class RunFolder:
    """A run's folder. As a context manager it removes the files of a run that fails before it has results.

    Attributes:
        folder: the run's folder.
        lock: excludes other runs while this one lives; see `files.claim`.
        made: whether the run created the folder, which is then removed too.

    Example:
        >>> import tempfile
        >>> from transpike.results import Evaluation, read_result
        >>> tested = Evaluation(model="mlp", dataset="digits", images=360, accuracy=0.5, loss=0.75)
        >>> with tempfile.TemporaryDirectory() as place, start_run("demo", {"seed": 0}, out=Path(place) / "run") as run:
        ...     path = run.write(tested)
        ...     read_result(path.parent) == tested
        True
    """

    folder: Path
    lock: int | None = None
    made: bool = False

    def write(self, result: Result) -> Path:
        """Write results.json, completely or not at all, and return its path."""
        return write(self.folder / "results.json", result)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        left = list(self.folder.iterdir()) if kind is not None else []
        if left and all(path.name.startswith(BEFORE) for path in left):
            for path in left:
                path.unlink()
            if self.made:
                self.folder.rmdir()
        if self.lock is not None:
            files.release(self.lock)


def start_run(verb: str, options: Mapping[str, object], *, out: Path | None = None) -> RunFolder:
    """Create a run's folder and write ``run.json`` into it. Of several runs that want the same folder, one gets it.

    Args:
        verb: The command that runs (``train``, ``convert``, ...).
        options: The command's options as it understood them. They are written unchanged.
        out: The folder. The default is ``runs/<verb>-<yyyymmdd>-<hhmmss>``, with ``-2``, ``-3``, ... if it exists. The
            folder of a run that was killed before it had results is taken over.

    Raises:
        ConfigError: The folder cannot be created, has another run's results, or another run has just started there.
    """
    begun, creates = provenance(verb, options), out is None or not os.path.lexists(out)
    folder = out or _fresh_folder(Path("runs") / f"{verb}-{datetime.now():%Y%m%d-%H%M%S}")
    return RunFolder(folder, files.claim(folder, "run.json", files.dumps(as_json(begun))), creates)


@contextmanager
def resume_run(folder: Path) -> Iterator[RunFolder]:
    """Open the run in a folder to continue it. Meanwhile no other process can.

    Raises:
        ConfigError: There is no run, or another process is working on it.
    """
    lock = files.hold(folder / "run.json")
    try:
        files.check_target(folder / "results.json", RESULTS)
        yield RunFolder(folder)
    finally:
        files.release(lock)


@contextmanager
def resumable(run: RunFolder) -> Iterator[None]:
    """Print how to continue, if the user interrupts a command that has results."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if os.path.exists(run.folder / "results.json"):
            stop.add_note(
                f"Finished results lie in {run.folder}. To continue: the same command with --resume {run.folder}"
            )
        raise


def located(run: Run, *, names: Collection[str] = ()) -> dict[str, object]:
    """Return the options of a run.json, with its files relative to the command's directory or, if missing, to this one.

    So a run finds them from any working directory, and from its own after the whole project has moved.

    Args:
        run: the run.json.
        names: values that are not files, although files may have these names: names of networks.
    """

    def seen(value: object) -> object:
        if isinstance(value, list):
            return [seen(each) for each in value]
        place = Path(run.directory) / str(value)
        return str(place) if isinstance(value, str) and value not in names and os.path.exists(place) else value

    return {name: seen(value) if name in PLACES else value for name, value in run.options.items()}


def copy_results(result: Result, place: Path | None) -> None:
    """Write a copy of a run's results to the path of ``--json``, which may be a pipe or a device."""
    if place is None:
        return
    copy = files.dumps(as_json(result))
    if os.path.isfile(place) and place.read_text(encoding="utf-8", errors="replace") == copy:
        return  # the run's own file
    files.write(place, copy, kind=COPY)


def _fresh_folder(wanted: Path) -> Path:
    numbered = (wanted.with_name(f"{wanted.name}-{number}") for number in count(2))
    return next(folder for folder in chain([wanted], numbered) if files.make_folder(folder))
