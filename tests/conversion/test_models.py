"""Whole networks with random weights, which no training has made robust, and the depth of known ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from tests.conversion.nets import logit_error, true_statistics
from torch import Tensor, nn

from transpike import CSS, create_model
from transpike.conversion import prepare


class Mixed(nn.Module):
    """Inception's branches: 1x1, 3x3, pooled; concatenated, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = self.unit(3, 16, 3)
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                [self.unit(n, 8, 1), nn.Sequential(self.unit(n, 8, 1), self.unit(8, 16, 3)), self.unit(n, 8, 1)]
            )
            for n in (16, 32, 32)
        )
        self.fc = nn.Linear(32, 10)

    @staticmethod
    def unit(inputs: int, outputs: int, size: int) -> nn.Sequential:
        conv = nn.Conv2d(inputs, outputs, size, padding="same", bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(outputs, eps=1e-3), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for one, three, pooled in self.blocks:
            x = torch.cat([one(x), three(x), pooled(F.max_pool2d(x, 3, stride=1, padding=1))], 1)
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def vgg() -> nn.Module:
    """torchvision's layers before a classifier of a hundredth of the weights."""
    layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["A"], batch_norm=True)
    classifier = nn.Sequential(nn.Linear(512 * 49, 40), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(40, 100))
    return nn.Sequential(layers, nn.AdaptiveAvgPool2d((7, 7)), nn.Flatten(), classifier)


def deviation(make: Callable[[], nn.Module], scheme: CSS, size: int) -> float:
    x = torch.randn(32, 3, size, size)
    model = true_statistics(make(), x)
    snn = prepare(model, x).convert(scheme)
    with torch.no_grad():
        return logit_error(snn(x[:8]), model(x[:8]))


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda: torchvision.models.resnet18(num_classes=100), 48),
        (vgg, 32),
        (Mixed, 32),
        (lambda: timm.create_model("resnet10t", num_classes=100), 48),
    ],
    ids=["resnet18", "vgg11_bn", "inception", "resnet10t"],
)
def test_random_networks_convert_within_two_percent(make: Callable[[], nn.Module], size: int) -> None:
    assert deviation(make, CSS(steps=12, beta=2.0, silent=2, percentile=100, amplitude="layer"), size) <= 0.02


def test_mobilenet_converts_within_five_percent() -> None:
    scheme = CSS(steps=16, beta=2.0, silent=2, percentile=100, amplitude="layer")
    assert deviation(lambda: torchvision.models.mobilenet_v2(num_classes=100), scheme, 48) <= 0.05


@pytest.mark.parametrize(
    ("name", "depth", "steps", "latency"), [("resnet20", 20, 12, 32), ("resnet18", 18, 12, 30), ("vgg16", 16, 10, 26)]
)
def test_depth_and_latency_are_those_of_the_css_papers_table_2(name: str, depth: int, steps: int, latency: int) -> None:
    prepared = prepare(create_model(name, num_classes=10), torch.randn(2, 3, 32, 32))
    snn = prepared.convert(CSS(steps=steps, silent=1, amplitude="layer"))
    assert (snn.depth, snn.latency, snn.interval) == (depth, latency, steps + 1)
    assert prepared.convert(CSS(steps=steps, silent=2, amplitude="layer")).latency == steps + 2 * depth
