"""Chooses silent steps anew for tuned weights, by accuracy on validation images, compared with the converted ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional

from transpike.checks import number, whole
from transpike.conversion.calibrate import collect
from transpike.conversion.network import SpikingNetwork
from transpike.conversion.reopen import proposals, reopen
from transpike.conversion.silence import measured
from transpike.results import Schedule
from transpike.train.fitted import Batches

__all__ = ["Judge", "Judged", "Silencing", "rechoose"]

Weights = Literal["converted", "tuned"]

CHOSEN_ON = 48
"""The number of validation images for proposals of silent steps. Half of them are simulated by the rule."""


@dataclass(frozen=True)
class Silencing:
    """The limit of silent steps, and how choices are judged.

    Attributes:
        silent: The most silent steps of a layer for which the bound is computed. Layers with fewer keep theirs.
        penalty: Weight of the squared excess over the bound. 0 trains for the labels only.
        tolerance: Percentage points of validation accuracy that may be lost.
        judged: Judge on this many validation images, the first ones.
    """

    silent: int = 0
    penalty: float = 10.0
    tolerance: float = 0.0
    judged: int = 1000

    def __post_init__(self) -> None:
        whole("silent", self.silent, least=0)
        number("penalty", self.penalty, least=0)
        number("tolerance", self.tolerance, least=0, most=100)
        whole("judged", self.judged)


@dataclass(frozen=True)
class Judged:
    """A network's results on images: accuracy and equal predictions in [0, 1], mean cross-entropy, number of images."""

    accuracy: float
    agreement: float
    loss: float
    images: int


def rechoose(
    before: SpikingNetwork,
    tuned: SpikingNetwork,
    waits: Mapping[str, int],
    batches: Batches,
    silencing: Silencing,
    judge: Judge,
) -> tuple[SpikingNetwork, tuple[Schedule, ...]]:
    """Return the network with the least latency among those as accurate as ``before``, and all judged choices."""
    images = collect(batches, CHOSEN_ON).to(before.device)
    rows: list[Schedule] = []
    networks: list[SpikingNetwork] = []

    def add(weights: Weights, how: str, network: SpikingNetwork) -> float:
        found = judge({how: network}, batches, most=silencing.judged)[how]
        rows.append(_schedule(network, found, weights=weights, waits=how))
        networks.append(network)
        return found.accuracy

    sides: tuple[tuple[Weights, SpikingNetwork], ...] = (("tuned", tuned), ("converted", before))
    with Console(stderr=True).status("judging silent steps") as status:
        wanted = add("converted", "as converted", before) - silencing.tolerance / 100
        add("tuned", "as converted", tuned)
        for weights, network in sides:
            for how, one in _fewer(network, waits, images):
                if one.latency < before.latency:
                    status.update(f"judging silent steps: {weights} weights, latency {one.latency}")
                    if add(weights, how, one) >= wanted:
                        break
    met = [place for place, row in enumerate(rows) if row.accuracy >= wanted]
    best = min(met, key=lambda place: (rows[place].latency, -rows[place].accuracy))
    network = networks[best]
    network.clipped, network.residuals = dict(reopen(network, images).clipped), measured(network, images).residuals
    return network, tuple(replace(row, chosen=place == best) for place, row in enumerate(rows))


def _fewer(network: SpikingNetwork, waits: Mapping[str, int], images: Tensor) -> list[tuple[str, SpikingNetwork]]:
    """Return the network with fewer silent steps, one choice for each latency, the least latency first."""
    limited = network.timed(waits)
    found = {limited.latency: ("at the limit", limited)}
    for price, one in proposals(network, images):
        found.setdefault(one.latency, (f"price {price:g}", one))
    return [found[latency] for latency in sorted(found)]


class Judge:
    """Compares networks with the artificial network that was converted."""

    def __init__(self, original: SpikingNetwork, read: Callable[[object], tuple[Tensor, Tensor]]) -> None:
        self.original, self.read, self.images = original, read, 0

    @torch.no_grad()
    def __call__(
        self, networks: Mapping[str, SpikingNetwork], batches: Batches, *, most: int | None = None
    ) -> dict[str, Judged]:
        sums = {name: torch.zeros(3, dtype=torch.float64) for name in networks}
        count = 0
        for batch in batches:
            images, labels = (x[: None if most is None else most - count] for x in self.read(batch))
            images, labels = images.to(self.original.device), labels.cpu()
            same = self.original.analog(images).argmax(1).cpu()
            for name, network in networks.items():
                found = network(images).float().cpu()
                predicted, loss = found.argmax(1), functional.cross_entropy(found, labels, reduction="sum")
                sums[name] += torch.stack([(predicted == labels).sum(), (predicted == same).sum(), loss]).double()
            count += len(labels)
            if count == most:
                break
        self.images = count if most else self.images
        return {name: _judged(each / count, count) for name, each in sums.items()}


def _judged(means: Tensor, images: int) -> Judged:
    accuracy, agreement, loss = means.tolist()
    return Judged(accuracy, agreement, loss, images)


def _schedule(network: SpikingNetwork, found: Judged, *, weights: Weights, waits: str) -> Schedule:
    return Schedule(
        weights=weights,
        waits=waits,
        latency=network.latency,
        silent=sum(network.timing.waits.values()),
        accuracy=found.accuracy,
        agreement=found.agreement,
    )
