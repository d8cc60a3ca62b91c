"""What the benchmarks share: interleaved best-of-n times, peak memory, a table, a JSON file."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.table import Table

from transpike.neurons import empty_cache

Run = Callable[[], object]
T = TypeVar("T")
RESULTS = Path(__file__).parent / "results"


def best_seconds(runs: Mapping[str, Run], *, repeats: int, cuda: bool = False) -> dict[str, float]:
    """Least wall-clock time of each run, in turns, so that a busy machine disturbs all alike. One round warms up."""
    best = dict.fromkeys(runs, float("inf"))
    for turn in range(repeats + 1):
        for name, run in runs.items():
            start = _now(cuda)
            kept = run()
            seconds = _now(cuda) - start
            del kept
            if turn:
                best[name] = min(best[name], seconds)
    return best


def alone(measure: Callable[..., T], *arguments: Any) -> T:
    """Measure in a process of its own: not on memory that others have left, nor beside their waiting threads."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(measure, *arguments).result()


def _now(cuda: bool) -> float:
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_mebibytes(run: Run, *, cuda: bool = False) -> float:
    """Memory at the highest point of a run, above what was held before it."""
    gc.collect()
    empty_cache()
    ctypes.CDLL(None).malloc_trim(0)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    run()
    return (_resident("VmHWM") - before) / 2**10


def _resident(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def save(name: str, results: Any) -> Path:
    """Write results with the machine they come from to benchmarks/results/NAME.json."""
    machine = {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")
    return path


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())
