"""Say where neurons stand, and what the function of each is.

- A function before the last weighted layer is a layer of neurons. With a maximum over windows directly before or after
  it, both are one: the neuron tracks the function of the largest accumulated input in each window.
- A weighted layer that feeds another without a function between them (MobileNet's linear bottleneck) gets an identity
  neuron, so that only spikes travel. Average pooling before a weighted layer is part of one composite synapse.
"""

from __future__ import annotations

from dataclasses import replace

from transpike.coding.function import Function
from transpike.conversion.graph import Graph
from transpike.conversion.kinds import weighted
from transpike.conversion.op import Op

__all__ = ["place"]


def place(graph: Graph) -> Graph:
    """``graph`` with a layer of neurons wherever spikes are made."""
    return _identities(_functions(graph))


def _functions(graph: Graph) -> Graph:
    ops = graph.by_name.copy()
    joined: dict[str, str] = {}
    for op in graph:
        if op.kind != "call" or op.name not in graph.spiking:
            continue
        source = ops.get(op.inputs[0])
        function = _joined(source, op) if source and source.fires and graph.read_once(source.name) else None
        if source is None or function is None:
            ops[op.name] = replace(op, fires=True)
            continue
        tensors = {**source.tensors, **op.tensors}
        ops[op.name] = replace(op, fires=True, function=function, tensors=tensors, inputs=source.inputs)
        joined[source.name] = op.name
        del ops[source.name]
    return replace(graph, ops=tuple(ops.values()), joined={**graph.joined, **joined})


def _joined(first: Op, second: Op) -> Function | None:
    """One function for a function and a maximum over windows, in either order, or None.

    The two commute where the function never falls; then the maximum is taken first.
    """
    function, pool = (first, second) if _is_pool(second.function) else (second, first)
    if not _is_pool(pool.function) or function.function.pools or not _never_falls(function):
        return None
    return pool.function.then(function.function)


def _is_pool(function: Function) -> bool:
    return function.pools and len(function.calls) == 1


def _never_falls(op: Op) -> bool:
    """Whether a piecewise linear function has no negative slope."""
    slopes = [tensor for tensor in op.tensors.values() if (tensor < 0).any()]
    return op.function.tracked and op.function.tail.slope >= 0 and not slopes


def _identities(graph: Graph) -> Graph:
    """An identity neuron on every value that passed a weighted layer and enters another."""
    passed: set[str] = set()
    crossing: set[str] = set()
    for op in graph:
        if weighted(op) or (not op.fires and passed.intersection(op.inputs)):
            passed.add(op.name)
        if weighted(op):
            crossing |= passed.intersection(op.inputs)
    names = {name: f"{name}.identity" for name in crossing}
    ops: list[Op] = []
    for op in graph:
        ops.append(replace(op, inputs=tuple(names.get(name, name) for name in op.inputs)))
        if op.name in names:
            ops.append(Op(names[op.name], "call", (op.name,), op.shape, fires=True))
    return replace(graph, ops=tuple(ops), outputs=tuple(names.get(name, name) for name in graph.outputs))
