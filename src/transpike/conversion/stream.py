"""What a spiking network says after each of its steps, and what can still change."""

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
    """What a network says after one of its steps.

    Attributes:
        step: 1 ... T, of the output.
        latency: steps since the image's arrival, waits of the layers included.
        outputs: decoded so far, in the network's own form, and divided by the share of a constant that has come; after
            step T, what calling the network gives.
        bound: by how much each value can still change, in the form of the outputs: what all spikes that are still to
            come could say. Sure for any image; infinite where no such bound is known, as behind a softmax.
    """

    step: int
    latency: int
    outputs: Any
    bound: Any


def moments(snn: Network, x: Tensor) -> Iterator[Moment]:
    """One moment after each of the output's steps; samples run in chunks, of which all keep their state.

    Raises:
        ConversionError: if the scheme does not stream.
    """
    pipelines = [Pipeline(snn, part) for part in chunks(snn, x)]

    def run() -> Iterator[Moment]:
        constants, most = known(snn), reach(snn)
        for step in range(1, len(snn.scheme.weights) + 1):
            said = [pipeline.advance(step) for pipeline in pipelines]
            whole = {name: torch.cat([part[name] for part in said]) for name in snn.graph.outputs}
            parts = [_bounds(pipeline, step, constants, most) for pipeline in pipelines]
            bounds = {name: torch.cat([part[name] for part in parts]) for name in snn.graph.outputs}
            yield Moment(step, pipelines[0].latency(step), snn.graph.pack(whole), snn.graph.pack(bounds))

    return run()


def chunks(snn: Network, x: Tensor) -> tuple[Tensor, ...]:
    """The samples in chunks, T times as large as those of a whole run: a piece has one step.

    Raises:
        ConversionError: if the network cannot be read before its last step.
    """
    return x.tensor_split(max(1, -(-len(x) // chunk(snn))))


def chunk(snn: Network) -> int:
    """Samples at a time, as in `chunks`."""
    if reason := unstreamed(snn):
        raise ConversionError(f"{reason}. Call the network.")
    return snn.chunk or max(ROWS, snn.default_chunk * len(snn.scheme.weights))


def _bounds(
    pipeline: Pipeline, step: int, constants: Mapping[str, Tensor], most: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """By how much outputs can still change, by name."""
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
    """Why a network cannot be read before its last step; empty where it can."""
    name = type(snn.scheme).__name__
    if not all(isinstance(neuron, SteppingNeuron) for neuron in snn.neurons.values()):
        return f"{name} does not stream: its layers run over all steps at once"
    return "" if ratio(snn.scheme) is not None else f"{name} does not stream: its steps' weights have no constant ratio"
