"""What a network costs: multiply-accumulates of the analog one, synapses that each neuron of the spiking one feeds."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from transpike.conversion.graph import Graph
from transpike.conversion.kinds import KINDS, apply, weighted
from transpike.conversion.op import Op

__all__ = ["fan_out", "macs"]


def macs(graph: Graph) -> dict[str, int]:
    """Multiply-accumulates of every weighted layer for one sample, zeros of the padding counted."""
    counts = {}
    for op in graph:
        if weighted(op):
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
    leaves: dict[str, Tensor] = {}
    values: dict[str, Tensor] = {}
    reached = torch.zeros(())
    readers = {name for op in graph if op.name not in graph.spiking for name in op.inputs} | set(graph.outputs)
    for op in graph:
        if op.name not in graph.spiking:
            continue
        if op.kind == "input" or op.fires:
            for name in op.inputs:
                reached = reached + values[name].sum()
            leaves[op.name] = values[op.name] = torch.ones(1, *op.shape, requires_grad=True)
        else:
            values[op.name] = _ones(op, *(values[name] for name in op.inputs))
        if op.name in readers and op.name not in leaves:
            reached = reached + values[op.name].sum()
    grads = torch.autograd.grad(reached, list(leaves.values()), allow_unused=True)
    return {n: torch.zeros(x.shape[1:]) if g is None else g[0] for (n, x), g in zip(leaves.items(), grads, strict=True)}


def _ones(op: Op, *inputs: Tensor) -> Tensor:
    """The operation with every non-zero coefficient replaced by one."""
    count = KINDS[op.kind].ones
    return count(op, op.tensors, *inputs) if count else apply(replace(op, gains=()), {}, *inputs)
