"""What calibration will take, said before it is spent."""

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
"""Seconds; nothing is logged of a calibration that takes less."""

_MOST, _FIRST = 32, 8  # images at a time, and those that are timed
_BUDGET = 2**26  # bytes of all values that are alive at once
_KEPT = 12  # times these: what kernels take and the system's allocator keeps, as seen on a ResNet-50
_HISTOGRAM = 2**21  # bytes of a layer's distribution
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outlook:
    """What calibration takes.

    Attributes:
        images: how many it runs on.
        chunk: how many at a time.
        seconds: on this machine, as far as the first images tell.
        bytes: of memory, beside the model's own; about, and with what was taken to gather the images.

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
"""Called with the number of images that are done, first with 0, and what all of them take."""


def outlook(graph: Graph, images: Tensor) -> Outlook:
    """Of the time it takes on the first images: the second time, since much is made ready by a first run."""
    alive = _alive(graph) * images.element_size()
    chunk = max(1, min(_MOST, _BUDGET // alive))
    few = images[: min(_FIRST, chunk)]
    measure(graph, few[:1])
    began = time.perf_counter()
    measure(graph, few)
    seconds = (time.perf_counter() - began) / len(few)
    weights = sum(t.numel() * t.element_size() for op in graph for t in op.tensors.values())
    held = 2 * images.numel() * images.element_size() + weights + _HISTOGRAM * (1 + len(graph.neurons))
    return Outlook(len(images), chunk, seconds * len(images), held + _KEPT * chunk * alive)


def log(done: int, expected: Outlook) -> None:
    """Log what a long calibration takes as it begins, and each quarter of it."""
    quarter = -(-expected.images // 4)
    if expected.seconds < SOON:
        return
    if not done:
        _log.warning("%s", expected)
    elif done // quarter > (done - expected.chunk) // quarter:
        _log.warning("calibration: %d of %d images", done, expected.images)


def _alive(graph: Graph) -> int:
    """How many values of one sample are alive at the fullest moment of a run."""
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
