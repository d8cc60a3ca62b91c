"""What `transpike finetune` finds: which silent steps a network can do without, at the accuracy that it had."""

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
        weights: ``converted`` as they were, or ``tuned``.
        waits: how its silent steps were chosen, in words.
        latency: steps from the image's arrival until the output stands.
        silent: silent steps of all layers together.
        accuracy: share of the validation images whose label is predicted.
        agreement: share for which it predicts what the artificial network does that was converted.
        chosen: whether it was taken.
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
        latency: steps from the image's arrival until the output stands.
        interval: steps after which the next image may enter.
        waits: silent steps of each layer of neurons.
        accuracy: share of the test images whose label is predicted; None without test images.
        agreement: share of them for which it predicts what the artificial network does that was converted.
    """

    latency: Count
    interval: Count
    waits: Mapping[str, Count]
    accuracy: float | None = None
    agreement: float | None = None

    @property
    def silent(self) -> int:
        """Silent steps of all layers together."""
        return sum(self.waits.values())


@dataclass(frozen=True, kw_only=True)
class Finetuning:
    """A converted network before and after its weights were trained under its spikes.

    Attributes:
        steps: T, for which an image is encoded.
        label: its scheme, in few words.
        network: the folder in the run's folder that holds the network after.
        images: how many validation images judged.
        tolerance: percentage points of accuracy on them that could be lost.
        before: as it was converted.
        after: as it is handed on.
        schedules: what was judged; the first is the network as it was converted.
    """

    steps: Steps
    label: str
    network: str
    images: Count
    tolerance: float = 0.0
    before: Timed
    after: Timed
    schedules: tuple[Schedule, ...]
