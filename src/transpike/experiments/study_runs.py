"""The queue of a study: its runs one after the other, or several at once, each begun, gone on with, or done already."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transpike import files
from transpike.errors import TranspikeError
from transpike.experiments.distill import Distill, distill
from transpike.experiments.hybrid import Hybrid, hybrid
from transpike.experiments.study_plan import Job, Stop, Verb
from transpike.experiments.train import train
from transpike.files import read_json
from transpike.results import Training, read_result

if TYPE_CHECKING:
    from transpike.train.teacher import TargetCache

__all__ = ["Task", "finished", "run_all", "stopped"]

STOPPED = files.json_kind("why a study stopped a run", reason=str)

_caches: dict[str, TargetCache] = {}
"""What the latest teacher said, for the next run in this process."""


@dataclass(frozen=True)
class Task:
    """A job with where it lies, and what makes it hopeless.

    Attributes:
        job: what is run.
        study: the study's folder.
        stop: when it is hopeless; None for never.
        rival: the baseline's job of the same seed; None for the baseline itself.
        quiet: whether its bar is not shown.
    """

    job: Job
    study: Path
    stop: Stop | None = None
    rival: str | None = None
    quiet: bool = False

    @property
    def folder(self) -> Path:
        return self.study / self.job.name


def finished(folder: Path) -> bool:
    """Whether the run in a folder has its results."""
    return os.path.isfile(folder / "results.json")


def stopped(folder: Path, stop: Stop | None) -> str:
    """Why a run was stopped by the rule that the study has still; empty if it was not."""
    path = folder / "stopped.json"
    if stop is None or not os.path.isfile(path):
        return ""
    found = read_json(path)
    same = isinstance(found, dict) and found.get("rule") == asdict(stop)
    return str(found["reason"]) if same and isinstance(found, dict) else ""


def run_all(tasks: Sequence[Task], processes: int) -> Iterator[tuple[Task, str]]:
    """Run what is not done yet; each task as it ends, with why it failed, or nothing.

    With several processes, each runs one task after the other; they end with the one that began them.
    """
    open_ = [task for task in tasks if not finished(task.folder) and not stopped(task.folder, task.stop)]
    if processes == 1 or len(open_) < 2:
        for task in open_:
            yield task, _run(task)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(processes, len(open_)), mp_context=context, initializer=_end_with_parent)
    try:
        waiting = {pool.submit(_run, replace(task, quiet=True)): task for task in open_}
        for done in as_completed(waiting):
            yield waiting[done], done.result()
    except BrokenProcessPool as error:
        raise TranspikeError(
            "a process of the study was ended from outside, maybe for want of memory: give the command again, with "
            "fewer --processes."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """A process of the pool outlives no study that was killed: its run could not go on elsewhere."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        while True:  # the first ends a run in good order, a later one the process that waits for another
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

    threading.Thread(target=watch, daemon=True).start()


def _run(task: Task) -> str:
    """Begin a run, or go on with it; why it failed, if it did."""
    options = task.job.settled(task.study)
    begun = os.path.isfile(task.folder / "run.json")
    placed = type(options)(resume=task.folder) if begun else replace(options, out=task.folder)
    with ExitStack() as kept:
        kept.enter_context(redirect_stdout(io.StringIO()))
        if task.quiet:
            kept.enter_context(redirect_stderr(io.StringIO()))
        try:
            _begin(placed, options, task)
        except TranspikeError as error:
            return str(error)
    return ""


def _begin(placed: Any, options: Verb, task: Task) -> None:
    from transpike.train.hopeless import StopHopeless

    rivals = _validated(task.study / task.rival) if task.stop and task.rival else []
    watch = StopHopeless(rivals, after=task.stop.after, behind=task.stop.behind) if task.stop and rivals else None
    watching = [] if watch is None else [watch]
    try:
        if isinstance(options, Hybrid):
            hybrid(placed)
        elif isinstance(options, Distill):
            distill(placed, watching=watching, cache=_cache(options))
        else:
            train(placed, watching=watching)
    except KeyboardInterrupt:
        if watch is None or not watch.reason or task.stop is None:
            raise
        told = {"reason": watch.reason, "rule": asdict(task.stop)}
        files.write_json(task.folder / "stopped.json", told, kind=STOPPED)


def _validated(folder: Path) -> list[float]:
    """A finished run's validation accuracy by epoch; none where it failed or did not validate."""
    result = read_result(folder) if finished(folder) else None
    epochs = result.epochs if isinstance(result, Training) else ()
    values = [epoch.validation_accuracy for epoch in epochs]
    return [value for value in values if value is not None] if None not in values else []


def _cache(options: Distill) -> TargetCache | None:
    """What the same teacher said of the same images in runs before."""
    from transpike.train.teacher import TargetCache

    if not options.cache:
        return None
    key = json.dumps(files.plain([asdict(options.source), options.data, options.root, options.steps, options.cache]))
    if key not in _caches:
        _caches.clear()
        _caches[key] = TargetCache(options.cache)
    return _caches[key]
