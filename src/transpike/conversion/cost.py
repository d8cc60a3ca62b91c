"""What a network costs: multiply-accumulates of the analog one, synapses that each neuron of the spiking one feeds."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from transpike.conversion.graph import Graph, Op, apply, operator

__all__ = ["fan_out", "macs"]


def macs(graph: Graph) -> dict[str, int]:
    """Multiply-accumulates of every weighted layer for one sample, zeros of the padding counted."""
    counts = {}
    for op in graph:
        if op.weighted:
            weight = op.tensors["weight"]
            positions = math.prod(graph[op.inputs[0]].shape if op.args.get("transposed") else op.shape)
            counts[op.name] = positions * weight[0].numel()
    return counts


def fan_out(graph: Graph) -> dict[str, Tensor]:
    """For the input and every neuron layer, how many synapses each of its neurons feeds: {layer: [\\*] of one sample}.

    A synapse is a path of non-zero weights from the neuron to the next one, or to the output. Paths that lead through
    average pooling or interpolation are synapses of the composite layer (where windows overlap, each path counts); a
    skip connection is one synapse. Counted exactly, borders included, as the gradient of a network of ones.
    """
    spiking = graph.spiking()
    leaves: dict[str, Tensor] = {}
    values: dict[str, Tensor] = {}
    reached = torch.zeros(())
    readers = {name for op in graph if op.name not in spiking for name in op.inputs} | set(graph.outputs)
    for op in graph:
        if op.name not in spiking:
            continue
        if op.target in ("input", "neuron"):
            if op.inputs:
                reached = reached + values[op.inputs[0]].sum()
            leaves[op.name] = values[op.name] = torch.ones(1, *op.shape, requires_grad=True)
        else:
            values[op.name] = _ones(op, *(values[name] for name in op.inputs))
        if op.name in readers and op.name not in leaves:
            reached = reached + values[op.name].sum()
    grads = torch.autograd.grad(reached, list(leaves.values()), allow_unused=True)
    return {n: torch.zeros(x.shape[1:]) if g is None else g[0] for (n, x), g in zip(leaves.items(), grads, strict=True)}


def _ones(op: Op, *inputs: Tensor) -> Tensor:
    """The operation with every non-zero coefficient replaced by one."""
    if op.weighted:
        weight = {"weight": (op.tensors["weight"] != 0).float().cpu()}
        return apply(op, weight, *inputs)
    if op.target == "affine":
        return inputs[0]
    if op.target in ("mean", "sum"):
        return inputs[0].sum(op.args["dim"], op.args["keepdim"])
    if op.target == "add":
        return inputs[0] + inputs[1]
    if op.target.startswith(("resample:pad.", "resample:constant_pad")):  # ones and zeros already, on any axis
        return operator(op.target.partition(":")[2])(inputs[0], *op.args["args"])  # type: ignore[no-any-return]
    if op.target.startswith("resample:"):
        return _spread(op, inputs[0])
    return apply(Op(op.name, op.target, op.inputs, op.shape, op.args), {}, *inputs)


def _spread(op: Op, x: Tensor) -> Tensor:
    """Pooling, interpolation and padding work on each axis by itself: one matrix of ones and zeros an axis."""
    resample = operator(op.target.partition(":")[2])
    shape = x.shape[2:]
    for axis, size in enumerate(shape):
        probe = torch.eye(size).view(size, 1, *(size if a == axis else 1 for a in range(len(shape))))
        touched = resample(probe.expand(size, 1, *shape).contiguous(), *op.args["args"]) != 0
        matrix = touched.amax([a + 1 for a in range(len(shape) + 1) if a != axis + 1]).float()  # [from, to]
        x = torch.tensordot(x, matrix, dims=([axis + 2], [0])).movedim(-1, axis + 2)
    return x
