"""When the spikes of each layer begin, and how long a network's skip connections wait."""

from __future__ import annotations

from collections.abc import Mapping, Set
from functools import cached_property

from transpike.conversion.graph import Graph

__all__ = ["Timing"]


class Timing:
    """The clock of a spiking network: every layer of neurons first waits, then answers step by step.

    Args:
        graph: the network.
        readouts: the operations whose results are decoded.
        waits: the wait of each layer of neurons, by name.
        steps: T.
        wait: the wait of the classifier, which accumulates. The paper of CSS counts it as a layer.
    """

    def __init__(self, graph: Graph, readouts: Set[str], waits: Mapping[str, int], *, steps: int, wait: int) -> None:
        self._graph, self._readouts = graph, readouts
        self.waits, self._steps, self._wait = waits, steps, wait

    @cached_property
    def first_spike(self) -> dict[str, int]:
        """The step at which each spiking operation's result begins: the sum of waits on the longest path to it."""
        first: dict[str, int] = {}
        for op in self._graph:
            if op.name in self._graph.spiking:
                arrives = max((first[name] for name in op.inputs), default=0)
                first[op.name] = arrives + self.waits.get(op.name, 0)
        return first

    @cached_property
    def depths(self) -> dict[str, int]:
        """The number of neurons on the longest path from the image to each spiking operation, including itself."""
        depths: dict[str, int] = {}
        for op in self._graph:
            if op.name in self._graph.spiking:
                depths[op.name] = max((depths[name] for name in op.inputs), default=0) + op.fires
        return depths

    @property
    def depth(self) -> int:
        """n: the number of firing layers on the longest path, plus one for the classifier, which accumulates."""
        return max(self.depths[name] + (not self._graph[name].fires) for name in self._readouts)

    @property
    def latency(self) -> int:
        """Steps from an image's arrival to its complete output."""
        waited = max(self.first_spike[name] + (0 if self._graph[name].fires else self._wait) for name in self._readouts)
        return self._steps + waited

    @property
    def latency_zero_delay(self) -> int:
        """The latency if the encoder answers at once: one wait less."""
        return self.latency - self._wait

    @property
    def interval(self) -> int:
        """Steps between two images that enter one after the other: T plus the largest wait of any layer."""
        return self._steps + max(self.waits.values(), default=self._wait)

    @cached_property
    def delays(self) -> dict[tuple[str, str], int]:
        """The steps that each edge waits for the slowest input of its target."""
        first = self.first_spike
        return {
            (name, op.name): max(first[n] for n in op.inputs) - first[name]
            for op in self._graph
            if op.name in self._graph.spiking
            for name in op.inputs
        }
