"""What a network costs: multiply-accumulates of the analog one; synapses that each neuron of the spiking one feeds, and
what it must do in a step.
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
    """Multiply-accumulates of every weighted layer and product for one sample.

    As synapses are counted: what meets zeros of the padding, or a weight of zero, is none. So where every neuron of a
    network without average pooling fires once, it takes as many synaptic operations as the analog one takes these.
    """
    counts = {}
    for op in graph:
        if reads(op):
            ones = [torch.ones(1, *graph[name].shape) for name in op.inputs]
            results = apply(replace(op, gains=()), {}, *ones) if KINDS[op.kind].product else _ones(op, *ones)
            counts[op.name] = int(results.sum(dtype=torch.float64))
    return counts


def fan_out(graph: Graph) -> dict[str, Tensor]:
    """For the input and every neuron layer, how many synapses each of its neurons feeds: {layer: [\\*] of one sample}.

    A synapse is a path of non-zero weights from the neuron to the next one, or to the output. Paths that lead through
    average pooling or interpolation are synapses of the composite layer (where windows overlap, each path counts); a
    skip connection is one synapse. Counted exactly, borders included, as the gradient of a network of ones. A current
    that several layers read, such as a residual stream, is summed once and passed on (`relays`).
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
    """The operation with every non-zero coefficient replaced by one."""
    count = KINDS[op.kind].ones
    return count(op, op.tensors, *inputs) if count else apply(replace(op, gains=()), {}, *inputs)


# -- currents that several layers read ---------------------------------------------------------------------------------


def relays(graph: Graph) -> dict[str, int]:
    """Additions a step that pass on currents which several layers read: {operation: how many, for one sample}.

    Where two such currents meet, one is added to the other; where one goes on to a single layer of neurons, it is added
    to what these neurons accumulate.
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
    """Currents that more than one layer of neurons, or the output too, reads."""
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
    """What a neuron of a layer must do in each step, beside summing its inputs.

    Attributes:
        evaluations: of its function: 1, or 0 where comparisons with its bounds do, as for ReLU and maxima.
        operations: additions, comparisons and multiplications of one evaluation, a mean over the layer's neurons.
        state: values that it keeps: a sum for each input of its function, what it has sent, and the estimate of its
            train wherever a product of two trains reads it. A mean over the layer's neurons.
        group: values that one result needs together: 1, or those of a norm's or a softmax's group, of a maximum's
            window.
    """

    evaluations: int
    operations: float
    state: float
    group: int


def evaluated(graph: Graph, op: Op) -> Evaluation:
    """What one evaluation of the function of a layer of neurons takes, for one sample: nothing where comparisons do.

    The division by its channels' amplitudes is none: each channel compares with thresholds of its own.
    """
    function = op.function.real
    once = evaluation(function, [graph[name].shape for name in op.inputs], constants=op.tensors)
    return Evaluation(group=once.group) if function.tracked else once


def step(graph: Graph, op: Op) -> Step:
    """What a neuron of the input's encoder or of a layer of neurons must do in each step."""
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
