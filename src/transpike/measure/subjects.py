"""A network under analysis, alone or beside its teacher: its inputs and its taps."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from transpike.distill import Stage, Tap, create_method, default_taps, find_taps, match_taps, pair_taps
from transpike.distill.adapter import Pairs
from transpike.distill.bsd import SpectralResidualDistillation
from transpike.distill.sfkd import SpatialFrequencyDistillation
from transpike.errors import ModelError
from transpike.models import read_weights
from transpike.models.mlp import MLP
from transpike.neurons import reset_net
from transpike.results import Distillation, Training, read_result
from transpike.train.losses import readout
from transpike.train.teacher import Teacher, TeacherInput

__all__ = ["Subject", "find_stages"]


@dataclass
class Subject:
    """A network under analysis: its inputs and its taps.

    Attributes:
        label: its name in tables and figures.
        place: the folder of its run, or the network's name if no run trained it.
        name: the network's name.
        model: the network, in evaluation mode.
        given: turns images into the network's input.
        taps: the taps of its features.
        stages: the pairs of the students' and the teacher's taps, if there is a teacher.
        method: the method of its distillation, with what it trained beside the student. None if it trained nothing.
        learned: the settings of its distillation, from its run. None if it learned from no teacher.
    """

    label: str
    place: str
    name: str
    model: nn.Module
    given: TeacherInput
    taps: dict[str, Tap] = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()
    method: nn.Module | None = None
    learned: Distillation | None = None

    @property
    def adapters(self) -> dict[Stage, SpectralResidualDistillation | SpatialFrequencyDistillation]:
        """For each stage, the module that distillation trained beside the student, if it was SRD or SFKD."""
        modules = getattr(self.method, "srd", None) or getattr(self.method, "distances", None) or ()
        return dict(zip(self.stages, modules, strict=True)) if len(modules) else {}

    def pairs(self, own: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> Pairs:
        """Return by stage its maps and the teacher's as its distillation compared them; none if it compared no maps."""
        compare = getattr(self.method, "pairs", None)
        return compare(own, theirs) if compare else {}

    def observer(self) -> Teacher:
        """Return a function from images to logits [N, classes] and maps {tap: [N, C, H, W]}, averaged over time."""
        return Teacher(self.model, taps=self.taps, given=self.given)


def find_stages(
    student: Subject,
    teacher: Subject | None,
    images: Tensor,
    *,
    taps: Mapping[str, str] | Sequence[str] | None,
) -> None:
    """Find a student's taps, the corresponding taps of the teacher and, if the run trained any, its method's adapters.

    Args:
        student: receives taps, stages and its method.
        teacher: receives taps.
        images: two images.
        taps: the student's modules, each with or without the teacher's. By default those of the run, or the networks'
            stages.

    Raises:
        ModelError: Taps do not exist or have no spatial axes, or the networks have different classes.
    """
    learned = student.learned = _distillation(student.place)
    own = teacher is None or (learned is not None and teacher.name == learned.teacher)
    known = (learned.taps if learned else None) or _default_taps(student.model)
    pairs = taps or (known if own else list(known))
    student.taps, classes = _find(student, list(pairs), images)
    if teacher is None:
        return
    others = list(pairs.values()) if isinstance(pairs, Mapping) else _default_taps(teacher.model)
    teacher_taps, their_classes = _find(teacher, others, images)
    if classes != their_classes:
        raise ModelError(
            f"{student.place} has {classes} classes, but the teacher, {teacher.place}, has {their_classes}."
        )
    matched = match_taps(student.taps, teacher_taps) if teacher_taps else []  # an MLP has no taps
    if isinstance(pairs, Mapping):
        matched = list(pairs.items())
    student.stages = pair_taps(student.taps, teacher_taps, matched)
    teacher.taps |= {stage.teacher: teacher_taps[stage.teacher] for stage in student.stages}
    if own and learned and learned.taps == dict(matched):
        student.method = _method(student, learned)


def _default_taps(model: nn.Module) -> list[str]:
    """Return the network's stages; none for a fully connected network, which has no maps."""
    return [] if isinstance(model, MLP) else default_taps(model)


def _find(subject: Subject, names: list[str], images: Tensor) -> tuple[dict[str, Tap], int]:
    """Return taps, and the network's number of classes."""
    shown, classes = subject.given(images), []

    def run() -> None:
        classes.append(readout(subject.model(shown)).shape[-1])

    samples, image = shown.shape[int(shown.ndim == 5)], (shown.shape[-2], shown.shape[-1])
    reset_net(subject.model)
    try:
        found_taps = find_taps(subject.model, names, run, samples=samples, image=image, steps=subject.given.steps)
    finally:
        reset_net(subject.model)
    return found_taps, classes[0]


def _distillation(place: str) -> Distillation | None:
    result = read_result(place) if os.path.isfile(Path(place) / "results.json") else None
    return result.distillation if isinstance(result, Training) else None


def _method(student: Subject, learned: Distillation) -> nn.Module | None:
    file = Path(student.place) / "adapters.safetensors"
    if not os.path.isfile(file):
        return None
    method = create_method(learned.method, student.stages, learned.settings)
    if not hasattr(method, "pairs"):
        return None
    try:
        method.load_state_dict(read_weights(file))
    except RuntimeError as error:
        raise ModelError(f"{file}: does not fit the run's taps and settings ({error}). Distil again.") from error
    device = next(student.model.parameters()).device
    return method.to(device).eval().requires_grad_(False)
