"""The spikes of a spiking network's layers, for inspection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from transpike.conversion.graph import Graph
from transpike.conversion.kinds import title
from transpike.conversion.op import Op
from transpike.neurons.tsa import Tracked

__all__ = ["LayerTrace", "Trace", "Watch", "joined"]

Watch = Callable[[Op, Tracked], None]
"""A function that sees a layer's spikes: chunk by chunk, long trains in pieces of steps, the residual with the last."""


@dataclass(frozen=True, repr=False)
class LayerTrace:
    """The spikes of one layer and their errors.

    Attributes:
        spikes: digits [T, N, \\*] of the scheme. The input may be an analog current.
        residual: [N, \\*] in units of theta, target minus decoded value. None for the input.
        target: [N, \\*] in units of theta, the function of the layer's whole input. None for the input.
        amplitude: theta: [], or one for each channel, which broadcasts against one sample.
    """

    spikes: Tensor
    residual: Tensor | None
    target: Tensor | None
    amplitude: Tensor

    def __repr__(self) -> str:
        """Show shapes in place of values."""
        residual = None if self.residual is None else list(self.residual.shape)
        return (
            f"LayerTrace(spikes={list(self.spikes.shape)}, residual={residual}, amplitude={self.amplitude.max():.4g})"
        )


class Trace(dict[str, LayerTrace]):
    """The spikes of every layer, by name. For an operation without spikes, the error names the layer that has them."""

    def __init__(self, graph: Graph, layers: Mapping[str, LayerTrace]) -> None:
        super().__init__(layers)
        self._graph = graph

    def __missing__(self, name: str) -> LayerTrace:
        graph, whole = self._graph, name
        while whole in graph.joined:
            whole = graph.joined[whole]
        into = f"{name} became part of {whole}. " if whole != name else ""
        if whole in self:
            raise KeyError(f"{into}Use [{whole!r}].")
        if whole not in graph.by_name:
            raise KeyError(f"the network has no layer {name!r}; those that send spikes: {', '.join(self)}")
        after, fed = {whole}, ""
        for op in graph:
            if after.intersection(op.inputs):
                fed = fed or (op.name if op.fires else "")
                after.add(op.name)
        where = f"the next layer of neurons is {fed}" if fed else "its current is decoded into the output"
        raise KeyError(f"{into}{whole} ({title(graph[whole])}) sends no spikes; {where}.")


def joined(parts: list[Tracked], amplitude: Tensor) -> LayerTrace:
    """Join the parts of one layer's spikes, each for some of the samples."""

    def cat(tensors: list[Tensor | None]) -> Tensor | None:
        some = [t for t in tensors if t is not None]
        return torch.cat(some) if some else None

    spikes = torch.cat([part.spikes for part in parts], 1)
    return LayerTrace(spikes, cat([p.residual for p in parts]), cat([p.target for p in parts]), amplitude)
