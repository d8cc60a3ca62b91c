"""Estimates the time and memory of calibration before it starts."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from transpike.conversion.calibrate import measure
from transpike.conversion.graph import Graph

__all__ = ["Outlook", "Progress", "log", "outlook"]

SOON = 20.0
"""Seconds. Nothing is logged about a calibration that takes less time."""

_MOST, _FIRST = 32, 8  # images at a time, and images that are timed
_BUDGET = 2**26  # bytes of all values that are in memory at once
_KEPT = 12  # a factor for kernels' temporary memory and the system's allocator, measured on a ResNet-50
_HISTOGRAM = 2**21  # bytes of a layer's distribution
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outlook:
    """The expected cost of calibration.

    Attributes:
        images: the number of images.
        chunk: the number of images at a time.
        seconds: the expected time on this machine, estimated from the first images.
        bytes: approximate memory without the model's own, including the memory for the images.

    Example:
        >>> str(Outlook(images=512, chunk=32, seconds=250.0, bytes=1717986918))
        'calibration on 512 images takes about 4 min and 1.6 GiB of memory'
    """

    images: int
    chunk: int
    seconds: float
    bytes: int

    def __str__(self) -> str:
        time = f"{math.ceil(self.seconds)} s" if self.seconds < 90 else f"{self.seconds / 60:.0f} min"
        memory = f"{self.bytes / 2**30:.1f} GiB" if self.bytes >= 2**29 else f"{math.ceil(self.bytes / 2**20)} MiB"
        return f"calibration on {self.images} images takes about {time} and {memory} of memory"


Progress = Callable[[int, Outlook], None]
"""A function that is called with the number of finished images, starting from 0, and the expected total cost."""


def outlook(graph: Graph, images: Tensor) -> Outlook:
    """Estimate the cost from the first images. The second run is timed, because a first run also prepares kernels."""
    alive = _alive(graph) * images.element_size()
    chunk = max(1, min(_MOST, _BUDGET // alive))
    few = images[: min(_FIRST, chunk)]
    measure(graph, few[:1])
    began = time.perf_counter()
    measure(graph, few)
    seconds = (time.perf_counter() - began) / len(few)
    weights = sum(t.numel() * t.element_size() for op in graph for t in op.tensors.values())
    fixed = 2 * images.numel() * images.element_size() + weights + _HISTOGRAM * (1 + len(graph.neurons))
    return Outlook(len(images), chunk, seconds * len(images), fixed + _KEPT * chunk * alive)


def log(done: int, expected: Outlook) -> None:
    """Log the expected cost of a long calibration at its beginning, and then its progress at each quarter."""
    quarter = -(-expected.images // 4)
    if expected.seconds < SOON:
        return
    if not done:
        _log.warning("%s", expected)
    elif done // quarter > (done - expected.chunk) // quarter:
        _log.warning("calibration: %d of %d images", done, expected.images)


def _alive(graph: Graph) -> int:
    """Return the largest number of values of one sample that are in memory at once during a run."""
    uses = {name: len(ops) for name, ops in graph.consumers.items()}
    sizes: dict[str, int] = {}
    most = 1
    for op in graph:
        sizes[op.name] = math.prod(op.shape)
        most = max(most, sum(sizes.values()))
        for name in op.inputs:
            uses[name] -= 1
            if not uses[name] and name not in graph.outputs:
                sizes.pop(name, None)
    return most
