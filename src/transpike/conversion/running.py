"""Runs images through a spiking network: over all steps at once, in pieces of steps for long trains, or as values."""

from __future__ import annotations

import math

from torch import Tensor

from transpike.coding.neuron import SteppingNeuron
from transpike.coding.scheme import decode, ratio
from transpike.conversion.fired import Watch
from transpike.conversion.kinds import KINDS
from transpike.conversion.op import Op
from transpike.conversion.pipeline import ROWS, Pipeline
from transpike.conversion.room import cached, free, largest, taken
from transpike.conversion.values import said
from transpike.conversion.walk import Network, walk

__all__ = ["chunk", "decoded", "held", "least", "run"]

LONG, PIECE = 128, 64  # trains of more than LONG steps travel in pieces of at most PIECE steps
OTHERS = 2**27  # bytes of one layer at all steps of a chunk, on devices other than a CPU or a CUDA GPU


def run(snn: Network, x: Tensor, watch: Watch | None, *, final: bool, trains: bool) -> dict[str, Tensor]:
    """Return the decoded values for ``x``, by name. See `transpike.conversion.network.SpikingNetwork.observe`."""
    if snn.scheme.whole:
        return said(snn, x, watch, pieces=_pieces(snn), final=final, trains=trains)
    return _stepped(snn, x, watch, final=final) if _travels(snn) else _whole(snn, x, watch, final=final)


def _whole(snn: Network, x: Tensor, watch: Watch | None, *, final: bool) -> dict[str, Tensor]:
    def spikes(op: Op, *inputs: Tensor) -> Tensor:
        fired = snn.encode(snn.scaled(op, *inputs)) if op.kind == "input" else snn.fire(op, inputs, final=final)
        if watch:
            watch(snn.graph[op.name], fired)
        return fired.spikes.flatten(0, 1)

    return walk(snn, x, spikes, snn.current, lambda op, z: decoded(snn, op, z), snn.course)


def _stepped(snn: Network, x: Tensor, watch: Watch | None, *, final: bool) -> dict[str, Tensor]:
    """Run one piece of all trains after the other. The spikes are the same, and memory does not grow with the steps."""
    pipeline = Pipeline(snn, x, watch, final=final, rows=1)  # a piece has enough steps
    for piece in _pieces(snn):
        pipeline.run(piece.stop)
    return pipeline.decoded(pipeline.total)


def _pieces(snn: Network) -> list[range]:
    """Return all steps, in pieces of similar lengths."""
    steps = len(snn.scheme.weights)
    count = math.ceil(steps / PIECE)
    return [range(steps * k // count, steps * (k + 1) // count) for k in range(count)]


def _travels(snn: Network) -> bool:
    """Whether trains travel in pieces: they are long, no layer waits, and every layer can run in pieces.

    If layers waited, some pieces would be too short: see `transpike.conversion.pipeline.ROWS`.
    """
    if len(snn.scheme.weights) <= LONG or any(snn.timing.waits.values()):
        return False
    if any(KINDS[op.kind].product for op in snn.graph) and ratio(snn.scheme) is None:
        return False
    return all(isinstance(neuron, SteppingNeuron) for neuron in snn.neurons.values())


def decoded(snn: Network, op: Op, current: Tensor) -> Tensor:
    """Return the decoded values of an operation's current over all steps."""
    return decode(snn.scheme, current.unflatten(0, (len(snn.scheme.weights), -1))) * snn.units[op.name]


def least(snn: Network) -> int:
    """Return the fewest samples with which matrix products give the same bits as with more samples."""
    return math.ceil(ROWS / len(snn.scheme.weights))


def chunk(snn: Network) -> int:
    """Return the number of samples simulated at a time: `transpike.conversion.network.SpikingNetwork.default_chunk`."""
    if snn.device.type == "cuda":
        each, most = _taken(snn)
        return max(least(snn), min(free(snn.device) // each, most))
    budget = cached() if snn.device.type == "cpu" else OTHERS
    return max(least(snn), budget // (4 * largest(snn.course.graph, snn.graph.spiking) * _steps(snn)))


def held(snn: Network) -> int:
    """Return the peak bytes of one sample in a run."""
    return _taken(snn)[0]


def _taken(snn: Network) -> tuple[int, int]:
    return taken(snn.course.graph, snn.graph.spiking, steps=_steps(snn), bytes_each=snn.dtype.itemsize)


def _steps(snn: Network) -> int:
    """Return the number of steps that are in memory at a time."""
    return min(snn.timing.interval, PIECE) if snn.scheme.whole or _travels(snn) else snn.timing.interval
