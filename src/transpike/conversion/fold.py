"""Folds normalisation into weights.

An affine step (BatchNorm, a constant factor or term) becomes part of the weights of the layer before it, if nothing
else reads the changed values. Moves (reshape, slice, cat, ...) and averages may lie between the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from transpike.conversion.graph import Graph
from transpike.conversion.kinds import apply, averages, resampled
from transpike.conversion.op import Op

__all__ = ["fold"]

_MOVES = ("reshape", "permute", "slice", "select", "gather", "cat", "stack")
_ROUNDING = 1e-6


def fold(graph: Graph) -> Graph:
    """Return ``graph`` with affine steps folded into the weights before them. A folded pair keeps its first name."""
    folding = _Folding(graph)
    for op in graph:
        folding.add(op)
    names = folding.names
    outputs = tuple(names.get(name, name) for name in graph.outputs)
    joined = {**graph.joined, **folding.joined}
    return replace(graph, ops=tuple(folding.ops.values()), outputs=outputs, joined=joined)


@dataclass(frozen=True)
class _Change:
    """The effect of an affine step on a value of one sample: ``x * scale + shift``. NaN where the step reads none."""

    scale: Tensor
    shift: Tensor


class _Folding:
    """The new operations, the readers of each (None stands for the outputs), and the replacements of removed ones."""

    def __init__(self, graph: Graph) -> None:
        self.ops: dict[str, Op] = {}
        self.names: dict[str, str] = {}
        self.joined: dict[str, str] = {}
        self.readers: dict[str, list[Op | None]] = {op.name: [*graph.consumers.get(op.name, ())] for op in graph}
        for name in graph.outputs:
            self.readers[name].append(None)

    def add(self, op: Op) -> None:
        op = replace(op, inputs=tuple(self.names.get(name, name) for name in op.inputs))
        changed = self._changed(op) if op.kind == "affine" else None
        if changed is None:
            self.ops[op.name] = op
            return
        (source,) = op.inputs
        self.ops |= changed
        self.names[op.name], self.joined[op.name] = source, next(iter(changed))
        self.readers[source] = [r for r in self.readers[source] if r is None or r.name != op.name]
        self.readers[source] += self.readers[op.name]

    def _changed(self, affine: Op) -> dict[str, Op] | None:
        """Return the changed operations that make the step unnecessary, or None if there is no such change."""
        source = self.ops[affine.inputs[0]]
        scale, shift = affine.tensors.get("scale"), affine.tensors.get("shift")
        if source.kind == "affine":
            return {source.name: _chained(source, scale, shift)} if len(self.readers[source.name]) == 1 else None
        some = next(iter(affine.tensors.values()), torch.ones(()))
        scale, shift = (some.new_ones(()) if scale is None else scale, some.new_zeros(()) if shift is None else shift)
        if not bool(shift.isfinite().all()):  # a mask
            return None
        if source.kind in ("convolution", "linear") and len(self.readers[source.name]) == 1:
            joined = _weighted(source, _Change(scale, shift))
            return {source.name: joined} if joined else None
        return self._behind(source, affine.name, _Change(scale.expand(affine.shape), shift.expand(affine.shape)))

    def _behind(self, op: Op, reader: str, change: _Change) -> dict[str, Op] | None:
        """Return the same for the part of ``op`` that ``reader`` reads."""
        settled = self._settled(op, reader, change)
        if settled is None:
            return None
        if op.kind in ("convolution", "linear"):
            joined = _weighted(op, settled)
            return {op.name: joined} if joined else None
        moves = op.kind in _MOVES and not op.args.get("zeros")
        parts = self._moved(op, settled) if moves else self._spread(op, settled)
        changed: dict[str, Op] = {}
        for name, part in zip(op.inputs, parts, strict=True) if parts else ():
            found = self._behind(self.ops[name], op.name, part)
            if found is None or changed.keys() & found:
                return None
            changed |= found
        return changed or None

    def _settled(self, op: Op, reader: str, change: _Change) -> _Change | None:
        """Return ``change`` where only the step reads, otherwise the identity. None if others read changed values."""
        scale, shift = change.scale.clone(), change.shift.clone()
        for other in self.readers[op.name]:
            if other is not None and other.name == reader:
                continue
            if other is None or other.kind not in _MOVES or len(other.inputs) > 1:
                return None
            index = _places(other, {op.name: op.shape})
            if not bool(scale.view(-1)[index].isnan().all()):
                return None
            scale.view(-1)[index], shift.view(-1)[index] = 1, 0
        return _Change(scale, shift)

    def _moved(self, op: Op, change: _Change) -> list[_Change] | None:
        """Return the changes that the inputs of a move need."""
        shapes = {name: self.ops[name].shape for name in op.inputs}
        if len(shapes) < len(op.inputs):
            return None
        index = _places(op, shapes)
        sizes = [torch.Size(shape).numel() for shape in shapes.values()]
        parts: list[list[Tensor]] = []
        for part in (change.scale, change.shift):
            flat = part.new_full((sum(sizes),), torch.nan)
            flat[index] = part.reshape(-1)
            if not torch.equal(flat[index].nan_to_num(0.5), part.reshape(-1).nan_to_num(0.5)):
                return None  # the move copies a value to two places
            parts.append([p.view(shape) for p, shape in zip(flat.split(sizes), shapes.values(), strict=True)])
        return [_Change(scale, shift) for scale, shift in zip(*parts, strict=True)]

    def _spread(self, op: Op, change: _Change) -> list[_Change] | None:
        """Return the change that the input of an average needs, if the change is constant within each window."""
        if not averages(op):
            return None
        shape = self.ops[op.inputs[0]].shape
        weights = apply(op, {}, change.scale.new_ones(1, *shape))[0]  # a window's sum; less than 1 with padding
        if op.kind == "resample":
            axes = list(range(len(shape) - resampled(op), len(shape)))
        else:
            axes = [axis - 1 for axis in op.args["dim"]]
        parts = []
        for part in (change.scale, change.shift / weights):
            if part.ndim < len(shape):
                part = part.view([1 if axis in axes else n for axis, n in enumerate(shape)])
            first = part[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(len(shape)))]
            if not bool(((part - first).abs() <= _ROUNDING * first.abs()).all()):
                return None
            parts.append(first.expand(shape))
        return [_Change(*parts)]


def _places(op: Op, shapes: Mapping[str, tuple[int, ...]]) -> Tensor:
    """Return which value of a move's inputs, numbered one after the other, goes to each place of its result."""
    counts, start = [], 0
    for shape in shapes.values():
        size = torch.Size(shape).numel()
        counts.append(torch.arange(start, start + size).view(1, *shape))
        start += size
    tensors = {key: tensor.cpu() for key, tensor in op.tensors.items()}
    return apply(replace(op, gains=()), tensors, *counts).reshape(-1)


def _chained(source: Op, scale: Tensor | None, shift: Tensor | None) -> Op:
    """Return the composition of an affine step with another."""
    tensors = dict(source.tensors)
    if scale is not None:
        tensors = {key: value * scale for key, value in tensors.items()}
        tensors.setdefault("scale", scale)
    if shift is not None:
        tensors["shift"] = tensors["shift"] + shift if "shift" in tensors else shift
    return replace(source, tensors=tensors)


def _weighted(source: Op, change: _Change) -> Op | None:
    """Return a weighted layer followed by a change that is constant within channels, or None for another change."""
    weight, tensors = source.tensors["weight"], dict(source.tensors)
    scale, shift = _per_channel(change.scale, source, 1), _per_channel(change.shift, source, 0)
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


def _per_channel(tensor: Tensor, source: Op, default: float) -> Tensor | None:
    """Return ``tensor`` (broadcast against one sample) as one number for each channel. None if a channel varies."""
    axes = source.tensors["weight"].ndim - 1 if source.kind == "convolution" else 1  # earlier axes are copies
    channel = len(source.shape) - axes
    full = tensor.to(source.tensors["weight"]).expand(*(1,) * (len(source.shape) - tensor.ndim), *tensor.shape)
    rows = full.movedim(channel, 0).reshape(full.shape[channel], -1)
    low, high = (rows.nan_to_num(nan=limit).aminmax(dim=1)[k] for k, limit in enumerate((torch.inf, -torch.inf)))
    if bool((low < high).any()):
        return None
    return low.where(low.isfinite(), default).expand(source.shape[channel])
