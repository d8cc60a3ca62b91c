"""What methods that compare features have in common: their maps at a stage, and the method around a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from transpike.distill.adapter import mean_over_time
from transpike.distill.logits import check_settings, knowledge_distillation
from transpike.distill.taps import Stage
from transpike.errors import ConfigError, DataError
from transpike.spectral.fourier import full_precision

__all__ = ["FeatureMethod", "Features", "stage_maps", "student_maps"]

Features = Mapping[str, Tensor]


def student_maps(stage: Stage, student: Features) -> Tensor:
    """A student's maps at a stage, averaged over time: [N, C, H, W] in full precision.

    Raises:
        DataError: for maps of another rank or with other channels.

    >>> student_maps(Stage("a", "b", 4, 6, (8, 8), (4, 4)), {"a": torch.ones(2, 3, 4, 8, 8)}).shape
    torch.Size([3, 4, 8, 8])
    """
    maps = student[stage.student]
    if maps.ndim not in (4, 5) or maps.shape[-3] != stage.student_channels:
        raise DataError(
            f"the student's maps have the shape {list(maps.shape)}: expected [T, N, {stage.student_channels}, H, W] or "
            f"[N, {stage.student_channels}, H, W]."
        )
    return mean_over_time(full_precision(maps))


def stage_maps(stage: Stage, student: Features, teacher: Features) -> tuple[Tensor, Tensor]:
    """Maps of both at a stage, averaged over time, each with its own channels and grid, in full precision.

    Raises:
        DataError: for maps of another rank or with other channels.

    >>> stage = Stage("a", "b", 4, 6, (8, 8), (4, 4))
    >>> own, other = stage_maps(stage, {"a": torch.ones(2, 3, 4, 8, 8)}, {"b": torch.ones(3, 6, 4, 4)})
    >>> own.shape, other.shape
    (torch.Size([3, 4, 8, 8]), torch.Size([3, 6, 4, 4]))
    """
    own, other = student_maps(stage, student), full_precision(teacher[stage.teacher])
    if other.ndim != 4 or other.shape[1] != stage.teacher_channels or len(other) != len(own):
        raise DataError(
            f"the teacher's maps have the shape {list(other.shape)}: expected "
            f"[{len(own)}, {stage.teacher_channels}, H, W]."
        )
    return own, other


class FeatureMethod(nn.Module):
    """alpha * KD and weighted terms of features: what the methods of the neighbouring files are made from.

    A child gives `compare`. Terms whose weight is 0 are left out.

    Args:
        stages: pairs of taps.
        alpha: weight of logits KD.
        temperature: of logits KD.
        weights: of the terms of features, by name.

    Shapes: student logits [T, N, classes] or [N, classes], teacher logits [N, classes]; features by tap, the student's
    [T, N, C, H, W] or [N, C, H, W], the teacher's [N, C', H', W'] -> weighted scalars by name.

    Raises:
        ConfigError: without stages, for a temperature that is not above 0, and for weights below 0.
        DataError: on call, for maps that do not fit their stages, and batches of fewer images than the method needs.
    """

    smallest_batch = 1

    def __init__(self, stages: Sequence[Stage], *, alpha: float, temperature: float, **weights: float) -> None:
        super().__init__()
        check_settings(temperature=temperature, alpha=alpha, **weights)
        used = any(weights.values())
        if used and not stages:
            raise ConfigError("distillation of features needs stages, pairs of taps; a weight of 0 leaves them out.")
        self.alpha, self.temperature, self.weights = alpha, temperature, weights
        self.stages = tuple(stages) if used else ()

    def compare(self, student: Features, teacher: Features) -> dict[str, Tensor]:
        """Weighted terms of the features; called without autocast, and only if there are stages."""
        raise NotImplementedError

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        student_features: Features,
        teacher_features: Features,
        target: Tensor | None = None,
    ) -> dict[str, Tensor]:
        terms = {}
        if self.alpha:
            kd = knowledge_distillation(student_logits, teacher_logits, temperature=self.temperature)
            terms["kd"] = self.alpha * kd
        if self.stages:
            if len(teacher_logits) < self.smallest_batch:
                raise DataError(
                    f"{type(self).__name__} needs batches of at least {self.smallest_batch} images, but was given "
                    f"{len(teacher_logits)}: drop the last batch if it is smaller."
                )
            with torch.autocast(student_logits.device.type, enabled=False):
                terms |= self.compare(student_features, teacher_features)
        return terms

    def extra_repr(self) -> str:
        weights = "".join(f", {name}={weight}" for name, weight in self.weights.items())
        return f"alpha={self.alpha}, temperature={self.temperature}{weights}"
