"""Residual networks for small images: CIFAR's ResNets and wide ResNets, and the ResNet-19 of the spiking literature.

The activation is a parameter. With ReLU these are ANNs. A spiking network is the same network with neurons in place of
ReLU, so its weights have the same names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

__all__ = ["RESNETS", "BasicBlock", "Plan", "ResNet"]

Activation = Callable[[], nn.Module]


@dataclass(frozen=True)
class Plan:
    """The shape of a residual network.

    Attributes:
        stem: channels of the first convolution, 3x3 with stride 1.
        stages: (channels, blocks, stride of the first block) for each stage.
        hidden: width of a hidden layer before the classifier. None for a single linear layer.
        large: use the beginning for ImageNet: the first convolution is 7x7 with stride 2, and a 3x3 max-pooling with
            stride 2 follows its activation.
        preactivated: norm and activation come before each convolution. Those of the stem come after the last block.
    """

    stem: int
    stages: tuple[tuple[int, int, int], ...]
    hidden: int | None = None
    large: bool = False
    preactivated: bool = False

    def widened(self, width: int) -> Plan:
        """Return the same plan, scaled so that the stem has `width` channels.

        Example:
            >>> RESNETS["resnet20"].widened(8).stages
            ((8, 3, 1), (16, 3, 2), (32, 3, 2))
        """
        stages = tuple((channels * width // self.stem, blocks, stride) for channels, blocks, stride in self.stages)
        return replace(self, stem=width, stages=stages)


RESNETS: dict[str, Plan] = {
    # He et al. 2015, section 4.2, with projections (option B) where the shape changes.
    "resnet20": Plan(16, ((16, 3, 1), (32, 3, 2), (64, 3, 2))),
    "resnet56": Plan(16, ((16, 9, 1), (32, 9, 2), (64, 9, 2))),
    # Tian et al. 2020 (CRD): the same with other depths and widths, four times as wide after the stem.
    "resnet8x4": Plan(32, ((64, 1, 1), (128, 1, 2), (256, 1, 2))),
    "resnet32x4": Plan(32, ((64, 5, 1), (128, 5, 2), (256, 5, 2))),
    # Zagoruyko and Komodakis 2016, widened twice, without dropout.
    "wrn_16_2": Plan(16, ((32, 2, 1), (64, 2, 2), (128, 2, 2)), preactivated=True),
    "wrn_40_2": Plan(16, ((32, 6, 1), (64, 6, 2), (128, 6, 2)), preactivated=True),
    # He et al. 2015, table 1, with a stem for 32x32 images: 3x3, stride 1, no max-pool.
    "resnet18": Plan(64, ((64, 2, 1), (128, 2, 2), (256, 2, 2), (512, 2, 2))),
    # Deng et al. 2022 (TET): the ResNet-19 with which spiking networks are compared.
    "resnet19": Plan(64, ((128, 3, 1), (256, 3, 2), (512, 2, 2)), hidden=256),
}


class BasicBlock(nn.Module):
    """y = activation(bn(conv(activation(bn(conv(x))))) + shortcut(x)); the shortcut projects where shapes differ."""

    def __init__(self, in_channels: int, channels: int, *, stride: int, activation: Activation) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = activation()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.act2 = activation()
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            projection = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out)) + self.shortcut(x)
        out = self.act2(out)
        return out


class PreactivatedBlock(nn.Module):
    """y = conv(a(conv(a(x)))) + x with a(x) = activation(bn(x)). If shapes differ, + x becomes a projection of a(x).

    Source: He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016.
    """

    def __init__(self, in_channels: int, channels: int, *, stride: int, activation: Activation) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.act1 = activation()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.act2 = activation()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        projects = stride != 1 or in_channels != channels
        self.shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False) if projects else None

    def forward(self, x: Tensor) -> Tensor:
        active = self.act1(self.bn1(x))
        out: Tensor = self.conv2(self.act2(self.bn2(self.conv1(active))))
        return out + (x if self.shortcut is None else self.shortcut(active))


class ResNet(nn.Module):
    """A residual network from a plan: stem, stages of blocks, global average, classifier.

    Args:
        plan: channels, depth and strides.
        num_classes: the number of outputs.
        in_channels: channels of the image.
        activation: creates one activation. It is called for each place, so that every place has its own state.
        block: creates one residual block, as `block(in_channels, channels, stride=..., activation=...)`. The default is
            that of the plan.

    Shapes: [N, in_channels, H, W] -> [N, num_classes], for any H and W.

    Example:
        >>> net = ResNet(RESNETS["resnet20"].widened(8), num_classes=10, in_channels=1)
        >>> net(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        plan: Plan,
        *,
        num_classes: int,
        in_channels: int,
        activation: Activation = nn.ReLU,
        block: Callable[..., nn.Module] | None = None,
    ) -> None:
        super().__init__()
        block = block or (PreactivatedBlock if plan.preactivated else BasicBlock)
        kernel, stride = (7, 2) if plan.large else (3, 1)
        self.conv = nn.Conv2d(in_channels, plan.stem, kernel, stride, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(plan.stages[-1][0] if plan.preactivated else plan.stem)
        self.act = activation()
        self.reduce = nn.MaxPool2d(3, 2, padding=1) if plan.large else nn.Identity()
        width, blocks = plan.stem, []
        for channels, depth, stride in plan.stages:
            for index in range(depth):
                blocks.append(block(width, channels, stride=1 if index else stride, activation=activation))
                width = channels
        self.layers = nn.Sequential(*blocks)
        self.preactivated = plan.preactivated
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc: nn.Module = nn.Linear(width, num_classes)
        if plan.hidden is not None:
            self.fc = nn.Sequential(nn.Linear(width, plan.hidden), activation(), nn.Linear(plan.hidden, num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.preactivated:
            x = self.act(self.bn(self.layers(self.reduce(x))))
        else:
            x = self.layers(self.reduce(self.act(self.bn(x))))
        out: Tensor = self.fc(torch.flatten(self.pool(x), 1))
        return out
