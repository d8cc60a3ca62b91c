"""Memory for what the CPU kernels write, kept when a tensor dies and given to the next of its size, as on CUDA.

A page that the system hands out costs several times what it costs to fill, and every training step asks for the same
sizes again: a LIF layer that writes into memory it has used before takes about half the time.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["empty", "empty_cache"]

_SMALLEST = 1 << 18  # elements; what is smaller comes fast from the system, too
_MOST = 1 << 28  # elements kept while nobody uses them: 1 GiB

Block = npt.NDArray[np.float32]
_free: list[Block] = []  # the one that died first comes first
_lock = threading.Lock()


def empty(shape: Sequence[int]) -> Tensor:
    """An uninitialised float32 tensor on the CPU, whose memory comes back here when nobody holds it any more."""
    size = math.prod(shape)
    if size < _SMALLEST:
        return torch.empty(shape, dtype=torch.float32, device="cpu")
    with _lock:
        at = next((at for at in reversed(range(len(_free))) if _free[at].size == size), None)
        # NumPy asks for huge pages and PyTorch does not.
        block = np.empty(size, np.float32) if at is None else _free.pop(at)
    lent = block[:]
    weakref.finalize(lent, _keep, block).atexit = False
    return torch.from_numpy(lent).view(*shape)


def empty_cache() -> None:
    """Give the memory that the CPU kernels keep, and nobody uses, back to the system: at most 1 GiB a process.

    >>> from transpike.neurons import empty_cache
    >>> empty_cache()
    """
    with _lock:
        _free.clear()


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # a thread that a forked child does not have may hold it
    os.register_at_fork(after_in_child=_renew_lock)


def _keep(block: Block) -> None:
    # A tensor may die at any point, within these functions too: then its memory just goes.
    if block.size > _MOST or not _lock.acquire(blocking=False):
        return
    try:
        _free.append(block)
        kept = sum(block.size for block in _free)
        while kept > _MOST:
            kept -= _free.pop(0).size
    finally:
        _lock.release()
