"""When the spikes of each layer begin, and what a network's skips wait for."""

from __future__ import annotations

from collections.abc import Mapping, Set
from functools import cached_property

from transpike.conversion.graph import Graph

__all__ = ["Timing"]


class Timing:
    """The clock of a spiking network: every layer of neurons listens for its wait, then answers step by step.

    Args:
        graph: the network.
        readouts: operations whose results are decoded.
        waits: of each layer of neurons, by name.
        steps: T.
        wait: of the classifier, which accumulates; the paper of CSS counts it as a layer.
    """

    def __init__(self, graph: Graph, readouts: Set[str], waits: Mapping[str, int], *, steps: int, wait: int) -> None:
        self._graph, self._readouts = graph, readouts
        self.waits, self._steps, self._wait = waits, steps, wait

    @cached_property
    def first_spike(self) -> dict[str, int]:
        """The step at which each spiking operation's result begins: the waits on the longest path to it."""
        first: dict[str, int] = {}
        for op in self._graph:
            if op.name in self._graph.spiking:
                arrives = max((first[name] for name in op.inputs), default=0)
                first[op.name] = arrives + self.waits.get(op.name, 0)
        return first

    @cached_property
    def depths(self) -> dict[str, int]:
        """How many neurons lie on the longest path from the image to each spiking operation, itself included."""
        depths: dict[str, int] = {}
        for op in self._graph:
            if op.name in self._graph.spiking:
                depths[op.name] = max((depths[name] for name in op.inputs), default=0) + op.fires
        return depths

    @property
    def depth(self) -> int:
        """n: firing layers on the longest path, and the classifier, which accumulates."""
        return max(self.depths[name] + (not self._graph[name].fires) for name in self._readouts)

    @property
    def latency(self) -> int:
        """Steps from an image's arrival to its complete output."""
        waited = max(self.first_spike[name] + (0 if self._graph[name].fires else self._wait) for name in self._readouts)
        return self._steps + waited

    @property
    def latency_zero_delay(self) -> int:
        """The same where the encoder answers at once: one wait less."""
        return self.latency - self._wait

    @property
    def interval(self) -> int:
        """Steps between two images that enter one after the other: T and the largest wait of any one layer."""
        return self._steps + max(self.waits.values(), default=self._wait)

    @cached_property
    def delays(self) -> dict[tuple[str, str], int]:
        """Steps by which each edge must wait for the slowest input of its target."""
        first = self.first_spike
        return {
            (name, op.name): max(first[n] for n in op.inputs) - first[name]
            for op in self._graph
            if op.name in self._graph.spiking
            for name in op.inputs
        }
