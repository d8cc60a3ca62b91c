"""How anything is carried through a network's graph: trains, pieces of them, or values."""

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
    """What is run: see `transpike.conversion.network.SpikingNetwork`."""

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
        """Where it is."""

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights."""

    @property
    def course(self) -> Course:
        """What trains go through."""

    def inflow(self, op: Op, others: Sequence[Tensor], *, steps: slice = slice(None)) -> Inflow | None:
        """What the kernel of a layer of the course does to its current, on all steps or on these."""

    @property
    def default_chunk(self) -> int:
        """Samples of a whole run at a time."""

    def tensors(self, op: Op) -> dict[str, Tensor]:
        """Of one operation."""

    def scaled(self, op: Op, x: Tensor) -> Tensor:
        """Images in units of the input's theta."""

    def encode(self, x: Tensor) -> Tracked:
        """The input's train."""

    def current(self, op: Op, *inputs: Tensor, steps: slice = slice(None)) -> Tensor:
        """One operation on all steps, or on these."""

    def fire(self, op: Op, inputs: Sequence[Tensor], *, final: bool) -> Tracked:
        """The spikes of a layer of neurons over all steps."""


def walk(
    snn: Network,
    x: Tensor,
    fire: Callable[..., Tensor],
    current: Callable[..., Tensor],
    decode: Callable[[Op, Tensor], Tensor],
    course: Course | None = None,
) -> dict[str, Tensor]:
    """Carry ``x`` through the graph: ``fire`` at the input and at neurons, decoded values at the end.

    Without a ``course`` every operation is one of its own.
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
    """The outputs, from the decoded values: what is done to these needs no spikes."""
    values = dict(values)
    for op in snn.graph:
        if op.name not in snn.graph.spiking:
            held = {key: t.float() if t.is_floating_point() else t for key, t in snn.tensors(op).items()}
            values[op.name] = apply(op, held, *(values[name] for name in op.inputs))
    return {name: values[name] for name in snn.graph.outputs}
