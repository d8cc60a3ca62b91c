"""Decides where neurons stand, and the function of each.

- A weighted layer, or a product of two activations, reads trains. From each of its operands the search goes back
through linear operations without weights. If it reaches a function, this function becomes a layer of neurons; averages
on the way become part of one composite synapse. If it reaches a weighted layer or a product, an identity neuron is
placed on the operand.
- All other functions become part of the function of a later layer of neurons. Such a composition reaches back to
currents and trains, but never past another layer of neurons. A function that two compositions would contain becomes a
layer of its own.
- Averages stay outside of compositions, so their input is a train. There is one exception: an average whose result
meets its own input again inside the same composition, as in a norm or a softmax.

These are the ``needed`` neurons. With ``operators`` every function of the model is a layer of its own, for hardware
whose neurons compute one operator each. With ``blocks`` there is also an identity neuron after every sum of a residual
stream.
"""

from __future__ import annotations

import functools
import heapq
import operator
from collections import defaultdict
from collections.abc import Mapping, Set
from dataclasses import replace

from torch import Tensor

from transpike.coding.function import Argument, Call, Constant, Function, Operand, Result
from transpike.coding.operators import BOOLEAN, PIECEWISE, POOLS
from transpike.conversion.graph import Graph
from transpike.conversion.kinds import KINDS, averages, reads
from transpike.conversion.op import Op
from transpike.results import Spikes

__all__ = ["place"]

_TRAIN = ""  # among the readers of a value, stands for those that accept only trains


def place(graph: Graph, spikes: Spikes = "needed") -> Graph:
    """Return ``graph`` with a layer of neurons at every place that makes spikes."""
    single = spikes == "operators"
    points = _points(graph, single=single)
    placed = replace(_composed(graph, points, _inner(graph, points, single=single)), spikes=spikes)
    return _identities(placed, _streams(placed) if spikes == "blocks" else set())


def _points(graph: Graph, *, single: bool) -> set[str]:
    """Return the functions whose values are trains, from the last to the first operation; with ``single``, all."""
    points: set[str] = set()
    roots = _roots(graph) if any(map(averages, graph)) else {}
    readers: dict[str, set[str]] = defaultdict(set)
    for name in [*graph.outputs, *(name for op in graph if op.name not in graph.spiking for name in op.inputs)]:
        readers[name].add(_TRAIN)  # decoded values
    for op in reversed(graph.ops):
        if op.name not in graph.spiking:
            continue
        needed = set(heapq.nsmallest(3, readers[op.name]))  # trains sort first; a third function would not matter
        if reads(op):
            needed = {_TRAIN}
        elif op.kind == "call":
            if (single or _TRAIN in needed or len(needed) > 1) and not _is_boolean(op):
                points.add(op.name)
                needed = {op.name}
        elif averages(op) and needed - {_TRAIN} and not _meets(graph, op, points, roots):
            needed = {_TRAIN}
        for name in op.inputs:
            readers[name] |= needed
    return points


def _is_boolean(op: Op) -> bool:
    return bool(op.function.calls) and op.function.calls[-1].operator in BOOLEAN


def _meets(graph: Graph, average: Op, points: Set[str], roots: Mapping[str, int]) -> bool:
    """Whether an average meets another value with the same source again inside one composition."""
    if average.kind == "resample":
        return False
    order, (source,) = graph.order, average.inputs
    behind, waiting = {average.name}, [order[op.name] for op in graph.consumers[average.name]]
    heapq.heapify(waiting)
    while waiting:  # in the graph's order, so that all inputs that depend on the average are known
        op = graph.ops[heapq.heappop(waiting)]
        if op.name in behind or op.name not in graph.spiking or reads(op):
            continue
        if any(roots[name] & roots[source] for name in op.inputs if name not in behind):
            return True
        behind.add(op.name)
        for reader in graph.consumers.get(op.name, ()) if op.name not in points else ():
            heapq.heappush(waiting, order[reader.name])
    return False


def _roots(graph: Graph) -> dict[str, int]:
    """Return the weighted layers and products from which each value is made without another between, as bits."""
    roots: dict[str, int] = {}
    free = 1
    for op in graph:
        if reads(op) or not op.inputs:
            roots[op.name], free = free, free << 1
        else:
            roots[op.name] = functools.reduce(operator.or_, (roots[name] for name in op.inputs))
    return roots


def _inner(graph: Graph, points: Set[str], *, single: bool) -> set[str]:
    """Return the operations inside compositions: functions that are not neurons, and linear operations after them.

    Constants on a product (a mask, a bias of attention) on its way to a function belong to them too. With ``single``,
    only masks do, because no current can represent a mask.
    """
    inner: set[str] = set()
    products: set[str] = set()
    for op in graph:
        if op.name not in graph.spiking or reads(op) or op.kind == "input":
            products |= {op.name} if KINDS[op.kind].product and not single else set()
            continue
        if op.kind == "call":
            inner |= {op.name} - points
        elif inner.intersection(op.inputs) or (op.kind == "affine" and _is_mask(op, products)):
            inner.add(op.name)
        elif len(op.inputs) == 1 and op.inputs[0] in products:
            products.add(op.name)
    return inner


def _is_mask(op: Op, products: Set[str]) -> bool:
    shift = op.tensors.get("shift")
    return shift is not None and (op.inputs[0] in products or not bool(shift.isfinite().all()))


def _composed(graph: Graph, points: Set[str], inner: Set[str]) -> Graph:
    """Return ``graph`` with each composition as one operation. Constants on a product stay if a current needs them."""
    joined: dict[str, str] = {}
    ops: dict[str, Op] = {}
    for op in graph:
        if op.name in points:
            region, waiting = {op.name}, [op.name]
            while waiting:
                sources = [n for n in graph[waiting.pop()].inputs if n in inner and n not in region]
                region.update(sources)
                waiting += sources
            ops[op.name] = _neuron([graph[name] for name in sorted(region, key=graph.order.__getitem__)])
            joined |= dict.fromkeys(region - {op.name}, op.name)
        elif op.kind != "call" or op.name not in graph.spiking:
            ops[op.name] = op
    needed = set(graph.outputs)
    for op in reversed(ops.values()):
        needed |= set(op.inputs) if op.name in needed else set()
    joined = {name: whole for name, whole in joined.items() if name not in needed}
    left = tuple(op for op in ops.values() if op.name in needed or op.kind == "input")
    return replace(graph, ops=left, joined={**graph.joined, **joined})


def _neuron(parts: list[Op]) -> Op:
    """Return one layer of neurons for the operations of a composition. The last operation gives its value."""
    inputs: dict[str, Argument] = {}
    places: dict[str, Argument] = {}
    tensors: dict[str, Tensor] = {}
    calls: list[Call] = []
    within = {op.name for op in parts}
    for name in (name for op in parts for name in op.inputs if name not in within):
        inputs.setdefault(name, Operand(len(inputs)))
    for op in parts:
        names = {key: key if key not in tensors else f"{key}{len(tensors)}" for key in op.tensors}
        tensors |= {names[key]: tensor for key, tensor in op.tensors.items()}
        written = KINDS[op.kind].calls
        assert written is not None
        operands = [places[name] if name in places else inputs[name] for name in op.inputs]
        calls += written(op).placed(operands, after=len(calls), constants=names)
        places[op.name] = Result(len(calls) - 1) if written(op).calls else operands[0]
    function = Function(_pools_first(tuple(calls), tensors), operands=len(inputs))
    return replace(parts[-1], kind="call", inputs=tuple(inputs), function=function, tensors=tensors, fires=True)


def _pools_first(calls: tuple[Call, ...], tensors: Mapping[str, Tensor]) -> tuple[Call, ...]:
    """Move each maximum over windows in a chain of calls before functions that never fall, with which it commutes.

    Then a kernel can compute the rest of the chain by itself.
    """
    chain = list(calls)
    places = [*(Result(k) for k in range(len(chain) - 1))]
    if any(call.args[:1] != (place,) for call, place in zip(chain[1:], places, strict=True)):
        return calls
    rest = [argument for call in chain for argument in call.args[1:]]
    if any(isinstance(argument, (Operand, Result)) for argument in rest):
        return calls
    for _ in chain:
        for k in range(len(chain) - 1):
            first, second = chain[k : k + 2]
            if second.operator in POOLS and first.operator not in POOLS and _never_falls(first, tensors):
                chain[k : k + 2] = [second, first]
    ordered: list[Argument] = [calls[0].args[0] if calls else Operand(0), *places]
    return tuple(replace(call, args=(place, *call.args[1:])) for call, place in zip(chain, ordered, strict=True))


def _never_falls(call: Call, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a piecewise linear function has no negative slope."""
    match call.operator, call.args[1:]:
        case "leaky_relu.default", (int() | float() as slope, *_):
            return slope >= 0
        case "_prelu_kernel.default", (Constant(name),):
            return not bool((tensors[name] < 0).any())
    return call.operator in PIECEWISE


def _streams(graph: Graph) -> set[str]:
    """Return the sums that continue as currents both into a later sum and into something else."""
    ahead: dict[str, set[bool]] = defaultdict(set)  # for what a value reaches as a current: whether it is a sum
    for op in reversed(graph.ops):
        ends = op.kind == "add" or op.fires or reads(op)
        for name in op.inputs:
            ahead[name] |= {op.kind == "add"} if ends else ahead[op.name]
    return {op.name for op in graph if op.kind == "add" and op.name in graph.spiking and len(ahead[op.name]) > 1}


def _identities(graph: Graph, streams: Set[str]) -> Graph:
    """Add an identity neuron on every value that passed a weighted layer or a product and enters another.

    Do the same on ``streams``.
    """
    passed: set[str] = set()
    crossing = set(streams)
    for op in graph:
        if reads(op) or (not op.fires and passed.intersection(op.inputs)):
            passed.add(op.name)
        if reads(op):  # a kernel computed from a train stays a current; its estimate is multiplied unchanged
            bare = op.args.get("bare", ())
            crossing |= passed.intersection(name for k, name in enumerate(op.inputs) if k not in bare)
    names = {name: f"{name}.identity" for name in crossing}
    ops: list[Op] = []
    for op in graph:
        ops.append(replace(op, inputs=tuple(names.get(name, name) for name in op.inputs)))
        if op.name in names:
            ops.append(Op(names[op.name], "call", (op.name,), op.shape, fires=True))
    return replace(graph, ops=tuple(ops), outputs=tuple(names.get(name, name) for name in graph.outputs))
