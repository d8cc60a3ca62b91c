"""OFA: each of a student's stages predicts through its own exit and learns from the teacher's logits, not features.

Source: Hao et al., "One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge Distillation",
NeurIPS 2023 ("OFA-KD").
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log2

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transpike.distill.decoupled import scaled_logits, target_index
from transpike.distill.feature_method import student_maps
from transpike.distill.inputs import labels
from transpike.distill.method import NONE, Features, Method
from transpike.distill.taps import Stage
from transpike.errors import ConfigError

__all__ = ["Exit", "OFADistillation", "target_enhanced"]


def target_enhanced(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor, *, gamma: float = 1.0, temperature: float = 1.0
) -> Tensor:
    """Return the cross-entropy with the teacher's probabilities, with the right class enhanced: a scalar.

    L = -1 / N * sum_n sum_k ((p_t + y)^gamma - y) * log p_s,  p = softmax(z / tau),  y = 1 for the right class, else 0

    For gamma = 1 this is the cross-entropy with the teacher's probabilities. It is not a divergence: for equal logits
    it is not 0.

    Source: Hao et al., NeurIPS 2023, in the form of its public code, which leaves the cross-entropy with the label to
    the task loss.

    Args:
        student_logits: [N, classes], or [T, N, classes], which is averaged over time.
        teacher_logits: [N, classes].
        target: class indices [N], or probabilities [N, classes], of which the largest determines the class.
        gamma: the modulating parameter. A larger value enhances the right class more. The public code's default is 1;
            its README uses 1.5 for DeiT-T -> ResNet-18.
        temperature: tau.

    Raises:
        ConfigError: The temperature is not above 0.
        DataError: The shapes do not fit.

    Example:
        >>> zeros = torch.zeros(1, 2)
        >>> round(target_enhanced(zeros, zeros, torch.tensor([0]), gamma=1.0).item(), 4)  # log 2
        0.6931
        >>> round(target_enhanced(zeros, zeros, torch.tensor([0]), gamma=2.0).item(), 4)  # (1.5^2 - 1 + 0.5^2) log 2
        1.0397
    """
    student, teacher = scaled_logits(student_logits, teacher_logits, temperature)
    right = F.one_hot(target_index(target), teacher.shape[-1])
    weight = (teacher.softmax(-1) + right) ** gamma - right
    return -(weight * student.log_softmax(-1)).sum(-1).mean()


class Exit(nn.Sequential):
    """Computes logits from maps: separable convolutions that each halve the grid, the mean over space, a linear layer.

    A halving has two pairs: a depthwise 3x3 convolution (stride 2 in the first pair) and a pointwise one, each pair
        with batch normalization and ReLU. The channels double up to the width. Without halvings, there is one 1x1
        convolution.

    Args:
        channels: channels of the maps.
        width: channels before the linear layer.
        classes: the number of logits.
        halvings: how often the grid is halved.

    Shapes: [N, C, H, W] -> [N, classes].

    Example:
        >>> Exit(4, 16, 10, halvings=2)(torch.rand(2, 4, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(self, channels: int, width: int, classes: int, *, halvings: int) -> None:
        layers: list[nn.Module] = []
        for left in reversed(range(halvings)):
            wider = min(2 * channels, width) if left else width
            layers += [*_separable(channels, channels, stride=2), *_separable(channels, wider, stride=1)]
            channels = wider
        layers = layers or [nn.Conv2d(channels, width, 1)]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))
        for module in self:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)


def _separable(channels: int, out: int, *, stride: int) -> list[nn.Module]:
    depthwise = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False)
    return [depthwise, nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]


class OFADistillation(Method):
    """alpha * `target_enhanced` of the student's logits + beta * the same of an `Exit` at each stage, summed.

    The teacher's features are not used, so the networks may be of any two kinds. An exit halves the grid as often as
    there are stages after its own, while the grid can be halved.

    Source: Hao et al., NeurIPS 2023; weights and temperature are the defaults of its public code, gamma is from its
    example for ImageNet. Our reading: all students have the exits that the paper gives to CNNs. Transformers use the
    grid of their tokens, where the paper has attention blocks.

    Args:
        stages: pairs of taps, in order of depth. The student's taps of all stages are used.
        alpha: weight of the student's own logits. A term with weight 0 is left out.
        beta: weight of the exits.
        gamma: the modulating parameter of `target_enhanced`.
        temperature: the temperature of the softmax.
        classes: the number of an exit's logits, at least the number of classes. Logits beyond it are not used. The
            trainer sets it.

    Shapes: student logits [T, N, classes] or [N, classes], teacher logits [N, classes]; the student's features by tap,
    [T, N, C, H, W] or [N, C, H, W]; class indices [N] or probabilities [N, classes] -> weighted scalars "logits" and
    "exits".

    Raises:
        ConfigError: There are no stages, the temperature is not above 0, a weight is below 0, or there is less than one
            class. On call: the logits have more classes than ``classes``.
        DataError: On call: maps do not fit their stages, or a training batch has one image.

    Example:
        >>> method = OFADistillation([Stage("a", "b", 4, 6, (8, 8), (4, 4))], gamma=1.0)
        >>> logits, target = torch.zeros(3, 10), torch.tensor([0, 1, 2])
        >>> terms = method(logits, logits, {"a": torch.zeros(2, 3, 4, 8, 8)}, {}, target)
        >>> {name: round(term.item(), 4) for name, term in terms.items()}  # log 10 each
        {'logits': 2.3026, 'exits': 2.3026}
    """

    needs = frozenset({"features", "labels", "classes"})
    smallest_batch = 2

    def __init__(
        self,
        stages: Sequence[Stage] = (),
        *,
        alpha: float = 1.0,
        beta: float = 1.0,
        gamma: float = 1.0,
        temperature: float = 1.0,
        classes: int = 1000,
    ) -> None:
        super().__init__(stages if beta else (), alpha=alpha, beta=beta, gamma=gamma, temperature=temperature)
        if beta and not stages:
            raise ConfigError(
                f"beta={beta}: the exits of OFA need stages (pairs of taps). Give taps, or set beta to 0."
            )
        if classes < 1:
            raise ConfigError(f"classes={classes}: expected at least 1.")
        self.classes = classes
        width = max((max(stage.student_channels, stage.teacher_channels) for stage in self.stages[-1:]), default=1)
        self.exits = nn.ModuleList(
            Exit(stage.student_channels, width, classes, halvings=min(after, int(log2(min(stage.student_size)))))
            for after, stage in zip(reversed(range(len(self.stages))), self.stages, strict=True)
        )

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        student_features: Features = NONE,
        teacher_features: Features = NONE,
        target: Tensor | None = None,
    ) -> dict[str, Tensor]:
        def loss(logits: Tensor) -> Tensor:
            gamma = self.weights["gamma"]
            return target_enhanced(logits, teacher_logits, labels(target), gamma=gamma, temperature=self.temperature)

        if self.training:
            self.check_batch(len(teacher_logits))
        terms, classes = {}, teacher_logits.shape[-1]
        if alpha := self.weights["alpha"]:
            terms["logits"] = alpha * loss(student_logits)
        if beta := self.weights["beta"]:
            if classes > self.classes:
                raise ConfigError(f"classes={self.classes}: the logits have {classes} classes. Set classes={classes}.")
            with torch.autocast(student_logits.device.type, enabled=False):
                losses = [
                    loss(leave(student_maps(stage, student_features))[:, :classes])
                    for leave, stage in zip(self.exits, self.stages, strict=True)
                ]
            terms["exits"] = beta * torch.stack(losses).sum()
        return terms

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, classes={self.classes}"
