"""Numba kernels: compiled once and stored on disk, run on as many threads as PyTorch uses."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from itertools import pairwise
from threading import get_ident
from typing import Any

import numba
import torch
from numba.core import event

__all__ = ["compiled", "spread"]

_SMALLEST_PIECE = 1 << 15  # elements below which a second thread costs more than it saves
_TURNS = 16  # pieces of a job for each thread
_log = logging.getLogger(__name__)
_ours: set[Any] = set()
_pool: ThreadPoolExecutor | None = None
_Job = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Announce(event.Listener):
    """Receives Numba's event for a kernel that is not in its cache on disk."""

    announced = False

    def on_start(self, event: Any) -> None:
        if not self.announced and event.data["dispatcher"] in _ours:
            self.announced = True
            _log.warning(
                "compiling the CPU kernels of the neurons: this takes a few seconds, once; the result is stored on disk"
            )

    def on_end(self, event: Any) -> None:
        pass


event.register("numba:compile", _Announce())  # type: ignore[no-untyped-call]


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Compile without the GIL, without fast-math, and without checks of division that would prevent vectorisation.

    Numba stores the compiled code on disk, for each kind of processor separately.
    """
    try:
        kernel: Any = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # Numba found no folder in which it may write its cache
        kernel = numba.njit(nogil=True, error_model="numpy")(function)
    else:
        kernel._cache.load_overload = partial(_load, kernel._cache, kernel._cache.load_overload)
    _ours.add(kernel)
    return kernel  # type: ignore[no-any-return]


def _load(cache: Any, load: Callable[..., Any], *signature: Any) -> Any:
    """Return the stored code of a kernel. If it cannot be read, return nothing, and it is written again."""
    try:
        return load(*signature)
    except Exception as error:
        _log.warning(
            "the compiled CPU kernels in %s are damaged (%s): they are compiled again", cache.cache_path, error
        )
        with contextlib.suppress(OSError):
            cache.flush()
        return None


def _team() -> Any:
    """Return the function of PyTorch's OpenMP library that calls a job in each of its threads, or None.

    GCC's library has it, and on Linux also LLVM's and Intel's.
    """
    try:
        run = ctypes.CDLL(None).GOMP_parallel if torch.backends.openmp.is_available() else None
    except (AttributeError, OSError, TypeError):  # TypeError: Windows
        return None
    if run is not None:
        run.argtypes, run.restype = (_Job, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
    return run


_run_team = _team()


def _forget_threads() -> None:
    global _pool, _run_team
    _pool = _run_team = None


if hasattr(os, "register_at_fork"):  # a forked child inherits the pool and the team, but none of their threads
    os.register_at_fork(after_in_child=_forget_threads)


def spread(kernel: Callable[..., None], arguments: tuple[Any, ...], *, items: int, cost: int, align: int) -> None:
    """Call ``kernel(*arguments, lo, hi)`` on contiguous pieces of ``range(items)``, on as many threads as PyTorch uses.

    Args:
        kernel: a function from `compiled`.
        arguments: the arguments before the bounds.
        items: the number of independent items.
        cost: the elements of each item. Small jobs stay on one thread.
        align: pieces begin at multiples of this.

    A thread takes the next piece when it has finished one. So a thread whose core is busy does not delay the others.

    Large jobs run on PyTorch's own threads. After each operation of PyTorch these wait actively for some milliseconds,
    on the cores that threads of ours would need. There is a pool of ours for jobs that need fewer threads (GCC's OpenMP
    ends the threads that it leaves out), for forked processes, and where PyTorch has no OpenMP. A forked process may
    itself use PyTorch on one thread only, as after any parallel operation of PyTorch. Numba's `prange` aborts with
    concurrent callers (workqueue) or after a fork (OpenMP).
    """
    most = torch.get_num_threads()
    threads = max(1, min(most, items * cost // _SMALLEST_PIECE))
    pieces = max(1, min(threads * _TURNS, items * cost // _SMALLEST_PIECE)) if threads > 1 else 1
    edges = [items * piece // pieces // align * align for piece in range(pieces)] + [items]
    spans = iter([span for span in pairwise(edges) if span[0] < span[1]])

    def work() -> None:
        for span in spans:
            kernel(*arguments, *span)

    if threads == 1:
        work()
    elif threads == most and _run_team:
        _in_team(work, threads)
    else:
        _in_pool(work, threads)


def _in_team(work: Callable[[], None], threads: int) -> None:
    errors: list[BaseException] = []
    began: set[int] = set()

    def job(_: object) -> None:
        try:
            began.add(get_ident())
            work()
        except BaseException as error:  # no exception may pass through OpenMP
            errors.append(error)

    _run_team(_Job(job), None, threads, 0)
    if not errors and get_ident() not in began:  # Ctrl-C came just before `try`, where ctypes drops it
        raise KeyboardInterrupt
    try:
        if errors:
            raise errors[0]
    finally:
        errors.clear()  # the error's traceback holds this list, and with it the arguments


def _in_pool(work: Callable[[], None], threads: int) -> None:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(os.cpu_count(), "transpike")
    futures = [_pool.submit(work) for _ in range(threads - 1)]
    try:
        work()
    finally:
        wait(futures)
    for future in futures:
        future.result()
