"""How many samples to simulate at a time: limited by a CPU's caches or a GPU's free memory."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TypeVar

import torch
from torch import Tensor

from transpike.conversion.graph import Graph
from transpike.conversion.kinds import KINDS, weighted
from transpike.conversion.op import Op

__all__ = ["cached", "free", "in_chunks", "largest", "side_by_side", "taken"]

_CACHE = 2**25  # bytes of a last-level cache, if the system does not report it
_LEAST, _MOST = 2**22, 2**25  # bytes of one layer at all steps of a chunk, on a CPU
_SHARE = 0.5  # of a GPU's free memory; the rest is for convolutions' workspace and fragmentation
_WIDEST = 2**31 - 1  # the largest number of values in one tensor that PyTorch's kernels can index
_log = logging.getLogger(__name__)
_lock, _callers, _threads = Lock(), 0, 1
T = TypeVar("T")


@cache
def cached(place: str = "/sys/devices/system/cpu/cpu0/cache/index3/size") -> int:
    """Return the bytes of one layer that fit in a CPU's last-level cache beside the layer's inputs.

    This is a quarter of the cache. With larger layers, convolutions took 1.8 times as long on a cache of 32 MiB.

    Example:
        >>> cached("nowhere")
        8388608
    """
    try:
        size = Path(place).read_text().strip()
        size_in_bytes = int(size.rstrip("KM")) * {"K": 2**10, "M": 2**20}.get(size[-1:], 1)
    except (OSError, ValueError):
        size_in_bytes = _CACHE
    return min(max(size_in_bytes // 4, _LEAST), _MOST)


def free(device: torch.device) -> int:
    """Return the bytes of a GPU that a chunk may take. Memory that PyTorch reserves but does not use counts as free."""
    idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(_SHARE * (torch.cuda.mem_get_info(device)[0] + idle))


def largest(graph: Graph, spiking: frozenset[str]) -> int:
    """Return the values of one sample's largest layer at one step, including what its neurons accumulate."""
    sizes = {op.name: math.prod(op.shape) for op in graph}
    return max(max(sizes[op.name], _accumulated(op, sizes)) for op in graph if op.name in spiking)


def taken(graph: Graph, spiking: frozenset[str], *, steps: int, bytes_each: int) -> tuple[int, int]:
    """Return the peak bytes of one sample in a run, and the largest number of samples that PyTorch can index."""
    sizes = {op.name: math.prod(op.shape) for op in graph}
    uses = {name: sum(op.name in spiking for op in ops) for name, ops in graph.consumers.items()}
    alive: dict[str, int] = {}
    most, widest = 1, 1
    for op in graph:
        if op.name not in spiking:
            continue
        alive[op.name] = sizes[op.name] * bytes_each
        passing = 4 * _accumulated(op, sizes)
        if weighted(op):  # a copy in another memory format, or as a matrix
            passing += bytes_each * sum(sizes[name] for name in op.inputs)
        most, widest = max(most, sum(alive.values()) + passing), max(widest, sizes[op.name])
        for name in op.inputs:
            uses[name] -= 1
            if not uses[name]:
                alive.pop(name, None)
    return most * steps, _WIDEST // (widest * steps)


def _accumulated(op: Op, sizes: dict[str, int]) -> int:
    """Return the single-precision values that are stored beside a layer's result, at one step."""
    operands = sum(sizes[name] for name in op.inputs)
    if KINDS[op.kind].product:
        return operands + sizes[op.name]
    function = op.function
    if op.fires and (not function.tracked or function.head.calls) and function.clipped is None:
        return operands
    return 0


def side_by_side(parts: Sequence[Tensor], run: Callable[[Tensor], T]) -> list[T]:
    """Return the result of ``run`` for each part, with as many parts at a time as PyTorch has threads, one thread each.

    If several threads worked on one part, they would wait for each other at each layer.
    """
    inference = torch.is_inference_mode_enabled()  # the mode applies only to one thread

    def one(part: Tensor) -> T:
        with torch.inference_mode(inference), torch.no_grad():
            return run(part)

    with _one_thread_each() as threads, ThreadPoolExecutor(threads, initializer=_one_thread) as pool:
        return list(pool.map(one, parts))


def _one_thread() -> None:
    """Set PyTorch to one thread in a new thread, also if another caller ends and restores the number meanwhile."""
    torch.get_num_threads()  # a thread takes the common number at its first call; ours must come after it
    torch.set_num_threads(1)


@contextmanager
def _one_thread_each() -> Iterator[int]:
    """Set PyTorch to one thread for each caller, and yield the former number of threads."""
    global _callers, _threads
    with _lock:
        if not _callers:
            _threads = torch.get_num_threads()
            torch.set_num_threads(1)
        _callers += 1
        threads = _threads
    try:
        yield threads
    finally:
        with _lock:
            _callers -= 1
            torch.set_num_threads(threads)  # by every caller: a thread also has a number of its own


def in_chunks(
    parts: Sequence[Tensor], split: Callable[[Tensor, int], Sequence[Tensor]], run: Callable[[Tensor], T]
) -> list[T]:
    """Return the result of ``run`` for each part. If memory does not suffice once, halve the parts that remain."""
    results: list[T] = []
    waiting, halved = list(parts), False
    while waiting:
        try:
            results.append(run(waiting[0]))
            del waiting[0]
            continue
        except torch.OutOfMemoryError:
            if halved or len(waiting[0]) == 1:
                raise
        # Outside the handler, which would keep the results so far alive.
        halved, half = True, -(-len(waiting[0]) // 2)
        if waiting[0].is_cuda:
            torch.cuda.empty_cache()
        _log.warning(
            "out of memory with %d images at a time: continuing with %d. Set the network's `chunk` to choose the "
            "number.",
            len(waiting[0]), half,
        )  # fmt: skip
        waiting = list(split(torch.cat(waiting), half))
    return results
