"""The common parts of methods that compare features: their maps at a stage, and the base class."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from transpike.distill.adapter import mean_over_time
from transpike.distill.inputs import check_images
from transpike.distill.logits import knowledge_distillation
from transpike.distill.method import NONE, Features, Method
from transpike.distill.taps import Stage
from transpike.errors import ConfigError, DataError, ModelError
from transpike.spectral.fourier import full_precision

__all__ = ["FeatureMethod", "HeadMethod", "smallest_of_norms", "stage_maps", "student_maps"]


def student_maps(stage: Stage, student: Features) -> Tensor:
    """Return a student's maps at a stage, averaged over time: [N, C, H, W] in full precision.

    Raises:
        DataError: The maps have another rank or other channels.

    Example:
        >>> import torch
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
    """Both networks' maps at a stage, averaged over time, each with its own channels and grid, in full precision.

    The teacher's maps get no gradient.

    Raises:
        DataError: The maps have another rank or other channels, or there are no images.

    Example:
        >>> import torch
        >>> stage = Stage("a", "b", 4, 6, (8, 8), (4, 4))
        >>> own, other = stage_maps(stage, {"a": torch.ones(2, 3, 4, 8, 8)}, {"b": torch.ones(3, 6, 4, 4)})
        >>> own.shape, other.shape
        (torch.Size([3, 4, 8, 8]), torch.Size([3, 6, 4, 4]))
    """
    own, other = student_maps(stage, student), full_precision(teacher[stage.teacher].detach())
    if other.ndim != 4 or other.shape[1] != stage.teacher_channels or len(other) != len(own):
        raise DataError(
            f"the teacher's maps have the shape {list(other.shape)}: expected "
            f"[{len(own)}, {stage.teacher_channels}, H, W]."
        )
    check_images(own, other)
    return own, other


def smallest_of_norms(stages: Sequence[Stage]) -> int:
    """Return how many images batch normalisation needs in training: 2 if a stage's maps have a single place."""
    return 2 if any(stage.size == (1, 1) for stage in stages) else 1


class FeatureMethod(Method):
    """Base class: alpha * KD and weighted terms of features. Terms with weight 0 are left out.

    A subclass defines `compare`. It also defines `answer` if it has other terms of the logits than KD.

    Args:
        stages: pairs of taps.
        alpha: weight of logits KD.
        temperature: the temperature of logits KD.
        weights: the weights of the terms of features, by name.

    Shapes: As for `Method`.

    Raises:
        ConfigError: There are no stages, the temperature is not above 0, or a weight is below 0.
        DataError: On call: maps do not fit their stages, or a batch has too few images.
    """

    needs = frozenset({"features"})

    def __init__(self, stages: Sequence[Stage], *, alpha: float, temperature: float, **weights: float) -> None:
        # No stages if all weights are 0: DDP raises an error for parameters that no loss depends on.
        super().__init__(stages if any(weights.values()) else (), alpha=alpha, temperature=temperature, **weights)
        if any(weights.values()) and not stages:
            values = ", ".join(f"{name}={weight}" for name, weight in weights.items())
            raise ConfigError(
                f"{values}: to compare features, the method needs stages (pairs of taps). Give taps, or set the "
                "weights to 0."
            )

    def answer(self, student: Tensor, teacher: Tensor, target: Tensor | None) -> dict[str, Tensor]:
        alpha = self.weights["alpha"]
        if not alpha:
            return {}
        return {"kd": alpha * knowledge_distillation(student, teacher, temperature=self.temperature)}


class HeadMethod(FeatureMethod):
    """Base class of methods that read maps of the last stage by the teacher's last layer.

    The trainer passes the weights of this layer by `see_head`. In `compare`, ``head`` holds them (None without), and
    ``logits`` the teacher's logits of the batch, without gradient.

    Args:
        stages: pairs of taps; the last is used.
        alpha: weight of the logits.
        beta: weight of the features.
        temperature: the temperature of the logits.

    Shapes, errors: as `FeatureMethod`.
    """

    needs = frozenset({"features", "head"})
    head: Tensor | None
    logits: Tensor

    def __init__(self, stages: Sequence[Stage], *, alpha: float, beta: float, temperature: float) -> None:
        super().__init__(stages[-1:], alpha=alpha, temperature=temperature, beta=beta)
        self.register_buffer("head", None, persistent=False)

    def see_head(self, weight: Tensor | None) -> None:
        """Receive the weights [classes, C'] of the teacher's last layer, if features are compared.

        Raises:
            ModelError: The weights do not fit the teacher's maps, or there are none.
        """
        if not self.stages:
            return
        [stage] = self.stages
        if weight is None or weight.ndim != 2 or weight.shape[1] != stage.teacher_channels:
            found = "none was found" if weight is None else f"the last one takes {weight.shape[1]}"
            raise ModelError(
                f"this method weighs the teacher's maps at {stage.teacher!r} by its last layer, which must take their "
                f"{stage.teacher_channels} channels: {found}. Tap the stage before it, or take beta=0."
            )
        self.head = weight.detach().clone()

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        student_features: Features = NONE,
        teacher_features: Features = NONE,
        target: Tensor | None = None,
    ) -> dict[str, Tensor]:
        self.logits = teacher_logits.detach()
        return super().forward(student_logits, teacher_logits, student_features, teacher_features, target)
