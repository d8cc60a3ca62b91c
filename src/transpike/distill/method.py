"""The base class of all distillation methods: named, weighted terms of logits and of features."""

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
    """Computes the terms of a loss by name, each already weighted.

    A subclass defines `answer`, the terms of logits. If it has stages, it also defines `compare`, the terms of
    features.

    Args:
        stages: pairs of taps whose features are compared. None for a method that uses only logits.
        settings: the temperature, and the weights by name.

    Attributes:
        needs: what the method needs beside the logits of both networks: "features" at stages, which are pairs of taps;
            "time", the student's logits at every step; "labels", the target; "classes", their number, as an argument;
            "head", the weights of the teacher's last layer, through a method `see_head`.
        smallest_batch: the least number of images in a training batch, if features are compared.

    Shapes: student logits [T, N, classes] or [N, classes], teacher logits [N, classes]; features by tap, the student's
        [T, N, C, H, W] or [N, C, H, W], the teacher's [N, C', H', W']; target, class indices [N] or probabilities [N,
        classes] -> weighted scalars by name.

    Raises:
        ConfigError: The temperature is not above 0, or a weight is below 0.
        DataError: On call: the batch has too few images.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()
    smallest_batch: int = 1
    adapts: ClassVar[str | None] = None
    """A sentence for the report: what the method does to the maps before it compares them. None for nothing."""

    def __init__(self, stages: Sequence[Stage] = (), **settings: float) -> None:
        super().__init__()
        check_settings(**settings)
        self.stages = tuple(stages)
        self.temperature = settings["temperature"]
        self.weights = {name: weight for name, weight in settings.items() if name != "temperature"}
        self._settings = settings

    def answer(self, student: Tensor, teacher: Tensor, target: Tensor | None) -> dict[str, Tensor]:
        """Return weighted terms of the logits."""
        raise NotImplementedError

    def compare(self, student: Features, teacher: Features) -> dict[str, Tensor]:
        """Return weighted terms of the features. This is called without autocast, and only if there are stages."""
        raise NotImplementedError

    def check_batch(self, images: int) -> None:
        """Raise an error for a training batch with too few images.

        Raises:
            DataError: There are too few images.
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
