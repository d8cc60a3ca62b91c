"""VGG networks of the literature.

These are the VGG-16 of conversion papers, the bias-free VGG-5, -9, -11 and -13 of DCT-SNN, and the VGG-8 and -13 of
distillation papers. As in the residual networks, the activation is a parameter, so a spiking network is the same
network with neurons.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from transpike.errors import DataError, ModelError

__all__ = ["VGG", "VGGS", "Plan"]


@dataclass(frozen=True)
class Plan:
    """The shape of a VGG network.

    Attributes:
        layers: output channels of each 3x3 convolution. 0 is a 2x2 pooling.
        image_size: side in pixels of the square image for which the head is made.
        hidden: width of the two hidden linear layers. With None there are no hidden layers, and the classifier takes
            the mean over space, so that it fits any size.
        norm: whether there are batch normalisations after the convolutions, and biases in the head. Without norm no
            layer has a bias.
        dropout: the rate after each hidden linear layer and, without norm, after each convolution that no pooling
            follows.
        pool: "average" or "max".
    """

    layers: tuple[int, ...]
    image_size: int
    hidden: int | None
    norm: bool
    dropout: float
    pool: str = "average"


def _plan(text: str, **shape: Any) -> Plan:
    return Plan(tuple(0 if word == "P" else int(word) for word in text.split()), **shape)


_BARE: dict[str, Any] = {"hidden": 4096, "norm": False, "dropout": 0.2}
_PLAIN_HEAD: dict[str, Any] = {"image_size": 32, "hidden": None, "norm": True, "dropout": 0.0, "pool": "max"}
VGGS: dict[str, Plan] = {
    # Simonyan and Zisserman 2015, configuration D, with batch norm and 512-wide hidden layers for 32x32 images.
    "vgg16": _plan(
        "64 64 P 128 128 P 256 256 256 P 512 512 512 P 512 512 512 P", image_size=32, hidden=512, norm=True, dropout=0.5
    ),
    # Garg et al. 2021 (DCT-SNN). The numbers in the names do not count weight layers.
    "vgg5": _plan("64 P 128 128 P", image_size=32, **_BARE),
    "vgg9": _plan("64 P 128 128 P 256 256 P 512 512 P", image_size=60, **_BARE),
    "vgg11": _plan("64 P 128 256 P 512 512 512 P 512 512 P", image_size=60, **_BARE),
    "vgg13": _plan("64 64 P 128 128 P 256 256 P 512 512 P 512 512 P", image_size=64, **_BARE),
    # Tian et al. 2020 (CRD), for 32 px, with only three poolings.
    "vgg13_bn": _plan("64 64 P 128 128 P 256 256 P 512 512 512 512", **_PLAIN_HEAD),
    "vgg8_bn": _plan("64 P 128 P 256 P 512 512", **_PLAIN_HEAD),
}
POOLS: dict[str, Callable[[int], nn.Module]] = {"average": nn.AvgPool2d, "max": nn.MaxPool2d}


class VGG(nn.Module):
    """A VGG network from a plan: convolutions and poolings, two hidden linear layers or none, the classifier.

    Args:
        plan: channels, poolings, head and regularisation.
        num_classes: the number of outputs.
        in_channels: channels of the image.
        activation: creates one activation. It is called for each place.

    Shapes: [N, in_channels, S, S] -> [N, num_classes], with S the plan's image size.

    Raises:
        ModelError: The pooling is unknown, or the poolings would leave nothing of the image.
        DataError: On call: images have another size, and features are not averaged (there are hidden layers).

    Example:
        >>> net = VGG(VGGS["vgg5"], num_classes=10, in_channels=3)
        >>> net.classifier[0]
        Linear(in_features=8192, out_features=4096, bias=False)
    """

    def __init__(
        self,
        plan: Plan,
        *,
        num_classes: int,
        in_channels: int,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        if plan.pool not in POOLS:
            raise ModelError(f"pool={plan.pool!r}: a VGG pools by {' or '.join(map(repr, POOLS))}.")
        halvings = plan.layers.count(0)
        side = plan.image_size >> halvings
        if side == 0:
            raise ModelError(
                f"image_size={plan.image_size}: this VGG halves the image {halvings} times, so it needs at least "
                f"{2**halvings} pixels a side. Enlarge the images or take a ResNet."
            )
        features: list[nn.Module] = []
        width = in_channels
        for index, layer in enumerate(plan.layers):
            if layer == 0:
                features.append(POOLS[plan.pool](2))
                continue
            features.append(nn.Conv2d(width, layer, 3, padding=1, bias=False))
            features += [nn.BatchNorm2d(layer)] if plan.norm else []
            features.append(activation())
            if not plan.norm and plan.layers[index + 1] != 0:
                features.append(nn.Dropout(plan.dropout))
            width = layer
        head: list[nn.Module] = []
        self.flat = width if plan.hidden is None else width * side**2
        if plan.hidden is None:
            features.append(nn.AdaptiveAvgPool2d(1))
        else:
            for inputs in (self.flat, plan.hidden):
                head += [nn.Linear(inputs, plan.hidden, bias=plan.norm), activation(), nn.Dropout(plan.dropout)]
            width = plan.hidden
        self.image_size = plan.image_size
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(*head, nn.Linear(width, num_classes, bias=plan.norm))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self._read_out(torch.flatten(self.features(x), 1))

    def _read_out(self, features: Tensor) -> Tensor:
        try:
            out: Tensor = self.classifier(features)
        except RuntimeError as error:
            if features.shape[-1] == self.flat:
                raise
            raise DataError(
                f"these images leave {features.shape[-1]} features where the network takes {self.flat}: it is made for "
                f"images of {self.image_size} pixels a side. Give create_model the image_size of yours."
            ) from error
        return out
