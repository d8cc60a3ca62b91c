"""Converted networks that the exporters are tried on, by name: one for each kind of operation and neuron."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from tests.conversion.nets import Between, Uses
from torch import Tensor, nn

import transpike
from transpike.coding import FS, Burst, MultiThreshold, Quantised, Rate
from transpike.coding.scheme import Scheme
from transpike.conversion import SpikingNetwork

SHAPE = (3, 8, 8)
CODES: dict[str, Scheme] = {
    "ternary": transpike.CSS(steps=8),
    "levels": transpike.CSS(steps=6, levels=(1, 2, 4, 8)),
    "paper": transpike.CSS.paper(steps=12),
    "many levels": transpike.CSS(steps=3, beta=4.0, levels=tuple(range(1, 17)), silent=1),
    "unsigned": transpike.CSS(steps=8, silent=1, signed=False, amplitude="layer"),
    "rate": Rate(steps=16),
    "fs": FS(steps=8),
    "burst": Burst(steps=16),
    "multi-threshold": MultiThreshold(steps=4),
    "8 bits": Quantised(),
}


def _conv(inputs: int = 8, outputs: int = 8, size: int = 3, **others: Any) -> nn.Module:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **others)


def _residual(m: Any, x: Tensor) -> Tensor:
    y = F.relu(m.a(x))
    y = F.relu(m.shortcut(y) + m.c(F.relu(m.b(y))))
    return y + m.d(y)


def _excited(m: Any, x: Tensor) -> Tensor:
    x = F.hardswish(m.a(x))
    return x * F.hardsigmoid(m.up(F.relu(m.down(x.mean((2, 3), keepdim=True)))))


def _attention(m: Any, x: Tensor) -> Tensor:
    q, k, v = m.qkv(x.flatten(2).transpose(1, 2)).chunk(3, -1)
    y: Tensor = (q @ k.transpose(1, 2) / 8**0.5).softmax(-1) @ v
    return y


BODIES: dict[str, Callable[[], nn.Module]] = {
    "residual": lambda: Uses(
        _residual, a=_conv(), b=_conv(stride=2), c=_conv(), shortcut=_conv(size=1, stride=2), d=_conv()
    ),
    "squeeze and excitation": lambda: Uses(
        _excited, a=_conv(groups=8), down=_conv(outputs=4, size=1), up=_conv(inputs=4, size=1)
    ),
    "grouped": lambda: nn.Sequential(_conv(groups=2, stride=2), nn.LeakyReLU(0.1), _conv(groups=4, dilation=2)),
    "transposed": lambda: nn.Sequential(nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1), nn.ReLU6()),
    "pooled": lambda: nn.Sequential(nn.MaxPool2d(3, 2, 1), _conv(), nn.PReLU(8), nn.AvgPool2d(2), _conv(), nn.ReLU()),
    "joined": lambda: Uses(lambda m, x: torch.cat([F.relu(m.a(x)), x[:, 2:5]], 1).permute(0, 2, 3, 1), a=_conv()),
    "attention": lambda: Uses(_attention, qkv=nn.Linear(8, 24)),
}


def body(name: str, scheme: Scheme | str = "ternary", *, double: bool = False) -> tuple[SpikingNetwork, Tensor]:
    """A network around one of `BODIES`, and four images."""
    torch.manual_seed(0)
    ann = Between(BODIES[name](), SHAPE).eval()
    images = torch.rand(32, *SHAPE)
    snn = transpike.convert(ann, images, scheme=CODES[scheme] if isinstance(scheme, str) else scheme)
    return (snn.double(), images[:4].double()) if double else (snn, images[:4])
