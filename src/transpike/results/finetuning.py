"""The results of `transpike finetune`: the silent steps that a network does not need, at its former accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from transpike.results.records import Count, Steps

__all__ = ["Finetuning", "Schedule", "Timed"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A network with one choice of silent steps, judged on validation images.

    Attributes:
        weights: ``converted`` (unchanged) or ``tuned``.
        waits: how its silent steps were chosen, in words.
        latency: steps from the image's arrival until the output is complete.
        silent: silent steps of all layers together.
        accuracy: the share of the validation images whose label is predicted.
        agreement: the share with the same prediction as the original artificial network.
        chosen: whether it was chosen.
    """

    weights: Literal["converted", "tuned"]
    waits: str
    latency: Count
    silent: Count
    accuracy: float
    agreement: float
    chosen: bool = False


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A network before or after tuning.

    Attributes:
        latency: steps from the image's arrival until the output is complete.
        interval: steps after which the next image may enter.
        waits: the silent steps of each layer of neurons.
        accuracy: the share of the test images whose label is predicted. None without test images.
        agreement: the share of them with the same prediction as the original artificial network.
    """

    latency: Count
    interval: Count
    waits: Mapping[str, Count]
    accuracy: float | None = None
    agreement: float | None = None

    @property
    def silent(self) -> int:
        """The silent steps of all layers together."""
        return sum(self.waits.values())


@dataclass(frozen=True, kw_only=True)
class Finetuning:
    """A converted network before and after its weights were trained under its spikes.

    Attributes:
        steps: T, the number of steps that encode an image.
        label: its scheme, in few words.
        network: the folder in the run's folder that holds the final network.
        images: the number of validation images that judged.
        tolerance: percentage points of accuracy on them that may be lost.
        before: the network after conversion.
        after: the final network.
        schedules: the judged choices. The first is the network after conversion.
    """

    steps: Steps
    label: str
    network: str
    images: Count
    tolerance: float = 0.0
    before: Timed
    after: Timed
    schedules: tuple[Schedule, ...]
