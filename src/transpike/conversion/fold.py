"""Fold normalisation into weights: an affine step (BatchNorm, a constant factor or term) behind a weighted layer that
nothing else reads joins its weights."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from transpike.conversion.graph import Graph
from transpike.conversion.op import Op

__all__ = ["fold"]


def fold(graph: Graph) -> Graph:
    """``graph`` with affine steps in the weights before them, in one pass; a pair keeps the name of its first."""
    names: dict[str, str] = {}
    ops: dict[str, Op] = {}
    once = {op.name: graph.read_once(op.name) for op in graph}
    for op in graph:
        op = replace(op, inputs=tuple(names.get(name, name) for name in op.inputs))
        source = ops[op.inputs[0]] if op.kind == "affine" else None
        joined = _into(source, op) if source and once[source.name] else None
        if source is None or joined is None:
            ops[op.name] = op
            continue
        ops[source.name] = joined
        names[op.name] = source.name
        once[source.name] = once[op.name]
    outputs = tuple(names.get(name, name) for name in graph.outputs)
    return replace(graph, ops=tuple(ops.values()), outputs=outputs, joined={**graph.joined, **names})


def _into(source: Op, affine: Op) -> Op | None:
    """``source`` followed by ``affine`` as one operation, where that is possible."""
    scale, shift = affine.tensors.get("scale"), affine.tensors.get("shift")
    tensors = dict(source.tensors)
    if source.kind == "affine":
        if scale is not None:
            tensors = {key: value * scale for key, value in tensors.items()}
            tensors.setdefault("scale", scale)
        if shift is not None:
            tensors["shift"] = tensors["shift"] + shift if "shift" in tensors else shift
        return replace(source, tensors=tensors)
    if source.kind not in ("convolution", "linear"):
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
    axes = source.tensors["weight"].ndim - 1 if source.kind == "convolution" else 1  # before it: copies of the layer
    channel = len(source.shape) - axes
    full = tensor.to(source.tensors["weight"]).expand(*(1,) * (len(source.shape) - tensor.ndim), *tensor.shape)
    if any(n > 1 for k, n in enumerate(full.shape) if k != channel):
        return None
    return full.reshape(-1).expand(source.shape[channel])
