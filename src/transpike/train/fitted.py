"""The inputs and results of training: loaders, the trained network with its curves, and the figures of a test."""

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
    """Iterables of (images, labels), each with a length: `torch.utils.data.DataLoader`s or your own.

    Labels are class indices [N] of any whole-number type. A spiking network may also take frames [T, N, C, H, W] in
    place of images [N, C, H, W].

    Attributes:
        train: training batches; each pass is an epoch.
        validation: the batches that choose the best epoch. None to train without validation. Never pass the test images
            here.
        test: the batches for one test of the trained network, for results.json. None to use `evaluate` instead.
        sets: the data set of the batches, by which the commands find it again; see `of`.
    """

    train: Batches
    validation: Batches | None
    test: Batches | None = None
    sets: ImageSets | EventSets | None = None

    @classmethod
    def of(cls, sets: ImageSets | EventSets) -> Loaders:
        """Return the loaders of a data set, without validation if it holds no images back."""
        return cls(sets.train, sets.validation if len(sets.validation) else None, sets.test, sets)


@dataclass(frozen=True)
class Fitted:
    """The results of training.

    Attributes:
        model: the trained network in evaluation mode, the same object as the argument.
        curves: one row for each epoch: epoch, losses, accuracies in [0, 1], learning rate, seconds.
        epoch: the epoch of the network's weights.
        validation_accuracy: the accuracy of these weights, in [0, 1]. None without validation images.
    """

    model: nn.Module
    curves: list[dict[str, float]]
    epoch: int
    validation_accuracy: float | None


@dataclass(frozen=True)
class Evaluation:
    """Accuracy in [0, 1], mean cross-entropy, and the number of images."""

    accuracy: float
    loss: float
    images: int
