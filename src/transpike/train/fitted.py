"""What training takes and gives, as values: loaders, the trained network with its curves, the figures of a test."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from transpike.data import EventSets, ImageSets

__all__ = ["Batches", "Evaluation", "Fitted", "Loaders"]

Batches = Iterable[Any]


@dataclass(frozen=True)
class Loaders:
    """Iterables of (images, labels), each with a length: `torch.utils.data.DataLoader`s or one's own.

    Labels are class indices [N] of any whole-number type. For a spiking network there may be frames [T, N, C, H, W] in
    place of images [N, C, H, W].

    Attributes:
        train: training batches; each pass is an epoch.
        validation: what the best epoch is chosen by; None to train without. Never give the test images here.
        test: what the trained network is tested on, once, for results.json; None to leave that to `evaluate`.
        sets: the data set that they are of, by which the commands find it again; see `of`.
    """

    train: Batches
    validation: Batches | None
    test: Batches | None = None
    sets: ImageSets | EventSets | None = None

    @classmethod
    def of(cls, sets: ImageSets | EventSets) -> Loaders:
        """A data set's, without validation where it holds no images back."""
        return cls(sets.train, sets.validation if len(sets.validation) else None, sets.test, sets)


@dataclass(frozen=True)
class Fitted:
    """What training gave.

    Attributes:
        model: the trained network, in evaluation mode: the same object that was handed in.
        curves: one row an epoch: epoch, losses, accuracies in [0, 1], learning rate, seconds.
        epoch: the epoch whose weights the network has.
        validation_accuracy: in [0, 1], of these weights; None without validation images.
    """

    model: nn.Module
    curves: list[dict[str, float]]
    epoch: int
    validation_accuracy: float | None


@dataclass(frozen=True)
class Evaluation:
    """Accuracy in [0, 1], mean cross-entropy, and how many images they are of."""

    accuracy: float
    loss: float
    images: int
