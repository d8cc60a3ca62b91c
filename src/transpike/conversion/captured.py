"""Small runs on a GPU as one CUDA graph: to launch hundreds of kernels takes longer than the kernels themselves do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Literal, Protocol

import torch
from torch import Tensor

from transpike.conversion.running import held
from transpike.conversion.walk import Network

__all__ = ["Captures", "captured", "is_gpu", "recorded"]

SMALL = 2**28  # bytes of a run, below which to launch its kernels takes longer than they do
_KEPT = 4  # runs of different shapes; each holds its memory
_log = logging.getLogger(__name__)

Values = dict[str, Tensor]
Run = Callable[[Tensor], Values]


class Captures:
    """Runs of a network that are recorded when they come for the second time, and replayed from then on.

    The first run compiles kernels and takes constants to the device, which no recording can hold. Where a run cannot be
    recorded, this is logged, and all go on as they are.
    """

    def __init__(self) -> None:
        self._lock = Lock()  # a recording has one place for its input
        self._runs: dict[Hashable, Run | Literal["first", "large"]] = {}
        self._failed = False

    def __call__(self, run: Run, x: Tensor, *, key: Hashable, small: Callable[[], bool]) -> Values:
        """What ``run`` makes of ``x``; its tensors are the caller's own.

        ``key`` says all that a run depends on beside the shape of ``x``; ``small``, whether to record it at all.
        """
        with self._lock:
            return self._called(run, x, (x.shape, x.dtype, key), small)

    def _called(self, run: Run, x: Tensor, key: Hashable, small: Callable[[], bool]) -> Values:
        state = self._runs.get(key)
        if state is None:
            self._runs[key] = "first" if small() else "large"
            while len(self._runs) > _KEPT:
                del self._runs[next(iter(self._runs))]
        if self._failed or state in (None, "large"):
            return run(x)
        if state == "first":
            try:
                state = self._runs[key] = recorded(run, x)
            except RuntimeError as error:
                self._failed = True
                self._runs.clear()
                _log.warning("no CUDA graph of this network: its kernels are launched one by one (%s)", error)
                return run(x)
        assert callable(state)
        return state(x)

    def __reduce__(self) -> tuple[type[Captures], tuple[()]]:
        """A copy of a network, or a network in a file, has recorded nothing."""
        return Captures, ()


class Recorded(Network, Protocol):
    """A network and its recorded runs; see `transpike.conversion.network.SpikingNetwork.capture`."""

    capture: bool | None
    captures: Captures


def captured(snn: Recorded, run: Run, *, key: Hashable) -> Run:
    """``run``, recorded where a chunk is small, or where the network says so; as it is on other devices."""
    if snn.capture is False or not is_gpu(snn.device):
        return run
    kind = snn.device.type
    precision = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    autocast = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    stream = torch.cuda.current_stream(snn.device).cuda_stream if torch.cuda.is_available() else 0
    key = key, precision, autocast, torch.is_inference_mode_enabled(), stream

    def call(x: Tensor) -> Values:
        small = lambda: bool(snn.capture) or len(x) * held(snn) <= SMALL  # noqa: E731
        return snn.captures(run, x.to(snn.device), key=key, small=small)

    return call


def is_gpu(device: torch.device) -> bool:
    """Whether runs on a device can be recorded."""
    return device.type == "cuda"


def recorded(run: Run, x: Tensor) -> Run:
    """``run`` on tensors like ``x``, as a CUDA graph.

    Raises:
        RuntimeError: if it does anything that CUDA cannot record, or memory does not suffice.
    """
    given, graph = x.clone(), torch.cuda.CUDAGraph()
    # Other threads may go on to use CUDA, as those of data loaders do.
    with torch.cuda.device(x.device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
        found = run(given)

    def replay(x: Tensor) -> Values:
        given.copy_(x)
        graph.replay()
        return {name: value.clone() for name, value in found.items()}

    return replay
