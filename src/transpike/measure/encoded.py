"""Networks with an input encoder: the artificial one that sees the sum of its output, and its spiking twin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch

from transpike import results
from transpike.coding import Encoder
from transpike.data import ImageSets
from transpike.measure.operations import ann_operations, spiking_operations
from transpike.measure.rebuilding import rebuilt
from transpike.measure.spiking import follow_steps, measure_spiking
from transpike.train import Evaluation, Machine
from transpike.train.stages import Network, Shape

__all__ = ["Encoded", "Measured"]


class Measured(TypedDict):
    """The measurements of a twin's spikes in its results."""

    by_steps: tuple[results.AtSteps, ...]
    spiking: results.Spiking
    thresholds: dict[str, float]
    accuracy_after: tuple[float, ...]
    encoding: results.Encoding
    operations: results.Operations


@dataclass(frozen=True)
class Encoded:
    """Images with an input encoder.

    Attributes:
        sets: the images.
        encoder: an encoder of `transpike.coding`, on the CPU.
        scheme: its name, T and settings.
        words: the words of tables for each setting.
        at: returns the same encoder for another T.
        machine: devices and precision.
    """

    sets: ImageSets
    encoder: Encoder
    scheme: Mapping[str, object]
    words: Mapping[str, str]
    at: Callable[[int], Encoder]
    machine: Machine

    @property
    def device(self) -> str:
        """The device of computations that Lightning does not run."""
        return "cuda" if self.machine.accelerator != "cpu" and torch.cuda.is_available() else "cpu"

    @property
    def shape(self) -> Shape:
        """The shape of a network's input. The encoder may lay out an image larger than the original."""
        size, _ = self.encoder.output_size((self.sets.size, self.sets.size))
        return {"num_classes": self.sets.classes, "in_channels": self.sets.channels, "image_size": size}

    def operations(self, network: Network) -> results.Operations:
        """Return the operations of an artificial network, or of the one that is a twin's origin."""
        name = f"spiking_{network.name.removeprefix('spiking_')}"
        return ann_operations(name, network.kwargs, shape=self.shape, side=self.sets.size)

    def measure(self, twin: Network, *, others: Sequence[int]) -> tuple[Evaluation, Measured]:
        """Measure accuracy by T and by steps shown, firing, operations, and images rebuilt from the encoder's spikes.

        Args:
            twin: a spiking network. It is left on the CPU.
            others: numbers of steps, beside the encoder's T, at which it is tested too.
        """
        test, steps = self.sets.test, self.encoder.steps
        tested, by_steps, spiking = measure_spiking(
            twin.model, lambda _: test, steps=steps, others=others, machine=self.machine, encoder=self.at
        )
        after, spikes = follow_steps(twin.model, test, self.encoder, device=self.device)
        shown, error, images = rebuilt(self.encoder, self.sets)
        return tested, {
            "by_steps": by_steps,
            "spiking": spiking,
            "thresholds": twin.thresholds,
            "accuracy_after": after,
            "encoding": results.Encoding(
                scheme=self.scheme, words=self.words, spikes=spikes, steps=shown, error=error, images=images
            ),
            "operations": spiking_operations(self.operations(twin), spiking, self.encoder, spikes=spikes),
        }
