"""A run's folder: who ran what, where and with which versions, written before anything else happens."""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

from transpike.errors import ConfigError

__all__ = ["Run", "located", "plain", "start_run", "write_json"]

PLACES = ("ann", "balanced", "model", "root", "student", "teacher", "teacher_weights", "weights")
"""Options that are a file or a folder, or may be."""


@dataclass(frozen=True)
class Run:
    """A run's folder; as a context manager it takes the folder away again when the run fails without a result.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place, start_run("demo", {"seed": 0}, out=Path(place) / "run") as run:
    ...     path = run.write("result.json", {"loss": float("nan")})
    ...     path.read_text().split()
    ['{', '"loss":', 'null', '}']
    """

    folder: Path

    def write(self, name: str, data: Any) -> Path:
        """Write ``data`` as JSON to ``name`` in the run's folder, whole or not at all, and return the path."""
        return write_json(self.folder / name, data)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and {path.name for path in self.folder.iterdir()} <= {"run.json"}:
            shutil.rmtree(self.folder)


def start_run(verb: str, options: Mapping[str, Any], *, out: Path | None = None) -> Run:
    """Make a run's folder and write ``run.json`` into it.

    Args:
        verb: The command that runs (``train``, ``convert``, ...).
        options: The command's options as it understood them; written as they are.
        out: The folder; by default ``runs/<verb>-<yyyymmdd>-<hhmmss>``, with ``-2``, ``-3``, ... when taken.

    Raises:
        ConfigError: The folder cannot be made, or holds another run's results.
    """
    if out is None:
        folder = _fresh_folder(Path("runs") / f"{verb}-{datetime.now():%Y%m%d-%H%M%S}")
    else:
        folder = out
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder} is not an empty folder: name another one for this run's results.")
        _make(folder, parents_too=True)
    record = {
        "verb": verb,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "directory": Path.cwd(),
        "options": dict(options),
        "seed": options.get("seed"),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": _versions(),
        "commit": _commit(),
        "hardware": _hardware(),
    }
    write_json(folder / "run.json", record)
    return Run(folder)


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


def write_json(path: Path, data: Any) -> Path:
    """Write ``data`` as JSON, whole or not at all: to a temporary file beside ``path``, then renamed.

    JSON has no infinity and no NaN: both become null. Paths become strings, dataclasses objects, and anything with
    ``tolist`` (arrays, tensors, NumPy's scalars) lists or numbers.
    """
    text = json.dumps(plain(data), indent=2, allow_nan=False, ensure_ascii=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", text=True)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}.") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text + "\n")
        # mkstemp makes a file that only its owner can read; a result is as readable as any other file.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def plain(value: Any) -> Any:
    """``value`` as JSON holds it; see `write_json`."""
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


def _fresh_folder(wanted: Path) -> Path:
    folder, count = wanted, 1
    while True:
        try:
            _make(folder, parents_too=True, fresh=True)
        except FileExistsError:
            count += 1
            folder = wanted.with_name(f"{wanted.name}-{count}")
        else:
            return folder


def _make(folder: Path, *, parents_too: bool, fresh: bool = False) -> None:
    try:
        folder.mkdir(parents=parents_too, exist_ok=not fresh)
    except FileExistsError:
        raise
    except OSError as error:
        raise ConfigError(f"cannot make the folder {folder}: {error.strerror or error}.") from error


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("transpike", "torch", "torchvision", "timm", "lightning", "numba", "numpy", "triton", "spikingjelly"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """The source's git commit, with ``+`` when the working tree differs; None outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        tracked = subprocess.run([*git, "ls-files", __file__], capture_output=True, text=True, check=True).stdout
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    if not tracked.strip():
        return None
    return commit + ("+" if changed.strip() else "")


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
