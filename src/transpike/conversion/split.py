"""Splits a linear layer into one for each part of its result that is read separately: queries, keys and values.

Parts of one result are interleaved in memory and share one unit. A layer of neurons on each part would first copy and
scale it. The results of separate layers need neither.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import torch

from transpike.conversion.graph import Graph
from transpike.conversion.op import Op

__all__ = ["split"]


class _Chain(NamedTuple):
    """A linear layer, whose result is reshaped, permuted, and then selected along ``axis`` of the reshaped result."""

    linear: Op
    reshape: Op
    permute: Op
    axis: int
    lead: int  # leading axes of the reshaped result that the linear layer does not mix


def split(graph: Graph) -> Graph:
    """Return ``graph`` with one linear layer for each selection, if all uses of a result are selections.

    The result may be reshaped and permuted before.
    """
    chains = {op.name: chain for op in graph if op.kind == "permute" and (chain := _chain(graph, op))}
    joined = {op.name: graph.consumers[name][0].name for name, chain in chains.items() for op in chain[:3]}
    ops: list[Op] = []
    for op in graph:
        if op.inputs and op.inputs[0] in chains:
            ops += _parts(chains[op.inputs[0]], op)
        elif op.name not in joined:
            ops.append(op)
    return replace(graph, ops=tuple(ops), joined={**graph.joined, **joined}) if chains else graph


def _chain(graph: Graph, permute: Op) -> _Chain | None:
    reshape = graph[permute.inputs[0]]
    linear = graph[reshape.inputs[0]] if reshape.kind == "reshape" else reshape
    if linear.kind != "linear" or not (graph.read_once(reshape.name) and graph.read_once(linear.name)):
        return None
    readers, dims = graph.consumers.get(permute.name, []), permute.args["dims"]
    if permute.name in graph.outputs or any(op.kind != "select" for op in readers):
        return None
    along = {op.args["dim"] % len(dims) for op in readers}
    if len(along) != 1:
        return None
    axis = dims[along.pop()] - 1
    if len({op.args["index"] % reshape.shape[axis] for op in readers}) < len(readers):
        return None
    rows = math.prod(linear.shape[:-1])
    lead = next((k for k in range(axis, -1, -1) if math.prod(reshape.shape[:k]) == rows), None)
    return None if lead is None else _Chain(linear, reshape, permute, axis, lead)


def _parts(chain: _Chain, selection: Op) -> list[Op]:
    """Return the linear layer of one selection, and the moves after it. The last move takes the selection's name."""
    linear, reshape, permute, axis, lead = chain
    shape, index = reshape.shape, selection.args["index"]
    rows = torch.arange(linear.shape[-1]).view(shape[lead:]).select(axis - lead, index).flatten()
    tensors = {key: tensor[rows.to(tensor.device)] for key, tensor in linear.tensors.items()}
    number = index % shape[axis]
    left = (*shape[:axis], *shape[axis + 1 :])
    dims = [dim - (dim > axis + 1) for dim in permute.args["dims"] if dim != axis + 1]
    first, second = f"{linear.name}.{number}", f"{reshape.name}.{number}"
    return [
        replace(linear, name=first, shape=(*linear.shape[:-1], len(rows)), tensors=tensors),
        replace(reshape, name=second, inputs=(first,), shape=left, args={**reshape.args, "shape": list(left)}),
        replace(selection, kind="permute", inputs=(second,), args={"dims": dims}),
    ]
