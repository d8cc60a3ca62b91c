"""Put spike amplitudes into the weights: trains carry digits, currents are in units of their neuron's theta."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from transpike.coding.scheme import Scheme
from transpike.conversion.graph import Graph, Op

__all__ = ["scale"]


def scale(graph: Graph, scheme: Scheme, amplitudes: Mapping[str, float]) -> tuple[Graph, dict[str, float]]:
    """The graph in spike units, and the unit of every operation's result: real value = unit * decoded value.

    Weights take theta_in / theta_out (Algorithm 2); constants are divided by theta_out and by the value of a train of
    ones, since they enter at every step. Where an edge has no weights (a skip connection, a concatenation), the ratio
    of amplitudes stays on the edge as its gain.
    """
    spiking = graph.spiking()
    units = _units(graph, spiking, amplitudes)
    ops = [_rescale(op, scheme, units) if op.name in spiking else op for op in graph]
    return replace(graph, ops=tuple(ops)), units


def _units(graph: Graph, spiking: set[str], amplitudes: Mapping[str, float]) -> dict[str, float]:
    """Trains have their own amplitude; a current takes the unit of the neuron it flows to, if it flows to one."""
    wanted: dict[str, float] = {}
    for op in reversed(graph.ops):
        unit = amplitudes.get(op.name, wanted.get(op.name))
        if op.name in spiking and not op.weighted and unit is not None:
            for name in op.inputs:
                wanted.setdefault(name, unit)
    units: dict[str, float] = {}
    for op in graph:
        if op.name in spiking:
            default = 1.0 if op.weighted else units[op.inputs[0]] if op.inputs else 1.0
            units[op.name] = amplitudes.get(op.name, wanted.get(op.name, default))
    return units


def _rescale(op: Op, scheme: Scheme, units: Mapping[str, float]) -> Op:
    out = units[op.name]
    ratios = tuple(units[name] / out for name in op.inputs)
    if op.weighted:
        return replace(op, tensors=_scaled(op, "weight", "bias", ratios[0], out * scheme.total))
    if op.target == "affine":
        tensors = _scaled(op, "scale", "shift", ratios[0], out * scheme.total)
        return replace(op, tensors=tensors, gains=() if "scale" in tensors or ratios[0] == 1 else ratios)
    gains = tuple(r * g for r, g in zip(ratios, op.gains or (1.0,) * len(ratios), strict=True))
    return replace(op, gains=gains if op.target == "add" or any(g != 1 for g in gains) else ())


def _scaled(op: Op, factor: str, constant: str, ratio: float, total: float) -> dict[str, Tensor]:
    """Both tensors in spike units, computed in float64: a current is a sum of many of them."""
    tensors = dict(op.tensors)
    if factor in tensors:
        tensors[factor] = (tensors[factor].double() * ratio).to(tensors[factor].dtype)
    if constant in tensors:
        tensors[constant] = (tensors[constant].double() / total).to(tensors[constant].dtype)
    return tensors
