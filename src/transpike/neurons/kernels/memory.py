"""Memory for what the CPU kernels write, kept when a tensor dies and given to the next of its size, as on CUDA.

A page that the system hands out costs several times what it costs to fill, and every training step asks for the same
sizes again: a LIF layer that writes into memory it has used before is three to four times as fast.
"""

from __future__ import annotations

import math
import weakref
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["empty", "release"]

_SMALLEST = 1 << 18  # elements; what is smaller comes fast from the system, too
_MOST = 1 << 28  # elements kept while nobody uses them: 1 GiB

Block = npt.NDArray[np.float32]
# Blocks by their number of elements. Every use is one atomic call: a tensor may die at any point of any thread.
_free: defaultdict[int, list[Block]] = defaultdict(list)


def empty(shape: Sequence[int]) -> Tensor:
    """An uninitialised float32 tensor on the CPU, whose memory comes back here when nobody holds it any more."""
    size = math.prod(shape)
    if size < _SMALLEST:
        return torch.empty(shape)
    try:
        block = _free[size].pop()
    except IndexError:
        if _full():
            release()
        block = np.empty(size, np.float32)  # NumPy asks for huge pages and PyTorch does not.
    lent = block[:]
    weakref.finalize(lent, _keep, block).atexit = False
    return torch.from_numpy(lent).view(*shape)


def release() -> None:
    """Give all memory that nobody uses back to the system."""
    _free.clear()


def _keep(block: Block) -> None:
    if not _full():
        _free[block.size].append(block)


def _full() -> bool:
    return sum(size * len(blocks) for size, blocks in _free.copy().items()) >= _MOST
