"""ReviewKD: each stage of a student, together with all its deeper stages, learns from a stage of the teacher."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transpike.checks import whole
from transpike.distill.adapter import on_grid
from transpike.distill.feature_method import FeatureMethod, stage_maps
from transpike.distill.inputs import feature_pair
from transpike.distill.method import Features
from transpike.distill.taps import Stage

__all__ = ["AttentionFusion", "ReviewKDDistillation", "hierarchical_distance"]


def hierarchical_distance(student: Tensor, teacher: Tensor, *, sizes: Sequence[int] = (4, 2, 1)) -> Tensor:
    """Return the mean squared difference of maps, at full size and pooled to smaller grids: a scalar.

    L = sum_l 2^-l MSE_l / sum_l 2^-l,  MSE_0 of the maps, MSE_1, MSE_2, ... of their means on `sizes` x `sizes`

    Grids that are not smaller than the maps are left out.

    Source: Chen et al., "Distilling Knowledge via Knowledge Review", CVPR 2021, its hierarchical context loss; sizes
    and weights from its public code.

    Args:
        student: [N, C, H, W].
        teacher: [N, C, H, W].
        sizes: the smaller grids.

    Example:
        >>> maps = torch.tensor([1.0, -1.0]).repeat(2).view(1, 1, 2, 2)  # mean 0: only the first level of two differs
        >>> round(hierarchical_distance(maps, torch.zeros(1, 1, 2, 2)).item(), 4)
        0.6667
    """
    student, teacher = feature_pair(student, teacher)
    smaller = [size for size in sizes if size < min(student.shape[-2:])]
    total = F.mse_loss(student, teacher)
    for level, size in enumerate(smaller, 1):
        pooled = F.adaptive_avg_pool2d(student, size), F.adaptive_avg_pool2d(teacher, size)
        total = total + F.mse_loss(*pooled) / 2**level
    return total / sum(0.5**level for level in range(len(smaller) + 1))


class AttentionFusion(nn.Module):
    """Fuses a stage's maps with the output of deeper stages, to maps with the teacher's channels.

    x = BN(conv1x1(maps));  a, b = sigmoid(conv1x1([x, y]));  y' = a x + b y;  out = BN(conv3x3(y'))

    Here y is the output of the next deeper stage, resized to the grid of x, and y' is passed on. The deepest stage has
    no y, and y' = x.

    Source: Chen et al., CVPR 2021, its attention based fusion.

    Args:
        channels: channels of the maps.
        inner: channels of x and y.
        teacher_channels: channels of the output.
        deepest: whether the stage has no deeper one.

    Shapes: [N, C, H, W] and [N, inner, H', W'] -> [N, teacher_channels, H, W] and [N, inner, H, W].

    Example:
        >>> fusion = AttentionFusion(4, 8, 6, deepest=False)
        >>> out, passed = fusion(torch.rand(2, 4, 8, 8), torch.rand(2, 8, 4, 4))
        >>> out.shape, passed.shape
        (torch.Size([2, 6, 8, 8]), torch.Size([2, 8, 8, 8]))
    """

    def __init__(self, channels: int, inner: int, teacher_channels: int, *, deepest: bool) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner))
        self.attention = None if deepest else nn.Sequential(nn.Conv2d(2 * inner, 2, 1), nn.Sigmoid())
        self.expand = nn.Sequential(
            nn.Conv2d(inner, teacher_channels, 3, padding=1, bias=False), nn.BatchNorm2d(teacher_channels)
        )
        for block in (self.reduce, self.expand):
            nn.init.kaiming_uniform_(block[0].weight, a=1)  # type: ignore[arg-type]

    def forward(self, maps: Tensor, deeper: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = self.reduce(maps)
        if self.attention is not None and deeper is not None:
            deeper = F.interpolate(deeper, x.shape[-2:], mode="nearest")
            own, other = self.attention(torch.cat([x, deeper], 1)).split(1, dim=1)
            x = own * x + other * deeper
        return self.expand(x), x


class ReviewKDDistillation(FeatureMethod):
    """beta * `hierarchical_distance` of the student's stages after `AttentionFusion`, summed over all stages.

    As in the public code, the means over space at the last stage are one more stage, the deepest.

    Source: Chen et al., CVPR 2021. The weight 1 is that of its public code for ImageNet. For CIFAR-100 the code uses
    0.6 to 8, raised from 0 over the first 20 epochs; here the weight is constant. Our reading: both maps are compared
    on the smaller of the two grids. The public code enlarges the student's maps to the teacher's grid.

    Args:
        stages: pairs of taps, in order of depth; all are used.
        alpha: weight of logits KD.
        beta: weight of the features.
        width: the largest number of channels that are passed on. It is the number of the student's last stage if that
            is smaller.
        temperature: the temperature of logits KD.

    Shapes and errors: as `FeatureMethod` -> weighted scalar "review".

    Example:
        >>> method = ReviewKDDistillation([Stage("a", "b", 4, 6, (8, 8), (4, 4))])
        >>> logits = torch.zeros(3, 10)
        >>> method(logits, logits, {"a": torch.zeros(2, 3, 4, 8, 8)}, {"b": torch.ones(3, 6, 4, 4)})["review"].item()
        2.0
    """

    smallest_batch = 2

    def __init__(
        self,
        stages: Sequence[Stage] = (),
        *,
        alpha: float = 0.0,
        beta: float = 1.0,
        width: int = 512,
        temperature: float = 4.0,
    ) -> None:
        super().__init__(stages, alpha=alpha, temperature=temperature, beta=beta)
        whole("width", width)
        last = self.stages[-1:]
        inner = min([width, *(stage.student_channels for stage in last)])
        self.fusions = nn.ModuleList(
            AttentionFusion(stage.student_channels, inner, stage.teacher_channels, deepest=index == 0)
            for index, stage in enumerate([*last, *reversed(self.stages)])
        )

    def compare(self, student: Features, teacher: Features) -> dict[str, Tensor]:
        levels = [
            [on_grid(maps, stage.size) for maps in stage_maps(stage, student, teacher)]
            for stage in reversed(self.stages)
        ]
        pooled = [maps.mean((-2, -1), keepdim=True) for maps in levels[0]]
        distances, passed = [], None
        for fusion, (own, other) in zip(self.fusions, [pooled, *levels], strict=True):
            out, passed = fusion(own, passed)
            distances.append(hierarchical_distance(out, other))
        return {"review": self.weights["beta"] * torch.stack(distances).sum()}
