"""What all methods of distillation are made from: named, weighted terms of logits and of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from transpike.distill.settings import check_settings
from transpike.distill.taps import Stage
from transpike.errors import DataError

__all__ = ["Features", "Method", "Need"]

Features = Mapping[str, Tensor]
"""Maps by tap."""

Need = Literal["features", "time", "labels", "classes", "head"]

NONE: Features = MappingProxyType({})


class Method(nn.Module):
    """Terms of a loss by name, each already weighted.

    A child gives `answer`, the terms of logits; with stages also `compare`, those of features.

    Args:
        stages: pairs of taps whose features are compared; none for a method of logits alone.
        settings: the temperature, and the weights by name.

    Attributes:
        needs: what the method takes beside the logits of both networks: "features" at stages, pairs of taps; "time",
            the student's logits at every step; "labels", the target; "classes", how many there are, as an argument;
            "head", the weights of the teacher's last layer, by a method `see_head`.
        smallest_batch: how many images a batch must have in training, where features are compared.

    Shapes: student logits [T, N, classes] or [N, classes], teacher logits [N, classes]; features by tap, the student's
    [T, N, C, H, W] or [N, C, H, W], the teacher's [N, C', H', W']; target, class indices [N] or probabilities
    [N, classes] -> weighted scalars by name.

    Raises:
        ConfigError: for a temperature that is not above 0, and for weights below 0.
        DataError: on call, for batches of fewer images than the method needs.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()
    smallest_batch: int = 1
    adapts: ClassVar[str | None] = None
    """A sentence on what it does to the maps before it compares them, for the report; None if it leaves them."""

    def __init__(self, stages: Sequence[Stage] = (), **settings: float) -> None:
        super().__init__()
        check_settings(**settings)
        self.stages = tuple(stages)
        self.temperature = settings["temperature"]
        self.weights = {name: weight for name, weight in settings.items() if name != "temperature"}
        self._settings = settings

    def answer(self, student: Tensor, teacher: Tensor, target: Tensor | None) -> dict[str, Tensor]:
        """Weighted terms of the logits."""
        raise NotImplementedError

    def compare(self, student: Features, teacher: Features) -> dict[str, Tensor]:
        """Weighted terms of the features; called without autocast, and only if there are stages."""
        raise NotImplementedError

    def check_batch(self, images: int) -> None:
        """Refuse a batch of too few images to train on.

        Raises:
            DataError: for one.
        """
        if self.stages and images < self.smallest_batch:
            raise DataError(
                f"{type(self).__name__} trains on batches of at least {self.smallest_batch} images, and one has "
                f"{images}: give the loader a larger batch_size, or drop_last=True if only the last is smaller."
            )

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        student_features: Features = NONE,
        teacher_features: Features = NONE,
        target: Tensor | None = None,
    ) -> dict[str, Tensor]:
        terms = self.answer(student_logits, teacher_logits, target)
        if not self.stages:
            return terms
        maps = teacher_features[self.stages[-1].teacher]
        if self.training:
            self.check_batch(len(maps))
        with torch.autocast(maps.device.type, enabled=False):
            return terms | self.compare(student_features, teacher_features)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={setting}" for name, setting in self._settings.items())
