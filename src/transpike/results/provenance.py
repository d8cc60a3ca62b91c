"""The facts in run.json about a run's machine and versions."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from transpike.files import plain
from transpike.results.run import Hardware, Run

__all__ = ["provenance"]


def provenance(verb: str, options: Mapping[str, object]) -> Run:
    """Return the record of a run that starts now, on this machine.

    Args:
        verb: the command.
        options: the options as the command understood them.

    Example:
        >>> run = provenance("demo", {"seed": 0})
        >>> run.verb, run.seed, run.directory == str(Path.cwd())
        ('demo', 0, True)
    """
    seed = options.get("seed")
    return Run(
        verb=verb,
        command=(Path(sys.argv[0]).name, *sys.argv[1:]),
        directory=str(Path.cwd()),
        options={name: plain(value) for name, value in options.items()},
        seed=seed if isinstance(seed, int) else None,
        started=datetime.now().astimezone().isoformat(timespec="seconds"),
        versions=_versions(),
        commit=_commit(Path(__file__).parents[1]),
        hardware=_hardware(),
    )


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("transpike", "torch", "torchvision", "timm", "lightning", "numba", "numpy", "triton", "spikingjelly"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _commit(package: Path) -> str | None:
    """Return the git commit of the package's files, with ``+`` if they differ from it. None if git does not have them.

    The package may lie inside any repository, whose hooks, filters and monitors must not run. So git returns only names
    and digests, and the files are compared here.
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
    """Return a file's name among git's objects: by SHA-1, or by SHA-256 if another object's name has this length."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest = hashlib.sha1 if len(like) == 40 else hashlib.sha256
    return digest(b"blob %d\0" % len(content) + content).hexdigest()


def _hardware() -> Hardware:
    import torch

    gpus = tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return Hardware(cpu=_cpu_name(), cores=len(os.sched_getaffinity(0)), threads=torch.get_num_threads(), gpus=gpus)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
