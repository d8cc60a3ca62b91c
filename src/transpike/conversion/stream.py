"""The outputs of a spiking network after each step, and how far they can still change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from transpike.coding.neuron import SteppingNeuron
from transpike.coding.scheme import decode, ratio
from transpike.conversion.pipeline import ROWS, Pipeline
from transpike.conversion.reach import known, reach
from transpike.conversion.walk import Network
from transpike.errors import ConversionError

__all__ = ["Moment", "chunk", "chunks", "moments", "unstreamed"]


@dataclass(frozen=True, eq=False)
class Moment:
    """The outputs of a network after one step.

    Attributes:
        step: the step of the output, 1 ... T.
        latency: the number of steps since the image's arrival, including the waits of the layers.
        outputs: the outputs [N, \\*] decoded so far, in the form of the network's own outputs. They are divided by the
            share of a constant that has arrived so far, so that early outputs are not too small. After step T they
            equal the result of a call.
        bound: for each value of the outputs, the largest change that all later spikes can cause. It holds for every
            image. It is infinite where no bound is known, for example after a softmax.
    """

    step: int
    latency: int
    outputs: Any
    bound: Any


def moments(snn: Network, x: Tensor) -> Iterator[Moment]:
    """Yield one moment after each step of the output. Samples run in chunks, and every chunk keeps its state.

    Raises:
        ConversionError: The scheme does not stream.
    """
    pipelines = [Pipeline(snn, part) for part in chunks(snn, x)]

    def run() -> Iterator[Moment]:
        constants, most = known(snn), reach(snn)
        for step in range(1, len(snn.scheme.weights) + 1):
            outputs = [pipeline.advance(step) for pipeline in pipelines]
            whole = {name: torch.cat([part[name] for part in outputs]) for name in snn.graph.outputs}
            parts = [_bounds(pipeline, step, constants, most) for pipeline in pipelines]
            bounds = {name: torch.cat([part[name] for part in parts]) for name in snn.graph.outputs}
            yield Moment(step, pipelines[0].latency(step), snn.graph.pack(whole), snn.graph.pack(bounds))

    return run()


def chunks(snn: Network, x: Tensor) -> tuple[Tensor, ...]:
    """Split the samples into chunks. They are T times as large as those of a whole run, because a piece has one step.

    Raises:
        ConversionError: The network cannot be read before its last step.
    """
    return x.tensor_split(max(1, -(-len(x) // chunk(snn))))


def chunk(snn: Network) -> int:
    """Return the number of samples in a chunk, for `chunks`.

    Raises:
        ConversionError: The network cannot be read before its last step.
    """
    if reason := unstreamed(snn):
        raise ConversionError(f"{reason}. Call the network instead: snn(images).")
    return snn.chunk or max(ROWS, snn.default_chunk * len(snn.scheme.weights))


def _bounds(
    pipeline: Pipeline, step: int, constants: Mapping[str, Tensor], most: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return how far outputs can still change, by name."""
    snn, scheme, found = pipeline.snn, pipeline.snn.scheme, {}
    for name in snn.graph.outputs:
        if name not in snn.readouts:
            found[name] = torch.full((pipeline.samples, *snn.graph[name].shape), torch.inf, device=snn.device)
            continue
        unit, steps = snn.units[name], pipeline.simulated(name, step)
        rest = constants[name].clone()
        rest[:steps] = 0
        value = pipeline.value(name, step)
        moved = value + decode(scheme, rest) - value / pipeline.come(name, step) if steps < len(rest) else 0 * value
        left = sum(scheme.weights[steps:])
        found[name] = (moved.abs() + (most[name] * left if left else 0)) * unit
    return found


def unstreamed(snn: Network) -> str:
    """Return why a network cannot be read before its last step. The reason is empty if it can."""
    name = type(snn.scheme).__name__
    if not all(isinstance(neuron, SteppingNeuron) for neuron in snn.neurons.values()):
        return f"{name} does not stream: its layers compute all steps at once"
    if ratio(snn.scheme) is None:
        return f"{name} does not stream: the weights of its steps have no constant ratio"
    return ""
