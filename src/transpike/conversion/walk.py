"""Carries trains, pieces of trains, or values through a network's graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from transpike.coding.neuron import Neuron
from transpike.coding.scheme import Scheme
from transpike.conversion.course import Course, Plan
from transpike.conversion.graph import Graph
from transpike.conversion.kinds import apply
from transpike.conversion.op import Op
from transpike.conversion.timing import Timing
from transpike.neurons.inflow import Inflow
from transpike.neurons.tsa import Tracked

__all__ = ["Network", "finished", "walk"]


class Network(Protocol):
    """The parts of `transpike.conversion.network.SpikingNetwork` that a run needs."""

    graph: Graph
    scheme: Scheme
    readouts: frozenset[str]
    plan: Plan
    units: dict[str, float]
    timing: Timing
    neurons: dict[str, Neuron]
    chunk: int | None

    @property
    def device(self) -> torch.device:
        """The device of its weights."""

    @property
    def dtype(self) -> torch.dtype:
        """The data type of its weights."""

    @property
    def course(self) -> Course:
        """The graph that trains go through; see `transpike.conversion.course`."""

    def inflow(self, op: Op, others: Sequence[Tensor], *, steps: slice = slice(None)) -> Inflow | None:
        """Return the operation on the current that a layer's kernel computes itself, for all steps or for ``steps``."""

    @property
    def default_chunk(self) -> int:
        """The number of samples simulated at a time."""

    def tensors(self, op: Op) -> dict[str, Tensor]:
        """Return the tensors of one operation, by key."""

    def scaled(self, op: Op, x: Tensor) -> Tensor:
        """Return images in units of the input's theta."""

    def encode(self, x: Tensor) -> Tracked:
        """Return the input's train."""

    def current(self, op: Op, *inputs: Tensor, steps: slice = slice(None)) -> Tensor:
        """Return the result of one operation for all steps, or for ``steps``."""

    def fire(self, op: Op, inputs: Sequence[Tensor], *, final: bool) -> Tracked:
        """Return the spikes of a layer of neurons over all steps."""


def walk(
    snn: Network,
    x: Tensor,
    fire: Callable[..., Tensor],
    current: Callable[..., Tensor],
    decode: Callable[[Op, Tensor], Tensor],
    course: Course | None = None,
) -> dict[str, Tensor]:
    """Carry ``x`` through the graph, and return the decoded values by name.

    Args:
        snn: the network.
        x: images [N, \\*].
        fire: computes the result of the input and of each layer of neurons.
        current: computes the result of each other operation.
        decode: computes the decoded value of an operation from its result.
        course: the graph to walk through. The default is the network's own graph, in which every operation is separate.
    """
    graph, plan = (course.graph, course.plan) if course else (snn.graph, snn.plan)
    currents: dict[str, Tensor] = {}
    values: dict[str, Tensor] = {}
    for op in graph:
        if op.name not in snn.graph.spiking:
            continue
        if op.kind == "input" or op.fires:
            currents[op.name] = fire(op, *(currents[name] for name in op.inputs) if op.inputs else (x,))
        else:
            currents[op.name] = current(op, *(currents[name] for name in op.inputs))
        if op.name in snn.readouts:
            values[op.name] = decode(op, currents[op.name])
        for name in plan.last[op.name]:
            currents.pop(name, None)
    return values


def finished(snn: Network, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the network's outputs by name: run the operations that follow the decoded values, without spikes."""
    values = dict(values)
    for op in snn.graph:
        if op.name not in snn.graph.spiking:
            tensors = {key: t.float() if t.is_floating_point() else t for key, t in snn.tensors(op).items()}
            values[op.name] = apply(op, tensors, *(values[name] for name in op.inputs))
    return {name: values[name] for name in snn.graph.outputs}
