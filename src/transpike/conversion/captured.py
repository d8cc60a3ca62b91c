"""Runs small batches on a GPU as one CUDA graph: launching hundreds of small kernels takes longer than running them."""

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

SMALL = 2**28  # with fewer bytes in a run, the launch of its kernels takes longer than the kernels
_KEPT = 4  # recorded runs of different shapes; each holds its memory
_log = logging.getLogger(__name__)

Values = dict[str, Tensor]
Run = Callable[[Tensor], Values]


class Captures:
    """Records a network's runs when they come for the second time, and replays them from then on.

    The first run compiles kernels and copies constants to the device, which cannot be recorded. If recording fails, a
    note is logged, and all runs continue without it.
    """

    def __init__(self) -> None:
        self._lock = Lock()  # a recording has one place for its input
        self._runs: dict[Hashable, Run | Literal["first", "large"]] = {}
        self._failed = False

    def __call__(self, run: Run, x: Tensor, *, key: Hashable, small: Callable[[], bool]) -> Values:
        """Return the result of ``run`` for ``x``, in new tensors.

        Args:
            run: the function to record.
            x: its input.
            key: everything that the run depends on beside the shape and type of ``x``.
            small: returns whether to record this run at all.
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
                _log.warning("no CUDA graph could be recorded: kernels are launched one by one (%s)", error)
                return run(x)
        assert callable(state)
        return state(x)

    def __reduce__(self) -> tuple[type[Captures], tuple[()]]:
        """Copy and pickle without the recorded runs."""
        return Captures, ()


class Recorded(Network, Protocol):
    """A network with its recorded runs; see `transpike.conversion.network.SpikingNetwork.capture`."""

    capture: bool | None
    captures: Captures


def captured(snn: Recorded, run: Run, *, key: Hashable) -> Run:
    """Return ``run`` with recording for small chunks, or for all with ``capture=True``. On a CPU, return ``run``."""
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
    """Record ``run`` as a CUDA graph, and return a function that replays it for tensors with the shape of ``x``.

    Raises:
        RuntimeError: The run does something that CUDA cannot record, or memory does not suffice.
    """
    static, graph = x.clone(), torch.cuda.CUDAGraph()
    # Other threads may use CUDA meanwhile, as those of data loaders do.
    with torch.cuda.device(x.device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
        found = run(static)

    def replay(x: Tensor) -> Values:
        static.copy_(x)
        graph.replay()
        return {name: value.clone() for name, value in found.items()}

    return replay
