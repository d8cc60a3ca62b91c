"""Networks behind an input encoder: the artificial one that sees all that it shows, and its spiking twin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from transpike.coding import DCTEncoder
from transpike.data import ImageSets
from transpike.measure.operations import ann_operations, spiking_operations
from transpike.measure.rebuilding import rebuilt
from transpike.measure.spiking import follow_steps, measure_spiking
from transpike.train import Evaluation, Machine
from transpike.train.stages import Network

__all__ = ["Encoded"]


@dataclass(frozen=True)
class Encoded:
    """Images behind an input encoder.

    Attributes:
        sets: the images.
        encoder: of `transpike.coding`, on the CPU.
        steps: its T.
        scheme: its name, T and settings.
        at: gives the same encoder for another T.
        machine: devices and precision.
    """

    sets: ImageSets
    encoder: nn.Module
    steps: int
    scheme: Mapping[str, object]
    at: Callable[[int], Callable[[Tensor], Tensor]]
    machine: Machine

    @property
    def device(self) -> str:
        """Of what Lightning does not run."""
        return "cuda" if self.machine.accelerator != "cpu" and torch.cuda.is_available() else "cpu"

    @property
    def shape(self) -> dict[str, Any]:
        """Of a network, for which the encoder may have laid out an image larger than it is."""
        size = self.sets.size
        if isinstance(self.encoder, DCTEncoder):
            size, _ = self.encoder.output_size((size, size))
        return {"num_classes": self.sets.classes, "in_channels": self.sets.channels, "image_size": size}

    def operations(self, network: Network) -> dict[str, Any]:
        """The operations of an artificial network, or of the one that a twin comes from."""
        name = f"spiking_{network.name.removeprefix('spiking_')}"
        return ann_operations(name, network.kwargs, shape=self.shape, side=self.sets.size)

    def measure(self, twin: Network, *, others: Sequence[int]) -> tuple[Evaluation, dict[str, Any]]:
        """Accuracy by T and by steps shown, firing, operations, and images rebuilt from the encoder's spikes.

        Args:
            twin: a spiking network; left on the CPU.
            others: than the encoder's T, at which it is tested, too.
        """
        steps, test = self.steps, self.sets.test
        tested, measured = measure_spiking(
            twin.model, lambda _: test, steps=steps, others=others, machine=self.machine, encoder=self.at
        )
        after, spikes = follow_steps(twin.model, test, self.encoder, device=self.device)
        operations = spiking_operations(self.operations(twin), measured["spiking"], self.encoder, spikes=spikes)
        return tested, measured | {
            "thresholds": twin.thresholds,
            "accuracy_after": after,
            "encoding": {"scheme": dict(self.scheme), "spikes": spikes, **rebuilt(self.encoder, self.sets)},
            "operations": operations,
        }
