"""What a trainer would give a method: noise for logits and maps of pairs that agree in nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from transpike.distill.taps import Stage

STEPS, SAMPLES, CLASSES = 2, 4, 5
TARGET = torch.tensor([0, 3, 1, 4])
# A CNN's halving grids beside a transformer's single one, with other channels; a teacher's grid may be the smaller.
OTHER = (Stage("low", "a", 4, 6, (8, 8), (4, 4)), Stage("high", "b", 8, 6, (2, 2), (4, 4)))
OBLONG = (Stage("low", "a", 4, 3, (6, 4), (5, 3)), Stage("high", "b", 5, 7, (3, 2), (5, 3)))
# Tokens on one grid throughout learn from a CNN.
TOKENS = tuple(Stage(f"block{i}", f"stage{i}", 6, 4 * 2**i, (4, 4), (side, side)) for i, side in enumerate((8, 4, 2)))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(stages: Sequence[Stage], *, seed: int = 0, timed: bool = True, samples: int = SAMPLES) -> tuple[Any, ...]:
    time = (STEPS,) if timed else ()
    student = {s.student: noise(*time, samples, s.student_channels, *s.student_size, seed=seed + 1) for s in stages}
    teacher = {s.teacher: noise(samples, s.teacher_channels, *s.teacher_size, seed=seed + 2) for s in stages}
    logits = noise(*time, samples, CLASSES, seed=seed + 3), noise(samples, CLASSES, seed=seed + 4)
    return *logits, student, teacher, TARGET[:samples]


def as_double(given: Sequence[Any]) -> tuple[Any, ...]:
    """The same in float64, but for the target."""
    student_logits, teacher_logits, student, teacher, target = given
    maps = ({name: x.double() for name, x in side.items()} for side in (student, teacher))
    return student_logits.double(), teacher_logits.double(), *maps, target
