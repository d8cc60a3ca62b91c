"""The resources of each layer on a chip: synapses, memory and states; and whether a core can hold it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from rich import box
from rich.table import Table
from torch import Tensor

from transpike.checks import whole
from transpike.conversion import SpikingNetwork
from transpike.conversion.cost import fan_out
from transpike.conversion.describe import printed
from transpike.conversion.graph import Graph
from transpike.conversion.kinds import KINDS, apply, title
from transpike.conversion.op import Op

__all__ = ["Core", "Footprint", "Layer", "footprint"]

FLOAT = 32


@dataclass(frozen=True, kw_only=True)
class Core:
    """The limits of one core of a chip. None means no limit.

    Args:
        neurons: the number of neurons that it computes.
        fan_in: the number of synapses that a neuron may have.
        memory: bytes for weights and states together.
        state_bits: bits of one state.
    """

    neurons: int | None = None
    fan_in: int | None = None
    memory: int | None = None
    state_bits: int | None = None

    def __post_init__(self) -> None:
        for name in ("neurons", "fan_in", "memory", "state_bits"):
            if (value := getattr(self, name)) is not None:
                whole(name, value)


@dataclass(frozen=True)
class Layer:
    """A layer of neurons, or an output that accumulates, with the weights before it.

    Attributes:
        name: the layer's name.
        function: the function that it computes, in the terms of the field.
        neurons: the number of neurons.
        fan_in: the largest number of synapses to one of its neurons.
        fan_out: the largest number of synapses from one of its neurons.
        weights: the number of weights in memory. Those of a convolution are shared.
        weight_bits: the bits of each weight.
        state_bits: the bits of each of a neuron's two states. No image can make it need more.
        bytes: the bytes of weights, biases and states.
        cores: how many of the given cores it needs. None if the synapses or states of one neuron exceed a core.
    """

    name: str
    function: str
    neurons: int
    fan_in: int
    fan_out: int
    weights: int
    weight_bits: int
    state_bits: int
    bytes: int
    cores: int | None


@dataclass(frozen=True)
class Footprint:
    """The layers as ``rows``. Printing it shows a table."""

    rows: tuple[Layer, ...]

    def __rich__(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for heading in ("layer", "function"):
            table.add_column(heading, overflow="fold")
        for heading in ("neu-\nrons", "fan\nin", "fan\nout", "weights", "bits", "state\nbits", "bytes", "cores"):
            table.add_column(heading, justify="right")
        for row in self.rows:
            numbers = (row.neurons, row.fan_in, row.fan_out, row.weights, row.weight_bits, row.state_bits, row.bytes)
            cores = "does not fit" if row.cores is None else str(row.cores)
            table.add_row(row.name, row.function, *(f"{number:,}" for number in numbers), cores)
        return table

    def __str__(self) -> str:
        return printed(self)


def footprint(snn: SpikingNetwork, core: Core | None = None) -> Footprint:
    """Return the resources of each layer, and the number of cores with a given budget.

    Weights and states of a network that was not quantised count 32 bits each.

    Args:
        snn: the network, usually after `SpikingNetwork.quantise`.
        core: the budget of a core. By default there is no limit, so one core suffices.

    Example:
        >>> import transpike
        >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> snn = transpike.convert(ann, torch.rand(64, 4), scheme=transpike.CSS(steps=8, silent=1))
        >>> found = footprint(snn.quantise(8), Core(neurons=4, memory=1024))
        >>> [(row.fan_in, row.weights, row.weight_bits, row.cores) for row in found.rows]
        [(4, 32, 8, 2), (8, 24, 8, 1)]
    """
    graph, core = snn.graph, core or Core()
    fan_ins, fan_outs = _fan_ins(graph), fan_out(graph)
    ends = [op for op in graph if op.fires or (op.name in snn.readouts and op.inputs)]
    return Footprint(tuple(_layer(graph, op, core, fan_ins, fan_outs) for op in ends))


def _layer(graph: Graph, op: Op, core: Core, fan_ins: Mapping[str, int], fan_outs: Mapping[str, Tensor]) -> Layer:
    own = _leading(graph, op)
    neurons, sizes = math.prod(op.shape), [(_numbers(one, KINDS[one.kind].factor), one) for one in own]
    weights = sum(size for size, _ in sizes)
    weight_bits = max((int(one.args.get("bits", FLOAT)) for size, one in sizes if size), default=0)
    state_bits = int(op.args.get("state_bits", FLOAT))
    biases = sum(_numbers(one, KINDS[one.kind].constant) for one in own)
    states = neurons * (1 + op.fires) * (len(op.inputs) if op.fires else 1)
    memory = math.ceil((weights * weight_bits + (biases + states) * state_bits) / 8)
    fan_in = fan_ins[op.name]
    fits = fan_in <= (core.fan_in or fan_in) and state_bits <= (core.state_bits or state_bits)
    shares = ((neurons, core.neurons), (memory, core.memory))
    cores = max([1, *(math.ceil(need / limit) for need, limit in shares if limit)]) if fits else None
    out = int(fan_outs[op.name].max()) if op.name in fan_outs else 0
    return Layer(op.name, title(op), neurons, fan_in, out, weights, weight_bits, state_bits, memory, cores)


def _numbers(op: Op, key: str | None) -> int:
    return op.tensors[key].numel() if key is not None and key in op.tensors else 0


def _leading(graph: Graph, op: Op) -> list[Op]:
    """Return the operations between the last layers of neurons and this one, including itself if it does not fire."""
    ops, ahead = ([], list(op.inputs)) if op.fires else ([op], list(op.inputs))
    while ahead:
        one = graph[ahead.pop()]
        if not one.fires and one.inputs and one not in ops:
            ops.append(one)
            ahead += one.inputs
    return ops


@torch.no_grad()
def _fan_ins(graph: Graph) -> dict[str, int]:
    """Return the largest number of synapses to one neuron: paths of non-zero weights from the layers before it."""
    counts: dict[str, Tensor] = {}
    most: dict[str, int] = {}
    for op in graph:
        if op.name not in graph.spiking:
            continue
        inputs = [counts[name] for name in op.inputs]
        if inputs and op.fires:
            most[op.name] = int(sum(float(x.max()) for x in inputs))
        elif inputs:
            ones, bare = KINDS[op.kind].ones, replace(op, gains=())
            counts[op.name] = ones(bare, op.tensors, *inputs) if ones else apply(bare, {}, *inputs)
            most[op.name] = int(counts[op.name].max())
        if op.fires or not inputs:
            counts[op.name] = torch.ones(1, *op.shape)
    return most
