"""Prepare a traced graph: fold normalisation into weights, and say where neurons stand.

- An affine step (BatchNorm, a constant factor or term) behind a weighted layer that nothing else reads joins its
  weights.
- An activation before the last weighted layer is a neuron. With a maximum pool directly before or after it, both are
  one
  neuron: it tracks the function of the largest accumulated input in each window.
- A weighted layer that feeds another without an activation between them (MobileNet's linear bottleneck) gets an
  identity neuron, so that only spikes travel. Average pooling before a weighted layer is part of one composite synapse.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from transpike.conversion.graph import Graph, Op

__all__ = ["fold"]


def fold(graph: Graph) -> Graph:
    """``graph`` with affine steps in the weights and a neuron wherever spikes are made."""
    return _identities(_neurons(_affines(graph)))


def _affines(graph: Graph) -> Graph:
    ops, outputs = graph.by_name, graph.outputs
    for name in list(ops):
        op = ops[name]
        if op.target != "affine":
            continue
        source = ops[op.inputs[0]]
        shared = sum(op.inputs.count(source.name) for op in ops.values()) > 1 or source.name in outputs
        joined = None if shared else _into(source, op)
        if joined:  # the pair keeps the name of its first
            ops[source.name] = joined
            ops = _bypass(ops, name, source.name)
            outputs = tuple(source.name if n == name else n for n in outputs)
    return replace(graph, ops=tuple(ops.values()), outputs=outputs)


def _into(source: Op, affine: Op) -> Op | None:
    """``source`` followed by ``affine`` as one operation, where that is possible."""
    scale, shift = affine.tensors.get("scale"), affine.tensors.get("shift")
    tensors = dict(source.tensors)
    if source.target == "affine":
        if scale is not None:
            tensors = {key: value * scale for key, value in tensors.items()}
            tensors.setdefault("scale", scale)
        if shift is not None:
            tensors["shift"] = tensors["shift"] + shift if "shift" in tensors else shift
        return replace(source, tensors=tensors)
    if not source.weighted:
        return None
    weight = tensors["weight"]
    scale = _per_channel(weight.new_ones(()) if scale is None else scale, source)
    shift = _per_channel(weight.new_zeros(()) if shift is None else shift, source)
    if scale is None or shift is None:
        return None
    if source.args.get("transposed"):  # [in, out / groups, ...]
        groups = source.args["groups"]
        parts = weight.unflatten(0, (groups, -1)) * scale.view(groups, 1, -1, *(1,) * (weight.ndim - 2))
        tensors["weight"] = parts.flatten(0, 1)
    else:
        tensors["weight"] = weight * scale.view(-1, *(1,) * (weight.ndim - 1))
    tensors["bias"] = tensors.get("bias", torch.zeros_like(scale)) * scale + shift
    return replace(source, tensors=tensors)


def _per_channel(tensor: Tensor, source: Op) -> Tensor | None:
    """``tensor`` (broadcast against one sample) as one number a channel; None where it varies inside a channel."""
    channel = 0 if source.target == "convolution" else len(source.shape) - 1
    full = tensor.to(source.tensors["weight"]).expand(*(1,) * (len(source.shape) - tensor.ndim), *tensor.shape)
    if any(n > 1 for k, n in enumerate(full.shape) if k != channel):
        return None
    return full.reshape(-1).expand(source.shape[channel])


def _neurons(graph: Graph) -> Graph:
    spiking = graph.spiking()
    ops = graph.by_name
    for op in graph:
        if op.target == "activation" and op.name in spiking:
            source = ops[op.inputs[0]]
            readers = Graph(tuple(ops.values()), graph.outputs).consumers()[source.name]
            alone = len(readers) == 1 and source.name not in graph.outputs
            args = _joined(source, op) if source.target == "neuron" and alone else None
            if args is None:
                ops[op.name] = replace(op, target="neuron")
            else:
                function = source if op.args["pool"] else op
                ops[op.name] = replace(op, target="neuron", args=args, tensors=function.tensors, inputs=source.inputs)
                del ops[source.name]
    return replace(graph, ops=tuple(ops.values()))


def _joined(first: Op, second: Op) -> dict[str, Any] | None:
    """The arguments of one neuron for a function and a maximum over windows, in either order, or None.

    The two commute where the function never falls; then the maximum is taken first.
    """
    function, pool = (first, second) if second.args["pool"] else (second, first)
    slope = function.tensors.get("slope", torch.tensor(function.args["slope"]))
    if function.args["pool"] or not pool.args["pool"] or not _is_identity(pool) or (slope < 0).any():
        return None
    return {**function.args, "pool": pool.args["pool"]}


def _is_identity(op: Op) -> bool:
    return op.args["slope"] == 1 and op.args["low"] is None and op.args["high"] is None and not op.tensors


def _identities(graph: Graph) -> Graph:
    """An identity neuron on every value that passed a weighted layer and enters another."""
    weighted: set[str] = set()
    crossing: set[str] = set()
    for op in graph:
        if op.weighted or (op.target != "neuron" and weighted.intersection(op.inputs)):
            weighted.add(op.name)
        if op.weighted:
            crossing |= weighted.intersection(op.inputs)
    ops: dict[str, Op] = {}
    for op in graph:
        op = replace(op, inputs=tuple(f"{n}.identity" if n in crossing else n for n in op.inputs))
        ops[op.name] = op
        if op.name in crossing:
            args = {"slope": 1.0, "low": None, "high": None, "pool": None}
            name = f"{op.name}.identity"
            ops[name] = Op(name, "neuron", (op.name,), op.shape, args=args)
    return replace(
        graph, ops=tuple(ops.values()), outputs=tuple(f"{n}.identity" if n in crossing else n for n in graph.outputs)
    )


def _bypass(ops: dict[str, Op], gone: str, to: str) -> dict[str, Op]:
    return {
        name: replace(op, inputs=tuple(to if n == gone else n for n in op.inputs))
        for name, op in ops.items()
        if name != gone
    }
