"""A fully connected network without biases: DCT-SNN's 784-100-10 for MNIST, artificial and spiking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from transpike.errors import ModelError
from transpike.models.spiking import OverTime, sequence

__all__ = ["MLP", "MLPS", "Plan", "SpikingMLP"]


@dataclass(frozen=True)
class Plan:
    """The shape of a fully connected network.

    Attributes:
        hidden: the width of the hidden layer, or of each hidden layer.
        image_size: side of the square image, in pixels.
        dropout: the rate after each hidden layer.
    """

    hidden: int | Sequence[int] = 100
    image_size: int = 28
    dropout: float = 0.2


MLPS = {"mlp": Plan()}


class MLP(nn.Module):
    """Linear layers without biases. An activation and dropout follow each layer except the last.

    Args:
        plan: widths and regularisation.
        num_classes: the number of outputs.
        in_channels: channels of the image.
        activation: creates one activation.

    Shapes: [N, in_channels, S, S] -> [N, num_classes], with S the plan's image size.

    Raises:
        ModelError: A width is below 1.

    Source of 784-100-10: Garg, Chowdhury, Roy, "DCT-SNN: Using DCT to Distribute Spatial Information over Time for
    Low-Latency Spiking Neural Networks", ICCV 2021, supplement, Section 5.1.

    Example:
        >>> [tuple(p.shape) for p in MLP(MLPS["mlp"], num_classes=10, in_channels=1).parameters()]
        [(100, 784), (10, 100)]
    """

    def __init__(
        self, plan: Plan, *, num_classes: int, in_channels: int, activation: Callable[[], nn.Module] = nn.ReLU
    ) -> None:
        super().__init__()
        hidden = (plan.hidden,) if isinstance(plan.hidden, int) else tuple(plan.hidden)
        if min(hidden, default=1) < 1:
            raise ModelError(f"hidden={plan.hidden}: a layer has at least 1 neuron.")
        layers: list[nn.Module] = []
        width = in_channels * plan.image_size**2
        for layer in hidden:
            layers += [nn.Linear(width, layer, bias=False), activation(), nn.Dropout(plan.dropout)]
            width = layer
        self.layers = nn.Sequential(*layers, nn.Linear(width, num_classes, bias=False))
        for module in self.layers:
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(torch.flatten(x, 1))
        return out


class SpikingMLP(MLP):
    """`MLP` over time, with the same arguments; `activation` creates one neuron.

    The last layer only accumulates. It returns its outputs times T, whose mean over time is DCT-SNN's final membrane.

    Shapes: [T, N, in_channels, S, S] -> [T, N, num_classes], with S the plan's image size.

    Raises:
        DataError: On call: the input has another rank, or T = 0.
    """

    def __init__(self, plan: Plan, *, num_classes: int, in_channels: int, activation: Callable[[], nn.Module]) -> None:
        super().__init__(plan, num_classes=num_classes, in_channels=in_channels, activation=activation)
        self.layers = OverTime(*self.layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(sequence(x, self).flatten(2))
        return out * len(out)
