"""A run's folder: who ran what, where and with which versions, written before anything else happens."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, count
from pathlib import Path
from types import TracebackType
from typing import Any

from transpike import files

__all__ = ["COPY", "RESULTS", "Run", "located", "resumable", "resume_run", "start_run", "write_json"]

RESULTS = files.json_kind("results of transpike", kind=str, version=int)
"""What results.json is."""

COPY = files.Kind(
    "a copy of results of transpike",
    lambda path: RESULTS.recognises(path) and not (path.parent / "run.json").exists(),
)
"""What ``--json`` writes; beside a run.json lies the run's own file, which no other run replaces."""

PLACES = ("ann", "balanced", "model", "root", "student", "teacher", "teacher_weights", "weights")
"""Options that are a file or a folder, or may be."""


@dataclass(frozen=True)
class Run:
    """A run's folder; as a context manager it takes the folder away again when the run fails without a result.

    Attributes:
        folder: where the run is written.
        lock: what keeps other runs out of it as long as this one lives; see `files.claim`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place, start_run("demo", {"seed": 0}, out=Path(place) / "run") as run:
    ...     path = run.write("result.json", {"loss": float("nan")})
    ...     path.read_text().split()
    ['{', '"loss":', 'null', '}']
    """

    folder: Path
    lock: int | None = None

    def write(self, name: str, data: object) -> Path:
        """Write ``data`` as JSON to ``name`` in the run's folder, whole or not at all, and return the path."""
        return files.write_json(self.folder / name, data, kind=RESULTS)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and {path.name for path in self.folder.iterdir()} <= {"run.json"}:
            shutil.rmtree(self.folder)
        if self.lock is not None:
            files.release(self.lock)


def start_run(verb: str, options: Mapping[str, object], *, out: Path | None = None) -> Run:
    """Make a run's folder and write ``run.json`` into it. Of several runs that want the same folder, one gets it.

    Args:
        verb: The command that runs (``train``, ``convert``, ...).
        options: The command's options as it understood them; written as they are.
        out: The folder; by default ``runs/<verb>-<yyyymmdd>-<hhmmss>``, with ``-2``, ``-3``, ... when taken. That of
            a run that was killed before it had any result is taken over.

    Raises:
        ConfigError: The folder cannot be made, holds another run's results, or another run has just begun there.
    """
    record = {
        "verb": verb,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "directory": Path.cwd(),
        "options": dict(options),
        "seed": options.get("seed"),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": _versions(),
        "commit": _commit(Path(__file__).parents[1]),
        "hardware": _hardware(),
    }
    folder = out or _fresh_folder(Path("runs") / f"{verb}-{datetime.now():%Y%m%d-%H%M%S}")
    return Run(folder, files.claim(folder, "run.json", files.dumps(record)))


@contextmanager
def resume_run(folder: Path) -> Iterator[Run]:
    """The run in a folder, to go on with; meanwhile no other process can.

    Raises:
        ConfigError: There is no run, or another process is at work on it.
    """
    lock = files.hold(folder / "run.json")
    try:
        yield Run(folder)
    finally:
        files.release(lock)


@contextmanager
def resumable(run: Run) -> Iterator[None]:
    """Tell who interrupts a command how it can go on, if it has any results."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if (run.folder / "results.json").exists():
            stop.add_note(f"What is done lies in {run.folder}. To go on: the same command with --resume {run.folder}")
        raise


def located(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a run.json, its files as seen from where the command was given; if they are not there, from here.

    So a run finds them from any working directory, and from its own after the whole project has moved.
    """
    start, options = Path(recorded.get("directory", ".")), dict(recorded["options"])
    return options | {name: _located(options[name], start) for name in PLACES if name in options}


def _located(value: Any, start: Path) -> Any:
    from transpike.models import model_names

    if isinstance(value, list):
        return [_located(each, start) for each in value]
    known = not isinstance(value, str) or value in model_names()
    return value if known or not (start / value).exists() else str(start / value)


def write_json(path: Path, results: object) -> Path:
    """Write a copy of a run's results, which ``--json`` asks for; to a pipe or a device, too."""
    if path.is_file() and path.read_text(encoding="utf-8", errors="replace") == files.dumps(results):
        return path  # the run's own file
    return files.write_json(path, results, kind=COPY)


def _fresh_folder(wanted: Path) -> Path:
    numbered = (wanted.with_name(f"{wanted.name}-{number}") for number in count(2))
    return next(folder for folder in chain([wanted], numbered) if files.make_folder(folder))


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("transpike", "torch", "torchvision", "timm", "lightning", "numba", "numpy", "triton", "spikingjelly"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _commit(package: Path) -> str | None:
    """The git commit that the package's files are of, with ``+`` if they differ from it; None if git has none of them.

    The package may lie within whatever repository, whose hooks, filters and monitors are not to run. So git is asked
    for names and digests alone, and the files are compared here.
    """
    git = ["git", "-C", str(package), "-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}"]
    quietly = os.environ | {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"}

    def ask(*question: str) -> str:
        answer = subprocess.run([*git, *question], env=quietly, capture_output=True, text=True, check=True, timeout=10)
        return answer.stdout

    try:
        listed = ask("ls-tree", "-r", "-z", "HEAD", "--", ".").split("\0")[:-1]
        commit = ask("rev-parse", "HEAD").strip()
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    tracked = {path: entry.split()[2] for entry, _, path in (line.partition("\t") for line in listed)}
    if not tracked:
        return None
    sources = {str(path.relative_to(package)) for path in package.rglob("*.py")}
    same = sources <= tracked.keys() and all(_blob(package / path, name) == name for path, name in tracked.items())
    return commit if same else f"{commit}+"


def _blob(path: Path, like: str) -> str | None:
    """A file's name among git's objects; by SHA-1, or by SHA-256 if another's name is as long."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest = hashlib.sha1 if len(like) == 40 else hashlib.sha256
    return digest(b"blob %d\0" % len(content) + content).hexdigest()


def _hardware() -> dict[str, Any]:
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"cpu": _cpu_name(), "cores": len(os.sched_getaffinity(0)), "threads": torch.get_num_threads(), "gpus": gpus}


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
