"""Makes a student's maps comparable with its teacher's: mean over time, projection to the channels, a common grid."""

from __future__ import annotations

from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transpike.distill.taps import Stage
from transpike.errors import DataError

__all__ = ["Adapter", "Pairs", "mean_over_time", "on_grid", "unit_energy"]

Pairs: TypeAlias = dict[Stage, tuple[Tensor, Tensor]]
"""For each stage, the student's maps and the teacher's, both [N, C', H, W]."""


def mean_over_time(x: Tensor) -> Tensor:
    """Average logits [T, N, classes] or maps [T, N, C, H, W] over time. Without a time axis they stay as they are.

    Example:
        >>> mean_over_time(torch.tensor([[[1.0, 0.0]], [[3.0, 2.0]]]))
        tensor([[2., 1.]])
    """
    return x.mean(0) if x.ndim in (3, 5) else x


def on_grid(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Average maps [N, C, H, W] down to a grid of (height, width).

    Raises:
        DataError: The maps are smaller than the grid.

    Example:
        >>> on_grid(torch.arange(4.0).view(1, 1, 2, 2), (1, 1)).item()
        1.5
    """
    if maps.shape[-2] < size[0] or maps.shape[-1] < size[1]:
        raise DataError(f"maps of shape {list(maps.shape)} are smaller than the grid {tuple(size)} to compare on.")
    height, width = maps.shape[-2:]
    if (height, width) == tuple(size):
        return maps
    if height % size[0] or width % size[1]:
        return F.adaptive_avg_pool2d(maps, size)
    return F.avg_pool2d(maps, (height // size[0], width // size[1]))  # the same result at less cost


def unit_energy(maps: Tensor) -> Tensor:
    """Divide maps by the root of their mean square over the batch, so that no loss depends on their scale.

    Example:
        >>> unit_energy(torch.tensor([3.0, -3.0]))
        tensor([ 1., -1.])
    """
    return maps / maps.square().mean().sqrt().clamp(min=1e-12)


class Adapter(nn.Module):
    """Brings a student's maps to the teacher's channels: mean over time, then a 1x1 convolution.

    It begins as the identity if the channels match. The teacher's maps get no gradient.

    Args:
        student_channels: channels of the student's maps.
        teacher_channels: channels of the teacher's maps.

    Shapes: student [T, N, C, H, W] or [N, C, H, W] and teacher [N, C', H', W'] -> both [N, C', *size], in float32.

    Raises:
        DataError: On call: maps have another rank or other channels, are smaller than the grid, or have no images.

    Example:
        >>> student, teacher = Adapter(4, 6)(torch.rand(2, 3, 4, 8, 8), torch.rand(3, 6, 4, 4), size=(4, 4))
        >>> student.shape, teacher.shape
        (torch.Size([3, 6, 4, 4]), torch.Size([3, 6, 4, 4]))
    """

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(student_channels, teacher_channels, 1)
        nn.init.zeros_(self.projection.bias)  # type: ignore[arg-type]
        if student_channels == teacher_channels:
            nn.init.dirac_(self.projection.weight)

    def check(self, student: Tensor, teacher: Tensor) -> None:
        """Raise an error for maps of another rank, with other channels or of another number of images."""
        weight = self.projection.weight
        if student.ndim not in (4, 5) or student.shape[-3] != weight.shape[1]:
            raise DataError(
                f"the student's maps have the shape {list(student.shape)}: expected [T, N, {weight.shape[1]}, H, W] or "
                f"[N, {weight.shape[1]}, H, W]."
            )
        if teacher.ndim != 4 or teacher.shape[1] != weight.shape[0] or len(teacher) != student.shape[-4]:
            raise DataError(
                f"the teacher's maps have the shape {list(teacher.shape)}: expected "
                f"[{student.shape[-4]}, {weight.shape[0]}, H, W]."
            )
        if not teacher.numel():
            raise DataError(f"the teacher's maps have the shape {list(teacher.shape)}: there is nothing to compare.")

    def forward(self, student: Tensor, teacher: Tensor, *, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        self.check(student, teacher)
        weight = self.projection.weight
        with torch.autocast(student.device.type, enabled=False):
            own = on_grid(mean_over_time(student.to(weight.dtype)), size)
            return self.projection(own), on_grid(teacher.detach().to(weight.dtype), size)
