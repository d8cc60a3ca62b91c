"""The costs of a network.

These are the multiply-accumulates of the analog network, the number of synapses of each neuron, and the work of a
neuron in a step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from transpike.coding.evaluation import Evaluation, evaluation
from transpike.conversion.graph import Graph
from transpike.conversion.kinds import KINDS, apply, reads, weighted
from transpike.conversion.op import Op

__all__ = ["Step", "evaluated", "fan_out", "macs", "pairings", "relays", "step"]


@torch.no_grad()
def macs(graph: Graph) -> dict[str, int]:
    """Return the multiply-accumulates of every weighted layer and product for one sample, by name.

    They are counted as synapses are: products with zeros of the padding or with weights of zero do not count. So if
    every neuron of a network without average pooling fires once, the spiking network needs as many synaptic operations
    as the analog one needs multiply-accumulates.
    """
    counts = {}
    for op in graph:
        if reads(op):
            ones = [torch.ones(1, *graph[name].shape) for name in op.inputs]
            results = apply(replace(op, gains=()), {}, *ones) if KINDS[op.kind].product else _ones(op, *ones)
            counts[op.name] = int(results.sum(dtype=torch.float64))
    return counts


def fan_out(graph: Graph) -> dict[str, Tensor]:
    """Return how many synapses each neuron feeds, for the input and every layer: {layer: [\\*] of one sample}.

    A synapse is a path of non-zero weights from the neuron to the next neuron, or to the output. Paths through average
    pooling or interpolation are synapses of the composite layer. If windows overlap, each path counts. A skip
    connection is one synapse. The count is exact, also at borders, because it is the gradient of a network of ones. A
    current that several layers read, such as a residual stream, is summed once and passed on (`relays`).
    """
    return _counted(graph)[0]


def pairings(graph: Graph) -> dict[str, Tensor]:
    """Return, for products of two trains, the count of numbers with which each spike is multiplied."""
    return _counted(graph)[1]


@torch.enable_grad()
def _counted(graph: Graph) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    leaves: dict[str, Tensor] = {}
    values: dict[str, Tensor] = {}
    synapses, paired = torch.zeros(()), torch.zeros(())
    readers = {name for op in graph if op.name not in graph.spiking for name in op.inputs} | set(graph.outputs)
    shared = _shared(graph)
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
        if op.name in shared:
            synapses = synapses + values[op.name].sum()
            values[op.name] = torch.zeros(1, *op.shape)
        elif op.name in readers and op.name not in leaves:
            synapses = synapses + values[op.name].sum()

    def gradients(reached: Tensor) -> dict[str, Tensor]:
        if not reached.requires_grad:
            return {name: torch.zeros(x.shape[1:]) for name, x in leaves.items()}
        grads = torch.autograd.grad(reached, list(leaves.values()), allow_unused=True, retain_graph=True)
        pairs = zip(leaves.items(), grads, strict=True)
        return {name: torch.zeros(x.shape[1:]) if g is None else g[0] for (name, x), g in pairs}

    return gradients(synapses), gradients(paired)


def _ones(op: Op, *inputs: Tensor) -> Tensor:
    """Run the operation with every non-zero coefficient replaced by one."""
    count = KINDS[op.kind].ones
    return count(op, op.tensors, *inputs) if count else apply(replace(op, gains=()), {}, *inputs)


# -- currents that several layers read ---------------------------------------------------------------------------------


def relays(graph: Graph) -> dict[str, int]:
    """Return the additions in a step that pass on currents read by several layers: {operation: count for one sample}.

    Where two such currents meet, one is added to the other. Where one continues to a single layer of neurons, it is
    added to the sum that these neurons accumulate.
    """
    shared = _shared(graph)
    counts: dict[str, int] = {}
    for op in graph:
        if op.name not in graph.spiking:
            continue
        read = [math.prod(graph[name].shape) for name in op.inputs if name in shared]
        if op.name in shared:
            read = read[1:]  # one of them is the sum to which the others are added
        elif op.kind in ("select", "slice", "gather"):
            read = [min(size, math.prod(op.shape)) for size in read]
        if read:
            counts[op.name] = sum(read)
    return counts


def _shared(graph: Graph) -> set[str]:
    """Return the currents that more than one layer of neurons reads, or one layer and the output."""
    ends: dict[str, set[str]] = {}
    for op in reversed(graph.ops):
        own = {""} if op.name in graph.outputs else set()
        for reader in graph.consumers.get(op.name, ()):
            if reader.name not in graph.spiking:
                own.add("")
            else:
                own |= {reader.name} if reader.fires or reads(reader) else ends[reader.name]
        ends[op.name] = own
    currents: set[str] = set()
    for op in graph:
        if op.name in graph.spiking and not op.fires and (reads(op) or currents.intersection(op.inputs)):
            currents.add(op.name)
    return {name for name in currents if len(ends[name]) > 1}


# -- what a neuron does in a step --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Step:
    """The work of a neuron of a layer in each step, beside summing its inputs.

    Attributes:
        evaluations: the evaluations of its function: 1, or 0 if comparisons with its bounds suffice, as for ReLU and
            maxima.
        operations: additions, comparisons and multiplications of one evaluation, averaged over the layer's neurons.
        state: the values that the neuron keeps: a sum for each input of its function, its output so far, and the
            estimate of its train if a product of two trains reads it. Averaged over the layer's neurons.
        group: the number of values that one result needs together: the group of a norm or a softmax, the window of a
            maximum, otherwise 1.
    """

    evaluations: int
    operations: float
    state: float
    group: int


def evaluated(graph: Graph, op: Op) -> Evaluation:
    """Return the cost of one evaluation of a layer's function for one sample. It is 0 if comparisons suffice.

    The division by the amplitudes of its channels costs nothing, because each channel has its own thresholds.
    """
    function = op.function.real
    once = evaluation(function, [graph[name].shape for name in op.inputs], constants=op.tensors)
    return Evaluation(group=once.group) if function.tracked else once


def step(graph: Graph, op: Op) -> Step:
    """Return the work of a neuron in each step, for a layer of neurons or the input's encoder."""
    products = sum(reads(reader) and not weighted(reader) for reader in graph.consumers.get(op.name, ()))
    if op.kind == "input":
        return Step(evaluations=0, operations=0.0, state=1.0 + products, group=1)
    neurons, once = math.prod(op.shape), evaluated(graph, op)
    own, summed = not op.function.real.tracked, 1.0
    if op.function.pools or own:
        summed = sum(math.prod(graph[name].shape) for name in op.inputs) / neurons
    return Step(
        evaluations=int(own),
        operations=(once.additions + once.multiplications) / neurons,
        state=summed + 1 + products,
        group=once.group,
    )
