"""Memory for the outputs of the CPU kernels. It is kept when a tensor dies and reused for the next size, as on CUDA.

A new page from the system costs several times as much as filling it, and every training step needs the same sizes
again. A LIF layer that writes into used memory takes about half the time.
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

_SMALLEST = 1 << 18  # elements; the system also provides smaller blocks fast
_PAGE = 1 << 10  # elements
_MOST = 1 << 28  # elements kept while they are unused: 1 GiB

Block = npt.NDArray[np.float32]
_free: list[Block] = []  # the oldest comes first
_lock = threading.Lock()


def empty(shape: Sequence[int]) -> Tensor:
    """Return an uninitialised float32 tensor on the CPU, whose memory returns here when nobody holds it any more."""
    size = math.prod(shape)
    if size < _SMALLEST:
        return torch.empty(shape, dtype=torch.float32, device="cpu")
    with _lock:
        at = next((at for at in reversed(range(len(_free))) if _free[at].size == size), None)
        block = _new(size) if at is None else _free.pop(at)
    lent = block[:]
    weakref.finalize(lent, _keep, block).atexit = False
    return torch.from_numpy(lent).view(*shape)


def _new(size: int) -> Block:
    """A block that begins in the middle of a page.

    PyTorch's large tensors begin near the start of a page. If input and output had the same place in their pages, they
    would displace each other in the first-level cache. NumPy requests huge pages and PyTorch does not.
    """
    block = np.empty(size + _PAGE, np.float32)
    first = (_PAGE // 2 - block.ctypes.data // block.itemsize) % _PAGE
    return block[first : first + size]


def empty_cache() -> None:
    """Return the unused memory of the CPU kernels to the system: at most 1 GiB for each process.

    Example:
        >>> from transpike.neurons import empty_cache
        >>> empty_cache()
    """
    with _lock:
        _free.clear()


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # a thread that does not exist in a forked child may hold it
    os.register_at_fork(after_in_child=_renew_lock)


def _keep(block: Block) -> None:
    # A tensor may die at any point, also inside these functions. Then its memory is released.
    if block.size > _MOST or not _lock.acquire(blocking=False):
        return
    try:
        _free.append(block)
        kept = sum(block.size for block in _free)
        while kept > _MOST:
            kept -= _free.pop(0).size
    finally:
        _lock.release()
