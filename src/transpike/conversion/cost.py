"""What a network costs: multiply-accumulates of the analog one, synapses that each neuron of the spiking one feeds."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from transpike.conversion.graph import Graph
from transpike.conversion.kinds import KINDS, apply, reads, weighted
from transpike.conversion.op import Op

__all__ = ["fan_out", "macs", "pairings"]


def macs(graph: Graph) -> dict[str, int]:
    """Multiply-accumulates of every weighted layer and product for one sample, zeros of the padding counted."""
    counts = {}
    for op in graph:
        if "equation" in op.args:
            shapes = [graph[name].shape for name in op.inputs] if not weighted(op) else [graph[op.inputs[0]].shape]
            sizes = [(1, *shape) for shape in shapes] + ([tuple(op.tensors["weight"].shape)] if weighted(op) else [])
            terms = op.args["equation"].partition("->")[0].split(",")
            axes: dict[str, int] = {}
            for term, size in zip(terms, sizes, strict=True):
                axes |= {axis: max(n, axes.get(axis, 1)) for axis, n in zip(term, size, strict=True)}
            counts[op.name] = math.prod(axes.values())
        elif weighted(op):
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
    return _counted(graph)[0]


def pairings(graph: Graph) -> dict[str, Tensor]:
    """The same for products of two trains: how many numbers of the other operand each spike is multiplied with."""
    return _counted(graph)[1]


@torch.enable_grad()
def _counted(graph: Graph) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    leaves: dict[str, Tensor] = {}
    values: dict[str, Tensor] = {}
    synapses, paired = torch.zeros(()), torch.zeros(())
    readers = {name for op in graph if op.name not in graph.spiking for name in op.inputs} | set(graph.outputs)
    for op in graph:
        if op.name not in graph.spiking:
            continue
        inputs = [values[name] for name in op.inputs]
        if op.kind == "input" or op.fires:
            synapses = synapses + sum((x.sum() for x in inputs), torch.zeros(()))
            leaves[op.name] = values[op.name] = torch.ones(1, *op.shape, requires_grad=True)
        elif reads(op) and not weighted(op):
            paired = paired + _ones(op, *inputs).sum()
            values[op.name] = torch.zeros(1, *op.shape)
        else:
            values[op.name] = _ones(op, *inputs)
        if op.name in readers and op.name not in leaves:
            synapses = synapses + values[op.name].sum()

    def gradients(reached: Tensor) -> dict[str, Tensor]:
        if not reached.requires_grad:
            return {name: torch.zeros(x.shape[1:]) for name, x in leaves.items()}
        grads = torch.autograd.grad(reached, list(leaves.values()), allow_unused=True, retain_graph=True)
        pairs = zip(leaves.items(), grads, strict=True)
        return {name: torch.zeros(x.shape[1:]) if g is None else g[0] for (name, x), g in pairs}

    return gradients(synapses), gradients(paired)


def _ones(op: Op, *inputs: Tensor) -> Tensor:
    """The operation with every non-zero coefficient replaced by one."""
    count = KINDS[op.kind].ones
    return count(op, op.tensors, *inputs) if count else apply(replace(op, gains=()), {}, *inputs)
