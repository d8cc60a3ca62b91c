"""Spikingformer: a transformer in which every layer receives spikes, but the residual stream is not spikes.

Source: Zhou, Yu, Zhou, Ma, Zhang, Zhou, Tian, "Spikingformer: Spike-driven Residual Learning for Transformer-based
Spiking Neural Network", 2023. The tokenizer is that of the authors' "Enhancing the Performance of Transformer-based
Spiking Neural Networks by SNN-optimized Downsampling with Precise Gradient Backpropagation", 2023, which pools before
the neuron and not after it. BKDSNN and BSD distil into this network.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from transpike.errors import ModelError
from transpike.models.spiking import Neuron, OverTime, over_time, sequence

__all__ = ["SPIKINGFORMERS", "Plan", "SpikingSelfAttention", "Spikingformer", "SpikingformerBlock", "self_attention"]


@dataclass(frozen=True)
class Plan:
    """The shape of a Spikingformer.

    Attributes:
        width: channels of a token.
        depth: the number of blocks.
        heads: the number of attention heads, which must divide the width.
        pools: the tokenizer's convolutions, counted from 0 to 4, after which the map is halved.
        ratio: hidden channels of a block's perceptron, as a multiple of the width.
    """

    width: int
    depth: int
    heads: int
    pools: tuple[int, ...]
    ratio: int = 4


SPIKINGFORMERS: dict[str, Plan] = {
    # CIFAR, 32x32 to 8x8. The authors use 12 heads for CIFAR-10 and 8 for CIFAR-100.
    "spikingformer_4_384": Plan(384, 4, 12, (2, 3)),
    # Events, 128x128 to 8x8.
    "spikingformer_2_256": Plan(256, 2, 16, (0, 1, 2, 3)),
    # ImageNet, 224x224 to 14x14.
    "spikingformer_8_512": Plan(512, 8, 8, (0, 1, 2, 3)),
    "spikingformer_8_768": Plan(768, 8, 8, (0, 1, 2, 3)),
}


def self_attention(qkv: Tensor, *, heads: int) -> Tensor:
    """Spiking self-attention, ``q (k^T v) / 8``, without softmax, so that keys and values can be summed first.

    Args:
        qkv: queries, keys and values [T, N, 3 C, H, W], spikes.
        heads: a divisor of C.

    Returns:
        [T, N, C, H, W], a current.

    Source: Zhou et al., "Spikformer: When Spiking Neural Network Meets Transformer", ICLR 2023, equation 6; the scale
    is that of the authors' code.

    Example:
        >>> import torch
        >>> self_attention(torch.ones(1, 1, 6, 2, 2), heads=1).unique()  # 2 channels x 4 tokens / 8
        tensor([1.])
    """
    q, k, v = qkv.flatten(3).unflatten(2, (3, heads, -1)).unbind(2)
    out: Tensor = ((v @ k.mT * 0.125) @ q).flatten(2, 3).unflatten(3, qkv.shape[3:])
    return out


class SpikingSelfAttention(nn.Module):
    """`self_attention` of projected spikes: qkv = neuron(bn(conv(x))), then a neuron of threshold 0.5.

    Shapes: spikes [T, N, width, H, W] -> spikes [T, N, width, H, W].
    """

    step_mode = "m"

    def __init__(self, width: int, *, heads: int, activation: Neuron) -> None:
        super().__init__()
        if width % heads:
            raise ModelError(f"heads={heads} does not divide the {width} channels of the attention: give other heads.")
        self.heads = heads
        self.qkv = OverTime(nn.Conv2d(width, 3 * width, 1, bias=False), nn.BatchNorm2d(3 * width), activation())
        self.neuron = activation(v_threshold=0.5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.neuron(self_attention(self.qkv(x), heads=self.heads))
        return out


class SpikingformerBlock(nn.Module):
    """x += projection(attention(neuron(x))), x += perceptron(x): each branch begins with a neuron and ends without one.

    Shapes: [T, N, width, H, W] -> [T, N, width, H, W].
    """

    step_mode = "m"

    def __init__(self, plan: Plan, *, activation: Neuron) -> None:
        super().__init__()
        width, hidden = plan.width, plan.width * plan.ratio
        attention = SpikingSelfAttention(width, heads=plan.heads, activation=activation)
        self.attention = OverTime(activation(), attention, nn.Conv2d(width, width, 1), nn.BatchNorm2d(width))
        self.perceptron = OverTime(
            activation(), nn.Conv2d(width, hidden, 1), nn.BatchNorm2d(hidden),
            activation(), nn.Conv2d(hidden, width, 1), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        x = x + self.perceptron(x)
        return x


class Spikingformer(nn.Module):
    """A Spikingformer from a plan: five convolutions make tokens, blocks mix them, their mean is classified.

    The 9.36 M parameters that BSD states for CIFAR-100 include two layer norms in each block, 4 * width weights. The
    authors' code creates these norms and never calls them. This network does not have them.

    Args:
        plan: width, depth, heads and the tokenizer's poolings.
        num_classes: the number of outputs.
        in_channels: channels of the image.
        activation: creates one neuron; see `neuron_factory`. The attention's neuron has the threshold 0.5.

    Shapes: [T, N, in_channels, H, W] -> [T, N, num_classes].

    Raises:
        ModelError: The heads or 8 do not divide the width.
        DataError: On call: the input has another rank, or T = 0.

    Example:
        >>> import torch
        >>> from transpike.models.spiking import neuron_factory
        >>> plan = Plan(width=16, depth=1, heads=2, pools=(2, 3))
        >>> net = Spikingformer(plan, num_classes=10, in_channels=3, activation=neuron_factory("LIFNode"))
        >>> net(torch.zeros(2, 1, 3, 8, 8)).shape
        torch.Size([2, 1, 10])
    """

    def __init__(self, plan: Plan, *, num_classes: int, in_channels: int, activation: Neuron) -> None:
        super().__init__()
        width = plan.width
        if width % 8:
            raise ModelError(
                f"width={width}: the tokenizer begins with an eighth of it, so it must be a multiple of 8."
            )
        channels = (in_channels, width // 8, width // 4, width // 2, width, width)
        layers: list[nn.Module] = []
        for index in range(5):
            layers += [activation()] if index else []
            layers.append(nn.Conv2d(channels[index], channels[index + 1], 3, padding=1, bias=False))
            layers.append(nn.BatchNorm2d(channels[index + 1]))
            layers += [nn.MaxPool2d(3, 2, padding=1)] if index in plan.pools else []
        self.tokenizer = OverTime(*layers)
        self.blocks = OverTime(*(SpikingformerBlock(plan, activation=activation) for _ in range(plan.depth)))
        self.head = nn.Linear(width, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = over_time(sequence(x, self), self.tokenizer, self.blocks)
        return over_time(x.mean((3, 4)), self.head)
