"""QKFormer: a hierarchical spiking transformer. Attention in its first two stages is linear in tokens and channels.

Source: Zhou, Zhang, Zhou, Yu, Huang, Fan, Yuan, Ma, Zhou, Tian, "QKFormer: Hierarchical Spiking Transformer using Q-K
Attention", NeurIPS 2024. What the paper leaves open (where to pool, the shortcuts, the stem) follows the authors' code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from transpike.errors import ModelError
from transpike.models.spiking import Neuron, OverTime, over_time, sequence
from transpike.models.spikingformer import SpikingSelfAttention

__all__ = ["QKFORMERS", "Embedding", "Plan", "QKFormer", "QKFormerBlock", "TokenAttention", "token_attention"]


@dataclass(frozen=True)
class Plan:
    """The shape of a QKFormer.

    Attributes:
        width: channels of the last stage; the first two have a quarter and a half.
        depths: the number of blocks of each of the three stages.
        heads: the number of attention heads, which must divide a quarter of the width.
        large: use the beginning for ImageNet: the stem has three convolutions and divides the side of the image by
            four, and the later stages halve it after their first convolution. Otherwise the stem has two convolutions
            and keeps the size, and the later stages halve it after their second.
        ratio: hidden channels of a block's perceptron, as a multiple of the width.
    """

    width: int
    depths: tuple[int, int, int]
    heads: int
    large: bool = False
    ratio: int = 4


QKFORMERS: dict[str, Plan] = {
    # CIFAR, 32x32 to 8x8: HST-4-384.
    "qkformer_4_384": Plan(384, (1, 1, 2), 8),
    # ImageNet, 224x224 to 14x14: HST-10-384.
    "qkformer_10_384": Plan(384, (1, 2, 7), 6, large=True),
}


def token_attention(qk: Tensor, neuron: nn.Module, *, heads: int) -> Tensor:
    """Q-K token attention: a token's keys pass if a neuron that receives the sum of its queries fires.

    Args:
        qk: queries and keys [T, N, 2 C, H, W], spikes.
        neuron: takes [T, N, heads, 1, H W].
        heads: a divisor of C.

    Returns:
        [T, N, C, H, W], spikes.

    Source: QKFormer, equations 6 to 8.

    Example:
        >>> import torch
        >>> from transpike.neurons import IFNode
        >>> qk = torch.tensor([1.0, 0.0, 1.0, 1.0]).view(1, 1, 4, 1, 1)
        >>> token_attention(qk, IFNode(step_mode="m"), heads=2).flatten()  # the second head's query is silent
        tensor([1., 0.])
    """
    q, k = qk.flatten(3).unflatten(2, (2, heads, -1)).unbind(2)
    out: Tensor = (neuron(q.sum(3, keepdim=True)) * k).flatten(2, 3).unflatten(3, qk.shape[3:])
    return out


class TokenAttention(nn.Module):
    """`token_attention` of projected spikes: qk = neuron(bn(conv(x))), and a neuron of threshold 0.5.

    Shapes: [T, N, width, H, W] -> spikes [T, N, width, H, W].
    """

    step_mode = "m"

    def __init__(self, width: int, *, heads: int, activation: Neuron) -> None:
        super().__init__()
        if width % heads:
            raise ModelError(f"heads={heads} does not divide the {width} channels of the attention: give other heads.")
        self.heads = heads
        self.qk = OverTime(nn.Conv2d(width, 2 * width, 1, bias=False), nn.BatchNorm2d(2 * width), activation())
        self.neuron = activation(v_threshold=0.5)

    def forward(self, x: Tensor) -> Tensor:
        return token_attention(self.qk(x), self.neuron, heads=self.heads)


class QKFormerBlock(nn.Module):
    """x += neuron(projection(attention(x))), x += perceptron(x): each branch ends with a neuron.

    Shapes: [T, N, width, H, W] -> [T, N, width, H, W], small integers.
    """

    step_mode = "m"

    def __init__(self, attention: nn.Module, width: int, *, ratio: int, activation: Neuron) -> None:
        super().__init__()
        hidden = width * ratio
        self.attention = OverTime(attention, nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), activation())
        self.perceptron = OverTime(
            nn.Conv2d(width, hidden, 1), nn.BatchNorm2d(hidden), activation(),
            nn.Conv2d(hidden, width, 1), nn.BatchNorm2d(width), activation(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        x = x + self.perceptron(x)
        return x


class Embedding(nn.Module):
    """3x3 convolutions with batch norm and neuron that halve the map after `pools`, and a 1x1 shortcut of equal size.

    Args:
        channels: channels of the input and after each convolution.
        pools: the convolution, counted from 0, after which the map is halved; at most one.
        activation: creates one neuron.

    Shapes: [T, N, channels[0], H, W] -> [T, N, channels[-1], H, W], or half the height and width with a pool.
    """

    step_mode = "m"

    def __init__(self, channels: tuple[int, ...], *, pools: tuple[int, ...], activation: Neuron) -> None:
        super().__init__()
        self.convolutions = OverTime(*_convolutions(channels, pools, activation))
        projection = nn.Conv2d(channels[0], channels[-1], 1, 2 ** len(pools), bias=False)
        self.shortcut = OverTime(projection, nn.BatchNorm2d(channels[-1]), activation())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.convolutions(x) + self.shortcut(x)
        return out


def _convolutions(channels: tuple[int, ...], pools: tuple[int, ...], activation: Neuron) -> Iterator[nn.Module]:
    for index, (before, after) in enumerate(pairwise(channels)):
        yield nn.Conv2d(before, after, 3, padding=1, bias=False)
        yield nn.BatchNorm2d(after)
        if index in pools:
            yield nn.MaxPool2d(3, 2, padding=1)
        yield activation()


class QKFormer(nn.Module):
    """A QKFormer from a plan: three stages, each an embedding and blocks; the mean of the tokens is classified.

    Args:
        plan: width, depths, heads and the size of images.
        num_classes: the number of outputs.
        in_channels: channels of the image.
        activation: creates one neuron; see `neuron_factory`. The attention's neuron has the threshold 0.5.

    Shapes: [T, N, in_channels, H, W] -> [T, N, num_classes].

    Raises:
        ModelError: The heads do not divide a quarter of the width, or 8 does not divide the width.
        DataError: On call: the input has another rank, or T = 0.

    Example:
        >>> import torch
        >>> from transpike.models.spiking import neuron_factory
        >>> plan = Plan(width=16, depths=(1, 1, 1), heads=2)
        >>> net = QKFormer(plan, num_classes=10, in_channels=3, activation=neuron_factory("LIFNode"))
        >>> net(torch.zeros(2, 1, 3, 8, 8)).shape
        torch.Size([2, 1, 10])
    """

    def __init__(self, plan: Plan, *, num_classes: int, in_channels: int, activation: Neuron) -> None:
        super().__init__()
        if plan.width % 8:
            raise ModelError(
                f"width={plan.width}: the stem begins with an eighth of it, so it must be a multiple of 8."
            )
        eighth, quarter, half, width = (plan.width // part for part in (8, 4, 2, 1))
        self.stem = OverTime(*_convolutions((in_channels, eighth), (0,) if plan.large else (), activation))
        first = Embedding(
            (eighth, quarter, quarter) if plan.large else (eighth, quarter),
            pools=(0,) if plan.large else (),
            activation=activation,
        )
        pools = (0,) if plan.large else (1,)
        self.stage1 = OverTime(first, *_blocks(plan, 0, activation))
        second = Embedding((quarter, half, half), pools=pools, activation=activation)
        self.stage2 = OverTime(second, *_blocks(plan, 1, activation))
        third = Embedding((half, width, width), pools=pools, activation=activation)
        self.stage3 = OverTime(third, *_blocks(plan, 2, activation))
        self.head = nn.Linear(width, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = over_time(sequence(x, self), self.stem, self.stage1, self.stage2, self.stage3)
        return over_time(x.mean((3, 4)), self.head)


def _blocks(plan: Plan, stage: int, activation: Neuron) -> Iterator[QKFormerBlock]:
    width = plan.width // (4, 2, 1)[stage]
    attention = SpikingSelfAttention if stage == 2 else TokenAttention
    for _ in range(plan.depths[stage]):
        attend = attention(width, heads=plan.heads, activation=activation)
        yield QKFormerBlock(attend, width, ratio=plan.ratio, activation=activation)
