"""Multiplies spike amplitudes into the weights: trains carry digits, currents are in units of their neuron's theta."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from transpike.coding.scheme import Scheme, constant_entry
from transpike.conversion.graph import Graph
from transpike.conversion.kinds import KINDS, reads
from transpike.conversion.op import Op

__all__ = ["scale", "unscale"]


def scale(graph: Graph, scheme: Scheme, amplitudes: Mapping[str, float]) -> tuple[Graph, dict[str, float]]:
    """Return the graph in spike units, and the unit of every operation's result: real value = unit * decoded value.

    Weights are multiplied by theta_in / theta_out (Algorithm 2 of CSS). Constants are divided by theta_out and, if they
    enter in equal shares, by the value of a train of ones. If an edge has no weights (a skip connection, a
    concatenation), the ratio of amplitudes stays on the edge as its gain. The ratio of a product stays on its first
    operand.
    """
    units = _units(graph, amplitudes)
    shares = constant_entry(scheme) or 1.0
    ops = [_rescaled(op, shares, units) if op.name in graph.spiking else op for op in graph]
    return replace(graph, ops=tuple(ops)), units


def unscale(graph: Graph, scheme: Scheme, units: Mapping[str, float]) -> Graph:
    """Return the graph in real units, from a graph in spike units and their values as `scale` returned them.

    It is scaled by one over each unit. The amplitudes of channels, relative to their layer's, stay in it.
    """
    shares, inverse = constant_entry(scheme) or 1.0, {name: 1 / unit for name, unit in units.items()}
    ops = [_rescaled(op, 1 / shares, inverse) if op.name in graph.spiking else op for op in graph]
    return replace(graph, ops=tuple(ops))


def _units(graph: Graph, amplitudes: Mapping[str, float]) -> dict[str, float]:
    """Return the unit of every result: a train's amplitude, or for a current the unit of the receiving neuron."""
    own: dict[str, float] = {}
    for op in reversed(graph.ops):
        unit = amplitudes.get(op.name, own.get(op.name))
        if op.name in graph.spiking and not reads(op) and unit is not None:
            for name in op.inputs:
                own.setdefault(name, unit)
    units: dict[str, float] = {}
    for op in graph:
        if op.name in graph.spiking:
            default = 1.0 if reads(op) else units[op.inputs[0]] if op.inputs else 1.0
            units[op.name] = amplitudes.get(op.name, own.get(op.name, default))
    return units


def _rescaled(op: Op, shares: float, units: Mapping[str, float]) -> Op:
    """Return the operation in spike units. Its tensors are computed in float64, because a current sums many of them."""
    kind, out = KINDS[op.kind], units[op.name]
    ratios = tuple(units[name] / out for name in op.inputs)
    if kind.product:
        ratios = (ratios[0] * units[op.inputs[1]], 1.0)
    tensors = dict(op.tensors)
    if kind.factor in tensors:
        tensors[kind.factor] = _times(tensors[kind.factor], ratios[0])
        ratios = (1.0,)
    if kind.constant in tensors:
        tensors[kind.constant] = _over(tensors[kind.constant], out * shares)
    gains = tuple(r * g for r, g in zip(ratios, op.gains or (1.0,) * len(ratios), strict=True))
    remaining = gains if op.kind == "add" or any(gain != 1 for gain in gains) else ()
    return replace(op, tensors=tensors, gains=remaining)


def _times(tensor: Tensor, ratio: float) -> Tensor:
    return (tensor.double() * ratio).to(tensor.dtype)


def _over(tensor: Tensor, unit: float) -> Tensor:
    return (tensor.double() / unit).to(tensor.dtype)
