"""Spike-element-wise residual networks: every branch ends in spikes, and the sums add spikes.

Source: Fang, Yu, Chen, Huang, Masquelier, Tian, "Deep Residual Learning in Spiking Neural Networks", NeurIPS 2021, with
the function ADD.
"""

from __future__ import annotations

from torch import Tensor, nn

from transpike.models.resnet import RESNETS, BasicBlock, Plan
from transpike.models.spiking import Neuron, OverTime, over_time

__all__ = ["SEW_RESNETS", "SEWBasicBlock", "SEWBottleneck"]

SEW_RESNETS: dict[str, Plan] = {
    # BSD's CIFAR network: the blocks and the head of TET's ResNet-19.
    "sew_resnet19": RESNETS["resnet19"],
    "sew_resnet18": Plan(64, ((64, 2, 1), (128, 2, 2), (256, 2, 2), (512, 2, 2)), large=True),
    "sew_resnet34": Plan(64, ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)), large=True),
    "sew_resnet50": Plan(64, ((256, 3, 1), (512, 4, 2), (1024, 6, 2), (2048, 3, 2)), large=True),
}


class SEWBasicBlock(BasicBlock):
    """y = neuron(bn(conv(neuron(bn(conv(x)))))) + shortcut(x). A shortcut that projects ends in a neuron too.

    Shapes: [T, N, in_channels, H, W] -> [T, N, channels, H / stride, W / stride], small integers.
    """

    step_mode = "m"

    def __init__(self, in_channels: int, channels: int, *, stride: int, activation: Neuron) -> None:
        super().__init__(in_channels, channels, stride=stride, activation=activation)
        self.shortcut = OverTime(*self.shortcut, *([activation()] if len(self.shortcut) else []))

    def forward(self, x: Tensor) -> Tensor:
        out = over_time(x, self.conv1, self.bn1, self.act1, self.conv2, self.bn2, self.act2)
        summed: Tensor = out + self.shortcut(x)
        return summed


class SEWBottleneck(nn.Module):
    """The same with three convolutions, 1x1, 3x3 (with the stride) and 1x1, in a quarter of the channels."""

    step_mode = "m"

    def __init__(self, in_channels: int, channels: int, *, stride: int, activation: Neuron) -> None:
        super().__init__()
        inner = channels // 4
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.act1 = activation()
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.act2 = activation()
        self.conv3 = nn.Conv2d(inner, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.act3 = activation()
        self.shortcut = OverTime()
        if stride != 1 or in_channels != channels:
            projection = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.shortcut = OverTime(projection, nn.BatchNorm2d(channels), activation())

    def forward(self, x: Tensor) -> Tensor:
        out = over_time(x, self.conv1, self.bn1, self.act1, self.conv2, self.bn2, self.act2)
        out = over_time(out, self.conv3, self.bn3, self.act3)
        summed: Tensor = out + self.shortcut(x)
        return summed
