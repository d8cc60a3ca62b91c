"""Takes a converted network apart again, so that silent steps can be chosen anew for its present weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from transpike.coding.scheme import Scheme, largest
from transpike.conversion.amplitudes import channel_axes
from transpike.conversion.calibrate import Statistics
from transpike.conversion.graph import Graph
from transpike.conversion.network import SpikingNetwork
from transpike.conversion.op import Op
from transpike.conversion.scale import scale, unscale
from transpike.conversion.silence import Silences

__all__ = ["Reopened", "proposals", "reopen"]

PRICES = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1)
"""Prices of a silent step, as in `transpike.conversion.silence`, and higher ones, because accuracy decides here."""


@dataclass(frozen=True, eq=False)
class Reopened:
    """The data from which `transpike.conversion.silence` chooses; see `transpike.conversion.prepare.Prepared`.

    Attributes:
        graph: the analog network. The values of its layers are divided by their channels' amplitudes.
        statistics: the axes that count channels. Distributions are not measured again.
        images: the images for the choice.
        clipped: the share of values on these images that exceed the largest value that each neuron can represent.
    """

    graph: Graph
    statistics: Statistics
    images: Tensor
    clipped: Mapping[str, float]

    def build(
        self, scheme: Scheme, amplitudes: Mapping[str, Tensor], waits: Mapping[str, int] | None = None
    ) -> SpikingNetwork:
        """Return the network with these amplitudes and waits of layers."""
        graph, units = scale(self.graph, scheme, {name: float(theta) for name, theta in amplitudes.items()})
        return SpikingNetwork(graph, scheme, units, waits=waits, clipped=self.clipped)


def reopen(snn: SpikingNetwork, images: Tensor) -> Reopened:
    """Take ``snn`` apart, with images [N, \\*] for the choice.

    Example:
        >>> import transpike
        >>> from torch import nn
        >>> ann, images = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), torch.rand(32, 4)
        >>> opened = reopen(transpike.convert(ann, images), images)
        >>> bool((opened.graph.run(images)[opened.graph.outputs[0]] - ann(images)).abs().max() < 1e-5)
        True
    """
    beyond: dict[str, float] = {}
    most = largest(snn.scheme)

    def watch(op: Op, value: Tensor) -> None:
        beyond[op.name] = float((value.abs() > most).double().mean())

    snn.analog(images, watch)
    graph = unscale(snn.current_graph(), snn.scheme, snn.units)
    return Reopened(graph, Statistics({}, channel_axes(graph), len(images)), images, beyond)


def proposals(snn: SpikingNetwork, images: Tensor) -> Iterator[tuple[float, SpikingNetwork]]:
    """Yield the networks for each price of a silent step, from the highest price, which gives the fewest steps."""
    opened = reopen(snn, images)
    layers = [opened.graph.input, *opened.graph.neurons]
    amplitudes = {op.name: torch.tensor(snn.units[op.name], dtype=torch.float64) for op in layers}
    silences = Silences(opened, snn.scheme, amplitudes)
    for price in PRICES:
        yield price, silences.build(silences.at(price))
