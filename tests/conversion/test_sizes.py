"""One conversion for images of any size: the network at another size is the model's, or the size is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import transpike
from transpike.conversion import SpikingNetwork
from transpike.conversion.cost import macs
from transpike.errors import ConversionError
from transpike.measure.conversion import compare

CODE = transpike.CSS(steps=14, silent=3)


class Maps(nn.Module):
    """Norms by groups, reflection, skips resized to another's size, a gate, a crop."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 8, 3, 2, 1), nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 3)
        self.gate, self.c = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm(self.a(x)))
        z = self.b(F.pad(F.max_pool2d(y, 2, ceil_mode=True), (1, 1, 1, 1), "reflect"))
        y = y * self.gate(F.interpolate(z, size=y.shape[-2:])).sigmoid()
        return F.interpolate(self.c(F.relu(y)), size=x.shape[-2:], mode="bilinear")[:, :, 1:-1]


class Boxes(nn.Module):
    """Two maps as rows of one table."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = F.relu(self.a(x))
        maps = (first, F.relu(self.b(first)))
        return torch.cat([self.head(y).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4) for y in maps], 1)


class Skips(nn.Module):
    """A map that only sides divisible by four give back in full."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)
        self.c, self.d = nn.ConvTranspose2d(4, 4, 2, 2), nn.ConvTranspose2d(8, 2, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.a(x))
        return self.d(torch.cat([a, F.relu(self.c(F.relu(self.b(a))))], 1))


class Mean(nn.Module):
    """A sum over all places divided by their number, which the graph holds."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.a(x))
        return self.b(y.sum((2, 3)) / (y.shape[2] * y.shape[3]))


def sound() -> nn.Module:
    return nn.Sequential(nn.Conv1d(2, 4, 5, 2, 2), nn.PReLU(4), nn.MaxPool1d(3, 2, 1), nn.Conv1d(4, 1, 1))


def volume() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(2), nn.Flatten(), nn.Linear(32, 2))


CASES = {
    "maps": (Maps, (3, 32, 32), (3, 37, 50)),
    "smaller": (Maps, (3, 32, 32), (3, 17, 9)),
    "boxes": (Boxes, (3, 32, 32), (3, 41, 55)),
    "skips": (Skips, (3, 16, 16), (3, 20, 36)),
    "sound": (sound, (2, 32), (2, 57)),
    "volume": (volume, (1, 8, 8, 8), (1, 9, 12, 7)),
}


def converted(build: object, shape: tuple[int, ...]) -> tuple[nn.Module, SpikingNetwork]:
    torch.manual_seed(0)
    net = build().eval()  # type: ignore[operator]
    return net, transpike.convert(net, torch.rand(16, *shape), scheme=CODE)


@pytest.mark.parametrize("name", CASES)
def test_another_size_is_the_models_own(name: str, tmp_path: Path) -> None:
    build, shape, other = CASES[name]
    net, snn = converted(build, shape)
    x = torch.rand(3, *other)
    torch.testing.assert_close(snn.analog(x), net(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(snn(x), net(x), rtol=0, atol=0.02)
    snn.save(tmp_path / "snn")
    assert torch.equal(transpike.load(tmp_path / "snn")(x), snn(x))


def test_costs_are_those_of_the_size_that_is_run() -> None:
    (_, snn), (_, large) = converted(Boxes, (3, 32, 32)), converted(Boxes, (3, 64, 64))
    found, wanted = (compare(net, [torch.rand(4, 3, 64, 64)]) for net in (snn, large))
    assert found.ann.macs == wanted.ann.macs == sum(macs(large.graph).values())
    assert [layer.neurons for layer in found.row.layers] == [layer.neurons for layer in wanted.row.layers]
    assert [layer.fan_out for layer in found.row.layers] == [layer.fan_out for layer in wanted.row.layers]
    assert snn.at((3, 32, 32)) is snn
    assert snn.at((3, 64, 64)).get_buffer("a.weight".replace(".", "/")) is snn.get_buffer("a/weight")


@pytest.mark.parametrize(
    ("build", "shape", "other", "words"),
    [
        (Mean, (3, 8, 8), (3, 9, 9), "its size is fixed: "),
        (Skips, (3, 16, 16), (3, 18, 16), "with sides that differ from these by multiples of 4"),
        (Maps, (3, 32, 32), (4, 32, 32), "expects images [N, 3, 32, 32] as in calibration, not [N, 4, 32, 32]"),
        (Maps, (3, 32, 32), (3, 32), "expects images [N, 3, 32, 32] as in calibration, not [N, 3, 32]"),
        (Boxes, (3, 32, 32), (3, 10**6, 10**6), "Use smaller images"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)), (3, 8, 8), (3, 9, 9),
         "its size is fixed: "),
    ],
)  # fmt: skip
def test_a_size_that_cannot_be_is_one_line(
    build: object, shape: tuple[int, ...], other: tuple[int, ...], words: str
) -> None:
    _, snn = converted(build, shape)
    with pytest.raises(ConversionError) as caught:
        snn.at(other)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_rule_of_a_stranger_is_checked(tmp_path: Path) -> None:
    _, snn = converted(Boxes, (3, 32, 32))
    assert any(op.follows for op in snn.graph)
    snn.save(tmp_path / "snn")
    path = tmp_path / "snn" / "network.json"
    content = json.loads(path.read_text())
    (rule, *_) = next(op["follows"] for op in content["ops"] if "follows" in op)
    rule[0] = ["args", "missing", 0]
    path.write_text(json.dumps(content))
    with pytest.raises(ConversionError, match="do not go through"):
        transpike.load(tmp_path / "snn").at((3, 64, 64))
