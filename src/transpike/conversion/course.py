"""The graph that a run goes through: the network's graph without the operations that a layer's kernel does itself.

A bias, a skip connection with its factors, and one amplitude for each channel would each cost a pass over all steps. A
kernel does them as it reads the current; see `transpike.neurons.inflow.Inflow`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from transpike.coding.neuron import FedNeuron, Neuron
from transpike.conversion.graph import Graph
from transpike.conversion.kinds import KINDS
from transpike.conversion.op import Op
from transpike.neurons.inflow import Inflow

__all__ = ["Course", "Joint", "Plan", "course", "plan"]

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Plan:
    """Facts about a run that do not depend on the images.

    Attributes:
        last: for each operation, by name, the results that no later operation reads.
        own: the operations whose result has exactly one reader and shares memory with nothing else. The reader may
            overwrite it.
    """

    last: Mapping[str, Sequence[str]]
    own: Set[str]


def plan(graph: Graph) -> Plan:
    """Return the plan of a run through a graph."""
    final = {name: ops[-1].name for name, ops in graph.consumers.items()}
    last = {op.name: [name for name in set(op.inputs) if final[name] == op.name] for op in graph}
    own: set[str] = set()
    for op in graph:
        fresh = KINDS[op.kind].fresh or op.gains[:1] not in ((), (1.0,))
        if not op.fires and (fresh or own.issuperset(op.inputs)) and len(graph.consumers.get(op.name, ())) == 1:
            own |= {op.name} if op.inputs else set()
    return Plan(last, own)


@dataclass(frozen=True)
class Joint:
    """The operations of the graph that a layer's kernel does itself, before the neurons.

    Attributes:
        scale: the affine operation on the first current. None if there is none.
        shifts: the operations whose constants are added, with the gain of each.
        gain: the gain of the second current, if the layer has one.
        factor: the affine operation on the second current. None if there is none.
    """

    scale: Op | None = None
    shifts: tuple[tuple[Op, float], ...] = ()
    gain: float = 1.0
    factor: Op | None = None

    def inflow(self, tensors: Mapping[str, Tensors], others: Sequence[Tensor], shares: Sequence[float]) -> Inflow:
        """Return the same as tensors.

        Args:
            tensors: the tensors of the operations, by name.
            others: the second current [T, N, \\*], or nothing.
            shares: factors of the constants, one for each step.
        """
        scale = tensors[self.scale.name].get("scale") if self.scale else None
        shift: Tensor | None = None
        for op, gain in self.shifts:
            constant = tensors[op.name][str(KINDS[op.kind].constant)]
            if op.kind == "convolution":
                constant = constant.view(-1, *(1,) * (op.tensors["weight"].ndim - 2))
            constant = constant if gain == 1 else constant * gain
            shift = constant if shift is None else shift + constant
        factor = tensors[self.factor.name]["scale"] if self.factor else None
        if self.gain != 1 and others:
            factor = torch.full((), self.gain, device=others[0].device) if factor is None else factor * self.gain
        other = others[0] if others else None
        return Inflow(scale, shift, shares if shift is not None else (), other, factor)

    @property
    def ops(self) -> list[Op]:
        """The operations whose tensors the kernel reads."""
        return [op for op in (self.scale, *(op for op, _ in self.shifts), self.factor) if op]


@dataclass(frozen=True)
class Course:
    """The graph that a run goes through.

    Attributes:
        graph: the remaining operations, without the constants that joints add. A layer of neurons with a joint reads
            one or two currents.
        plan: the plan of this graph.
        joints: the joint of each layer of neurons that has one, by name.
    """

    graph: Graph
    plan: Plan
    joints: Mapping[str, Joint]


def course(graph: Graph, neurons: Mapping[str, Neuron], *, bare: bool) -> Course:
    """Return the course of a graph. With ``bare``, kernels also add the biases of weighted layers.

    On a GPU, a convolution's bias costs a separate pass over memory. On a CPU, the convolution adds it at no cost.
    """
    joints: dict[str, Joint] = {}
    changed: dict[str, Op] = {}
    gone: set[str] = set()
    for op in graph.neurons:
        if op.name in graph.spiking and len(op.inputs) == 1 and isinstance(neurons[op.name], FedNeuron):
            found = _Joining(graph, bare)
            found.join(op)
            if found.gone or found.bare:
                joints[op.name], changed[op.name] = found.joint, replace(op, inputs=found.inputs)
                gone |= found.gone
                changed |= {part.name: part for part in found.bare}
    rest = replace(graph, ops=tuple(changed.get(op.name, op) for op in graph if op.name not in gone))
    return Course(rest, plan(rest), joints)


class _Joining:
    """Finds the operations before one layer of neurons that its kernel can do itself.

    Attributes:
        joint: the operations found.
        inputs: the currents that the layer then reads.
        gone: the operations that leave the graph.
        bare: weighted operations that stay in the graph, without their bias.
    """

    def __init__(self, graph: Graph, bare: bool) -> None:
        self._graph, self._bare = graph, bare
        self.joint, self.inputs = Joint(), tuple[str, ...]()
        self.gone: set[str] = set()
        self.bare: list[Op] = []

    def join(self, neuron: Op) -> None:
        first, gain, others = self._alone(neuron.inputs[0]), 1.0, tuple[str, ...]()
        self.inputs = neuron.inputs
        if first is not None and first.kind == "add" and (pair := self._pair(first)):
            first, second, gain = self._alone(pair[0]), pair[1], pair[2]
            self.gone.add(neuron.inputs[0])
            self.inputs, others = pair[:1], (second,)
        self._take(first)
        if others:
            self.joint = replace(self.joint, gain=gain)
            other = self._alone(others[0])
            if other is not None and other.kind == "affine" and not other.gains and list(other.tensors) == ["scale"]:
                self.joint = replace(self.joint, factor=other)
                self.gone.add(other.name)
                others = other.inputs
            elif other is not None:
                self._leave_out(other, gain)
        self.inputs = (self.inputs[0], *others)

    def _take(self, first: Op | None) -> None:
        """Join the affine operation on the first current, or else the bias of that current."""
        if first is None:
            return
        if first.kind == "affine" and not first.gains and self._graph[first.inputs[0]].shape == first.shape:
            shifts = ((first, 1.0),) if "shift" in first.tensors else ()
            self.joint = replace(self.joint, scale=first, shifts=shifts)
            self.gone.add(first.name)
            self.inputs = first.inputs
        else:
            self._leave_out(first, 1.0)

    def _leave_out(self, op: Op, gain: float) -> None:
        constant = KINDS[op.kind].constant
        if self._bare and KINDS[op.kind].weighted and not op.gains and constant in op.tensors:
            self.joint = replace(self.joint, shifts=(*self.joint.shifts, (op, gain)))
            self.bare.append(replace(op, tensors={key: t for key, t in op.tensors.items() if key != constant}))

    def _pair(self, add: Op) -> tuple[str, str, float] | None:
        """Return both currents of an addition, if possible an owned one first, and the gain of the second."""
        (a, b), (first, second) = add.inputs, add.gains or (1.0, 1.0)
        if a == b or any(self._graph[name].shape != add.shape for name in (a, b)):
            return None
        if second == 1 and self._owned(b) and not self._owned(a):
            return b, a, first
        return (a, b, second) if first == 1 else None

    def _owned(self, name: str) -> bool:
        return self._alone(name) is not None and KINDS[self._graph[name].kind].fresh

    def _alone(self, name: str) -> Op | None:
        """Return the operation if it does not fire and its result has one reader and is not decoded, or None."""
        op = self._graph[name]
        once = self._graph.read_once(name) and name not in self._graph.readouts
        return op if once and not op.fires and op.kind != "input" else None
