r"""A spiking network in pieces of steps: what it says so far, and what can still change.

The network is a pipeline: a layer's step t happens at the global step ``first_spike + t``. A `Pipeline` lets the clock
go on by some steps; every layer then computes those of its steps that have come, and keeps its state. A run in pieces
equals a whole run, to the bit, so that an answer that is taken early is one of the whole run's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from transpike.coding.neuron import Neuron, SteppingNeuron, Steps
from transpike.coding.scheme import decode, ratio
from transpike.conversion.kinds import KINDS, apply
from transpike.conversion.op import Op
from transpike.conversion.products import ProductSteps
from transpike.conversion.reach import Network as Linear
from transpike.conversion.reach import known, reach
from transpike.conversion.timing import Timing
from transpike.errors import ConversionError
from transpike.neurons.pieces import kept
from transpike.neurons.tsa import Tracked

__all__ = ["ROWS", "Moment", "Network", "Pipeline", "chunks", "moments"]

ROWS = 16
"""Samples that a piece has at least: with fewer, PyTorch adds in another order."""


class Network(Linear, Protocol):
    """What is simulated: see `transpike.conversion.network.SpikingNetwork`."""

    units: dict[str, float]
    timing: Timing
    neurons: dict[str, Neuron]
    chunk: int | None

    @property
    def default_chunk(self) -> int:
        """Samples of a whole run at a time."""

    def encode(self, x: Tensor) -> Tracked:
        """The input's train."""

    def scaled(self, op: Op, x: Tensor) -> Tensor:
        """Images in units of the input's theta."""


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
        for step in range(1, len(snn.scheme.weights) + 1):
            said = [pipeline.advance(step) for pipeline in pipelines]
            whole = {name: torch.cat([part[name] for part in said]) for name in snn.graph.outputs}
            bounds = [pipeline.bounds(step) for pipeline in pipelines]
            most = {name: torch.cat([part[name] for part in bounds]) for name in snn.graph.outputs}
            yield Moment(step, pipelines[0].latency(step), snn.graph.pack(whole), snn.graph.pack(most))

    return run()


def chunks(snn: Network, x: Tensor) -> tuple[Tensor, ...]:
    """The samples in chunks, T times as large as those of a whole run: a piece has one step."""
    most = snn.chunk or max(ROWS, snn.default_chunk * len(snn.scheme.weights))
    return x.tensor_split(max(1, -(-len(x) // most)))


class Pipeline:
    """Samples on their way through the network.

    Args:
        snn: the network.
        x: samples [N, \\*]; fewer than `ROWS` are filled up with copies, which `advance` leaves out.

    Raises:
        ConversionError: if the scheme does not stream.
    """

    def __init__(self, snn: Network, x: Tensor) -> None:
        refuse(snn)
        self.snn, self.graph, self.samples = snn, snn.graph, len(x)
        self.total, self.entry = len(snn.scheme.weights), snn.scheme.entry
        self.arrived = max(snn.timing.first_spike[name] for name in snn.readouts)
        x = x[torch.arange(max(ROWS, len(x))) % max(len(x), 1)] if len(x) else x
        self.train = snn.encode(snn.scaled(snn.graph.input, x)).spikes
        self.spiking = [op for op in self.graph if op.name in self.graph.spiking]
        self.layers: dict[str, Steps] = {}
        self.products: dict[str, ProductSteps] = {}
        for op in self.spiking:
            if op.fires:
                neuron = snn.neurons[op.name]
                assert isinstance(neuron, SteppingNeuron)
                self.layers[op.name] = neuron.begin(snn.tensors(op), gains=op.gains)
            elif KINDS[op.kind].product:
                self.products[op.name] = ProductSteps(op, snn.scheme)
        self.done = dict.fromkeys(self.graph.spiking, 0)  # steps that each has taken of its inputs, idle ones included
        self.waiting: dict[str, tuple[int, Tensor]] = {}  # results that are still to be read, from which step on
        self.said: dict[str, Tensor] = {}

    def latency(self, step: int) -> int:
        """Steps from the image's arrival until the output's step ``step``."""
        return self.snn.timing.latency - self.total + step

    def simulated(self, name: str, step: int) -> int:
        """How many steps a layer has fired in when the output's step ``step`` comes."""
        return min(self.arrived + step - self.snn.timing.first_spike[name], self.total)

    @torch.no_grad()
    def advance(self, step: int) -> dict[str, Tensor]:
        """Let the clock go on to the output's step ``step``, 1 ... T: decoded outputs by name."""
        for op in self.spiking:
            self._advance(op, self.arrived + step)
            for name in {op.name, *op.inputs}:
                self._forget(name)
        return self._decoded(step)

    def _advance(self, op: Op, clock: int) -> None:
        first, begin = self.snn.timing.first_spike[op.name], self.done[op.name]
        wait = self.snn.timing.waits[op.name] if op.fires else 0
        end = min(max(clock - first + wait, 0), self.total + wait)
        if end == begin:
            return
        self.done[op.name] = end
        if op.kind == "input":
            self._send(op, begin, self.train[begin:end])
            return
        come = slice(min(begin, self.total), min(end, self.total))
        inputs = [self._take(name, come) for name in op.inputs]
        if op.fires:
            spikes = self.layers[op.name](inputs, idle=end - begin - (come.stop - come.start))
            self._send(op, max(begin - wait, 0), spikes)
        elif op.name in self.products:
            self._send(op, begin, self.products[op.name](*inputs))
        else:
            current = self.snn.current(op, *(x.flatten(0, 1) for x in inputs), steps=come)
            self._send(op, begin, current.unflatten(0, (end - begin, -1)))

    def _forget(self, name: str) -> None:
        """Let go of what all readers of a result have read."""
        begin, result = self.waiting.get(name, (self.total, torch.empty(0)))
        readers = [self.done[op.name] for op in self.graph.consumers.get(name, ()) if op.name in self.done]
        read = min([self.total, *readers])
        if read > begin:
            rest = result[read - begin :]
            self.waiting[name] = (read, rest if len(rest) else rest.clone())

    def _take(self, name: str, steps: slice) -> Tensor:
        begin, result = self.waiting[name]
        return result[steps.start - begin : steps.stop - begin]

    def _send(self, op: Op, begin: int, result: Tensor) -> None:
        if op.name in self.snn.readouts:
            if op.name not in self.said:
                self.said[op.name] = result.new_zeros(self.total, *result.shape[1:])
            self.said[op.name][begin : begin + len(result)] = result
        before = self.waiting.get(op.name)
        if before and len(before[1]):
            self.waiting[op.name] = (before[0], torch.cat([before[1], result]))
        else:
            self.waiting[op.name] = (begin, result)

    def _decoded(self, step: int) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {}
        for op in self.graph:
            if op.name in self.snn.readouts:
                value = decode(self.snn.scheme, self.said[op.name][:, : self.samples]) * self.snn.units[op.name]
                come = self._come(op.name, step)
                values[op.name] = value if come == 1 else value / come
            elif op.name not in self.graph.spiking:
                held = {k: t.float() if t.is_floating_point() else t for k, t in self.snn.tensors(op).items()}
                values[op.name] = apply(op, held, *(values[name] for name in op.inputs))
        return {name: values[name] for name in self.graph.outputs}

    def _come(self, name: str, step: int) -> float:
        """The share of a constant that has come: what has come of a value is divided by it."""
        steps = self.simulated(name, step)
        pairs = zip(self.snn.scheme.weights[:steps], self.entry, strict=False)
        return sum(weight * share for weight, share in pairs) if steps < self.total else 1.0

    def bounds(self, step: int) -> dict[str, Tensor]:
        """By how much outputs can still change, by name."""
        scheme, found = self.snn.scheme, {}
        for name in self.graph.outputs:
            if name not in self.snn.readouts:
                found[name] = torch.full((self.samples, *self.graph[name].shape), torch.inf, device=self.snn.device)
                continue
            unit, steps = self.snn.units[name], self.simulated(name, step)
            rest = self._known[name].clone()
            rest[:steps] = 0
            value = decode(scheme, self.said[name][:, : self.samples])
            moved = value + decode(scheme, rest) - value / self._come(name, step) if steps < self.total else 0 * value
            left = sum(scheme.weights[steps:])
            found[name] = (moved.abs() + (self._reach[name] * left if left else 0)) * unit
        return found

    @cached_property
    def _known(self) -> Mapping[str, Tensor]:
        return known(self.snn)

    @cached_property
    def _reach(self) -> Mapping[str, Tensor]:
        return reach(self.snn)

    def keep(self, samples: Tensor) -> None:
        """Go on with these samples alone, by their numbers; the last of them are copies if they are few."""
        count = len(samples)
        if count < ROWS:
            samples = torch.cat([samples, samples[torch.arange(ROWS - count, device=samples.device) % count]])
        self.samples = count
        self.train = kept(self.train, samples, axis=1)
        self.said = {name: kept(said, samples, axis=1) for name, said in self.said.items()}
        self.waiting = {name: (at, kept(x, samples, axis=1)) for name, (at, x) in self.waiting.items()}
        for layer in self.layers.values():
            layer.keep(samples)
        for product in self.products.values():
            product.keep(samples)


def refuse(snn: Network) -> None:
    """Refuse a network that cannot run in pieces of steps.

    Raises:
        ConversionError: with the reason.
    """
    name = type(snn.scheme).__name__
    if not snn.scheme.streams:
        raise ConversionError(f"{name} does not stream: its layers run over all steps at once. Call the network.")
    product = next((op.name for op in snn.graph if KINDS[op.kind].product), None)
    if product and ratio(snn.scheme) is None:
        raise ConversionError(f"{product}: in pieces of steps, products of trains need weights that fall by one ratio")
