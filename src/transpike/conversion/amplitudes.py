"""One amplitude for each channel: which axis of a train counts channels, and how the network uses a vector.

The amplitudes of a layer's channels are a vector. It is written into the graph before any scheme is applied: the value
of each neuron is divided by it, and every operation that reads the train multiplies by it. Weights absorb it, in their
rows and columns (quantisation calls this cross-layer equalisation: Nagel et al., "Data-Free Quantization Through Weight
Equalization and Bias Correction", ICCV 2019). Where there are no weights, as on a skip connection, it remains as a
factor of the edge. One amplitude for each layer remains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from transpike.coding.function import Constant, Function, Operand
from transpike.conversion.fold import fold
from transpike.conversion.graph import Graph
from transpike.conversion.kinds import KINDS, PADDING, RELATIVE, reads, resampled
from transpike.conversion.op import Op
from transpike.conversion.sizes import at

__all__ = ["channel_axes", "with_relative"]


# -- which axis counts channels ---------------------------------------------------------------------------------------


def channel_axes(graph: Graph) -> dict[str, int]:
    """Return which axis of one sample counts channels, for the input and each layer of neurons.

    A layer is included if only spiking operations read its train. The axis is the one over which these operations take
    weighted sums: the channels of a convolution, or the last axis of a linear layer or of a product of two activations.
    """
    other = _larger(graph)
    decoded = {name for op in graph if op.name not in graph.spiking for name in op.inputs} | set(graph.outputs)
    axes: dict[str, int] = {}
    for op in [graph.input, *graph.neurons]:
        if op.name in graph.spiking and op.name not in decoded and op.shape:
            axis = _read(graph, op)
            axis = len(op.shape) - 1 if axis is None else axis
            if other[op.name].shape[axis] == op.shape[axis]:  # otherwise the axis counts places, not channels
                axes[op.name] = axis
    return axes


def _larger(graph: Graph) -> Graph:
    """Return ``graph`` for larger images, if it can have another size."""
    shape = graph.input.shape
    first = min(1, len(shape) - 1)
    return at(graph, [*shape[:first], *(n + 32 for n in shape[first:])]) if graph.step else graph


def _read(graph: Graph, source: Op) -> int | None:
    """Return the channel axis of ``source`` by the first operation that reads it, or None if none determines it."""
    for op in graph.consumers.get(source.name, ()):
        if op.fires or op.name not in graph.spiking:
            continue
        axis = _own(op, source) if reads(op) else _before(op, source, _read(graph, op))
        if axis is not None:
            return axis
    return None


def _own(op: Op, source: Op) -> int | None:
    """Return the axis over which a reading operation sums. None for a contraction that sums over none."""
    if op.kind == "convolution":
        return len(source.shape) + 1 - op.tensors["weight"].ndim
    if op.kind == "contraction":
        left, weights = op.args["equation"].partition("->")[0].split(",")
        return next((k for k, letter in enumerate(left[1:]) if letter in weights), None)
    return len(source.shape) - 1


def _before(op: Op, source: Op, axis: int | None) -> int | None:
    """Return the axis before an unweighted operation that becomes ``axis`` after it."""
    if axis is None or op.kind in ("gather", "stack", "select"):
        return None
    if op.kind == "permute":
        return int(op.args["dims"][axis + 1]) - 1
    if op.kind in ("mean", "sum") and not op.args["keepdim"]:
        left = [k for k in range(len(source.shape)) if k + 1 not in _axes(op, source)]
        return left[axis]
    if op.kind == "reshape":
        ahead = math.prod(op.shape[:axis])
        return next((k for k, n in enumerate(source.shape) if n > 1 and math.prod(source.shape[:k]) >= ahead), None)
    return axis if len(op.shape) == len(source.shape) else None


def _axes(op: Op, source: Op) -> set[int]:
    """Return the axes over which a mean or a sum is taken; axis 0 is that of the samples."""
    return {axis % (len(source.shape) + 1) for axis in op.args["dim"]}


# -- vectors in the graph ---------------------------------------------------------------------------------------------


def with_relative(graph: Graph, vectors: Mapping[str, Tensor]) -> Graph:
    """Return ``graph`` with the values of layers divided by a vector, and with readers that multiply by it.

    Args:
        graph: a network with its layers of neurons.
        vectors: by the name of a layer or of the input: positive numbers that broadcast against one sample.
    """
    vectors = {name: vector for name, vector in vectors.items() if bool((vector != 1).any())}
    if not vectors:
        return graph
    ops = _Ops(graph)
    carried: dict[str, Tensor] = {}
    for op in graph:
        inputs = [carried.get(name) for name in op.inputs]
        if any(vector is not None for vector in inputs):
            op, vector = _read_by(op, inputs, ops)
            carried |= {} if vector is None else {op.name: vector}
        if op.name in vectors:
            carried[op.name] = vectors[op.name].to(ops.like)
            op = _saying(op, carried[op.name], ops)
        ops.made[op.name] = op
    folded = fold(replace(graph, ops=tuple(ops.made.values())))
    return replace(folded, joined={name: whole for name, whole in folded.joined.items() if name not in ops.edges})


class _Ops:
    """The new operations so far, and the factors on their edges."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.made: dict[str, Op] = {}
        self.edges: set[str] = set()
        self.like = next(t for op in graph for t in op.tensors.values() if t.is_floating_point())

    def times(self, source: str, reader: str, factor: Tensor) -> str:
        """Return the name of a new operation, ``source`` times ``factor``, before sums that nothing else reads."""
        op = self.made[source]
        once = source in self.edges or self.graph.read_once(source)
        if op.kind == "affine" and once:
            self.made[source] = replace(op, tensors={"scale": factor} | {k: t * factor for k, t in op.tensors.items()})
            return source
        if op.kind == "add" and once and all(self._fits(factor, self.made[name].shape) for name in op.inputs):
            del self.made[source]  # its only reader follows
            inputs = tuple(self.times(name, f"{source}.{k}", factor) for k, name in enumerate(op.inputs))
            self.made[source] = replace(op, inputs=inputs)
            return source
        name = f"{reader}.amplitude"
        self.made[name] = Op(name, "affine", (source,), op.shape, tensors={"scale": factor})
        self.edges.add(name)
        return name

    @staticmethod
    def _fits(factor: Tensor, shape: tuple[int, ...]) -> bool:
        return factor.ndim == len(shape) and all(n in (1, m) for n, m in zip(factor.shape, shape, strict=True))


def _saying(op: Op, vector: Tensor, ops: _Ops) -> Op:
    """Return a layer whose value is divided by ``vector``; if equivalent, its operand is divided instead."""
    tensors = {**op.tensors, RELATIVE: vector}
    if op.kind == "input":
        return replace(op, tensors=tensors)
    if _channelwise(op, vector, ops):
        return replace(op, inputs=(ops.times(op.inputs[0], op.name, 1 / vector),), tensors=tensors)
    function = op.function.then(Function.of("div.Tensor", Operand(0), Constant(RELATIVE)))
    return replace(op, function=function, tensors=tensors)


def _channelwise(op: Op, vector: Tensor, ops: _Ops) -> bool:
    """Whether dividing the operand by the vector equals dividing the function's value by it."""
    function, tail = op.function, op.function.tail
    shape = ops.made[op.inputs[0]].shape
    if not function.tracked or math.isfinite(tail.low) or math.isfinite(tail.high) or len(shape) != len(op.shape):
        return False
    if any(n not in (1, m) for n, m in zip(vector.shape, shape, strict=True)):
        return False
    probe = torch.arange(1.0, vector.numel() + 1, device=vector.device).view_as(vector).to(vector)
    outputs = function(probe.expand(1, *shape), constants=op.tensors)
    return torch.equal(outputs, probe.expand(1, *op.shape))


def _read_by(op: Op, vectors: list[Tensor | None], ops: _Ops) -> tuple[Op, Tensor | None]:
    """Return ``op`` for operands that are divided by ``vectors``, and the vector by which its result is divided."""
    if len(vectors) == 1 and vectors[0] is not None:
        weighted_op = _weighed(op, vectors[0]) if reads(op) else None
        if weighted_op is not None:
            return weighted_op, None
        decoded = op.name in ops.graph.readouts  # in the units of the network
        moved = None if decoded else _moved(op, vectors[0], ops.made[op.inputs[0]])
        if moved is not None:
            return op, moved
    edges = enumerate(zip(op.inputs, vectors, strict=True))
    inputs = (name if vector is None else ops.times(name, f"{op.name}.{k}", vector) for k, (name, vector) in edges)
    return replace(op, inputs=tuple(inputs)), None


def _weighed(op: Op, vector: Tensor) -> Op | None:
    """Return a weighted operation whose weights' columns are multiplied by the vector, or None if this is not possible.

    It is possible if the vector has one number for each column.
    """
    weight = op.tensors.get("weight")
    if weight is None:
        return None
    axes = [k for k, n in enumerate(vector.shape) if n > 1]
    if op.kind == "contraction":
        left, letters = op.args["equation"].partition("->")[0].split(",")
        if any(left[1 + axis] not in letters for axis in axes):
            return None
        order = sorted(axes, key=lambda axis: letters.index(left[1 + axis]))
        columns = vector.permute(*order, *(k for k in range(vector.ndim) if k not in axes)).reshape(
            [vector.shape[axis] for axis in order]
        )
        at = {letters.index(left[1 + axis]): vector.shape[axis] for axis in order}
        factor = columns.reshape([at.get(k, 1) for k in range(weight.ndim)])
    else:
        channel = vector.ndim - (1 if op.kind == "linear" else weight.ndim - 1)
        if axes != [channel]:
            return None
        factor, trailing = vector.flatten(), (1,) * (weight.ndim - 2)
        if op.args.get("transposed"):
            factor = factor.view(-1, 1, *trailing)
        elif op.args.get("groups", 1) > 1:
            rows = factor.view(op.args["groups"], -1).repeat_interleave(len(weight) // op.args["groups"], 0)
            factor = rows.view(len(weight), -1, *trailing)
        else:
            factor = factor.view(1, -1, *trailing)
    return replace(op, tensors={**op.tensors, "weight": (weight.double() * factor.to(weight.device)).to(weight.dtype)})


def _moved(op: Op, vector: Tensor, source: Op) -> Tensor | None:
    """Return the vector after an unweighted operation of one operand, if it only moves along with the values."""
    single = [n == 1 for n in vector.shape]
    if op.kind == "resample":
        operator = op.args["operator"]
        over = len(op.args["args"][0]) // 2 if operator in PADDING else resampled(op)
        return vector if all(single[len(single) - over :]) else None
    if op.kind in ("mean", "sum"):
        summed = {axis - 1 for axis in _axes(op, source)}
        if not all(single[axis] for axis in summed):
            return None
        left = [n for axis, n in enumerate(vector.shape) if op.args["keepdim"] or axis not in summed]
        return vector.reshape(left)
    if op.kind in ("slice", "select", "reshape", "permute", "gather"):
        full = KINDS[op.kind].run(op, op.tensors, vector.expand(1, *source.shape))[0]
        return _compressed(torch.where(full == 0, 1, full))
    return None


def _compressed(vector: Tensor) -> Tensor:
    """Return the vector without the axes along which it does not vary."""
    for axis in range(vector.ndim):
        first = vector.narrow(axis, 0, 1)
        if bool((vector == first).all()):
            vector = first
    return vector
