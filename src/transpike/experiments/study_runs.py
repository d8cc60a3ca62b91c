"""The queue of a study: its runs, one after the other or several at once. Each is new, continued, or already done."""

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
"""The latest teacher's outputs, for the next run in this process."""


@dataclass(frozen=True)
class Task:
    """A job with its place, and the rule for when it is hopeless.

    Attributes:
        job: the job to run.
        study: the study's folder.
        stop: when it is hopeless. None for never.
        rival: the baseline's job of the same seed. None for the baseline itself.
        quiet: whether to hide its progress bar.
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
    """Return why a run was stopped by the rule that the study still has. Empty if it was not stopped."""
    path = folder / "stopped.json"
    if stop is None or not os.path.isfile(path):
        return ""
    state = read_json(path)
    same = isinstance(state, dict) and state.get("rule") == asdict(stop)
    return str(state["reason"]) if same and isinstance(state, dict) else ""


def run_all(tasks: Sequence[Task], processes: int) -> Iterator[tuple[Task, str]]:
    """Run unfinished tasks. Yields each task when it ends, with the reason of its failure or an empty text.

    With several processes, each runs one task after the other. They end with the process that started them.
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
            "a process of the study was ended from outside, perhaps by lack of memory: give the command again, with "
            "fewer --processes."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """End a process of the pool with its study, because nobody could continue its run while it runs on."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        while True:  # the first signal ends a run cleanly, a later one ends a process that waits for another
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

    threading.Thread(target=watch, daemon=True).start()


def _run(task: Task) -> str:
    """Start or continue a run. Returns the reason of its failure, or an empty text."""
    options = task.job.settled(task.study)
    begun = os.path.isfile(task.folder / "run.json")
    placed = type(options)(resume=task.folder) if begun else replace(options, out=task.folder)
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(io.StringIO()))
        if task.quiet:
            stack.enter_context(redirect_stderr(io.StringIO()))
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
        record = {"reason": watch.reason, "rule": asdict(task.stop)}
        files.write_json(task.folder / "stopped.json", record, kind=STOPPED)


def _validated(folder: Path) -> list[float]:
    """Return a finished run's validation accuracy by epoch. Empty if it failed or did not validate."""
    result = read_result(folder) if finished(folder) else None
    epochs = result.epochs if isinstance(result, Training) else ()
    values = [epoch.validation_accuracy for epoch in epochs]
    return [value for value in values if value is not None] if None not in values else []


def _cache(options: Distill) -> TargetCache | None:
    """Return the outputs of the same teacher for the same images in earlier runs."""
    from transpike.train.teacher import TargetCache

    if not options.cache:
        return None
    key = json.dumps(files.plain([asdict(options.source), options.data, options.root, options.steps, options.cache]))
    if key not in _caches:
        _caches.clear()
        _caches[key] = TargetCache(options.cache)
    return _caches[key]
