"""Every supported operation, as module, function and method: folded and fired, it computes what the model does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.conversion.nets import FINE, Between, Uses, distance
from torch import Tensor, nn

from transpike.conversion import load, prepare

Body = Callable[[], nn.Module]
D1, D2, D3 = (3, 16), (3, 8, 8), (3, 4, 6, 6)


def uses(function: Callable[[Any, Tensor], Any], **parts: Callable[[], Any]) -> Body:
    return lambda: Uses(function, **{name: make() for name, make in parts.items()})


def relu_then(*modules: Callable[[], nn.Module]) -> Body:
    return lambda: nn.Sequential(*(make() for make in modules), nn.ReLU())


def weight(*shape: int) -> Callable[[], nn.Parameter]:
    return lambda: nn.Parameter(torch.randn(shape) / 3)


def norm(kind: type[nn.Module], channels: int) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        made: Any = kind(channels)
        nn.init.normal_(made.running_mean, std=0.3)
        for tensor in (made.running_var, made.weight):
            nn.init.uniform_(tensor, 0.5, 2)
        nn.init.normal_(made.bias, std=0.3)
        return made.eval()

    return make


def varied(prelu: nn.PReLU) -> nn.PReLU:
    nn.init.uniform_(prelu.weight, 0, 1.5)
    return prelu


def in_place(x: Tensor) -> Tensor:
    x.mul_(0.5).sub_(0.1)
    x += x
    x /= 3
    return x.relu_()


def write(x: Tensor) -> Tensor:
    y = x - 0.2
    y[:, :, 2:5] = x[:, :, 3:6]
    y[:, 1] = x[:, 0]
    return y


def view_in_place(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, :4] -= 0.3
    y[:, 2:6].relu_()
    return y


BN2 = norm(nn.BatchNorm2d, 8)

WEIGHTED: dict[str, tuple[tuple[int, ...], Body]] = {
    "conv1d": (D1, relu_then(lambda: nn.Conv1d(8, 6, 3, stride=2, dilation=2))),
    "conv2d": (D2, relu_then(lambda: nn.Conv2d(8, 6, (3, 1), stride=(2, 1), padding=(1, 0), bias=False))),
    "conv3d": (D3, relu_then(lambda: nn.Conv3d(8, 4, 3, padding=1))),
    "conv grouped": (D2, relu_then(lambda: nn.Conv2d(8, 8, 3, groups=4))),
    "conv depthwise": (D2, relu_then(lambda: nn.Conv2d(8, 16, 3, groups=8, padding=1))),
    "conv same": (D2, relu_then(lambda: nn.Conv2d(8, 6, (4, 2), padding="same", dilation=(1, 3)))),
    "conv same odd": (D1, relu_then(lambda: nn.Conv1d(8, 6, 5, padding="same"))),
    "conv valid": (D2, relu_then(lambda: nn.Conv2d(8, 6, 3, padding="valid"))),
    "conv reflect": (D2, relu_then(lambda: nn.Conv2d(8, 6, 3, padding=1, padding_mode="reflect"))),
    "conv circular": (D2, relu_then(lambda: nn.Conv2d(8, 6, 3, padding=1, padding_mode="circular"))),
    "F.conv1d": (D1, uses(lambda m, x: F.conv1d(x, m.w, padding="same").relu(), w=weight(4, 8, 4))),
    "F.conv2d": (
        D2,
        uses(lambda m, x: F.conv2d(x, m.w, m.b, 2, 1, groups=2).relu(), w=weight(4, 4, 3, 3), b=weight(4)),
    ),
    "F.conv3d": (D3, uses(lambda m, x: F.conv3d(x, m.w, stride=2).relu(), w=weight(4, 8, 3, 3, 3))),
    "transposed 1d": (D1, relu_then(lambda: nn.ConvTranspose1d(8, 4, 3, stride=2))),
    "transposed 2d": (
        D2,
        relu_then(lambda: nn.ConvTranspose2d(8, 8, 3, stride=2, padding=1, output_padding=1, groups=4)),
    ),
    "transposed 3d": (D3, relu_then(lambda: nn.ConvTranspose3d(8, 4, 2, stride=2, bias=False))),
    "F.conv_transpose2d": (D2, uses(lambda m, x: F.conv_transpose2d(x, m.w, groups=2).relu(), w=weight(8, 3, 2, 2))),
    "linear": (D2, lambda: nn.Sequential(nn.Flatten(), nn.Linear(512, 16), nn.ReLU())),
    "linear on the last axis": (D2, relu_then(lambda: nn.Linear(8, 5))),
    "F.linear": (D2, uses(lambda m, x: F.linear(x, m.w, m.b).relu(), w=weight(4, 8), b=weight(4))),
    "matmul": (D2, uses(lambda m, x: F.relu(x.flatten(1) @ m.w + m.b), w=weight(512, 9), b=weight(9))),
    "addmm": (
        D2,
        uses(lambda m, x: torch.addmm(m.b, x.flatten(1), m.w, alpha=0.5).relu(), w=weight(512, 9), b=weight(9)),
    ),
    "standardised": (
        D2,
        uses(
            lambda m, x: F.conv2d(x, (m.w - m.w.mean((1, 2, 3), True)) / m.w.std((1, 2, 3), keepdim=True)).relu(),
            w=weight(6, 8, 3, 3),
        ),
    ),
    "shared": (D2, uses(lambda m, x: F.relu(m.conv(F.relu(m.conv(x)))), conv=lambda: nn.Conv2d(8, 8, 3, padding=1))),
    "bottleneck": (D2, lambda: nn.Sequential(nn.Conv2d(8, 3, 1), nn.Conv2d(3, 8, 3), nn.ReLU6())),
}

NORMS: dict[str, tuple[tuple[int, ...], Body]] = {
    "conv, norm": (D2, relu_then(lambda: nn.Conv2d(8, 8, 3, groups=2), BN2)),
    "conv without bias, norm": (D3, relu_then(lambda: nn.Conv3d(8, 4, 3, bias=False), norm(nn.BatchNorm3d, 4))),
    "transposed, norm": (D2, relu_then(lambda: nn.ConvTranspose2d(8, 8, 2, stride=2, groups=2), BN2)),
    "linear, norm": (D2, relu_then(nn.Flatten, lambda: nn.Linear(512, 16), norm(nn.BatchNorm1d, 16))),
    "linear on a sequence, norm": (
        D1,
        uses(lambda m, x: F.relu(m.norm(m.fc(x))), fc=lambda: nn.Linear(16, 4), norm=norm(nn.BatchNorm1d, 8)),
    ),
    "norm, conv with padding": (D2, relu_then(BN2, lambda: nn.Conv2d(8, 8, 3, padding=1))),
    "F.batch_norm": (
        D2,
        uses(
            lambda m, x: F.relu(F.batch_norm(m.conv(x), m.mean, m.var, m.w, eps=1e-3)),
            conv=lambda: nn.Conv2d(8, 4, 1),
            mean=lambda: torch.rand(4),
            var=lambda: torch.rand(4) + 0.5,
            w=weight(4),
        ),
    ),
    "pre-activation residual": (
        D2,
        uses(lambda m, x: x + m.conv(F.relu(m.norm(x))), norm=BN2, conv=lambda: nn.Conv2d(8, 8, 3, padding=1)),
    ),
    "norm that two read": (
        D2,
        uses(
            lambda m, x: (lambda y: F.relu(y) - y.clamp(max=0.2))(m.norm(m.conv(x))),
            norm=BN2,
            conv=lambda: nn.Conv2d(8, 8, 1),
        ),
    ),
    "conv, norm, constants": (D2, relu_then(lambda: nn.Conv2d(8, 8, 3), BN2, lambda: Uses(lambda m, x: 2 * x - 0.1))),
}

ACTIVATIONS: dict[str, Body] = {
    "F.relu": uses(lambda m, x: F.relu(x - 0.2)),
    "x.relu": uses(lambda m, x: (x - 0.2).relu()),
    "torch.relu": uses(lambda m, x: torch.relu(x - 0.2)),
    "relu_": uses(lambda m, x: (x - 0.2).relu_()),
    "ReLU(inplace)": lambda: nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(inplace=True)),
    "F.relu(inplace)": uses(lambda m, x: F.relu(x - 0.2, inplace=True)),
    "clamp(min=0)": uses(lambda m, x: (x - 0.2).clamp(min=0)),
    "clamp_min": uses(lambda m, x: (x - 0.2).clamp_min(0)),
    "clamp_": uses(lambda m, x: (x - 0.2).clamp_(0, 0.3)),
    "clamp(low, high)": uses(lambda m, x: torch.clamp(x - 0.3, -0.1, 0.4)),
    "clamp(min=-0.1)": uses(lambda m, x: torch.clamp(x - 0.3, min=-0.1)),
    "clamp above zero": uses(lambda m, x: torch.clamp(x, 0.2, 0.7)),
    "LeakyReLU": lambda: nn.Sequential(nn.Conv2d(8, 8, 1), nn.LeakyReLU(0.2)),
    "F.leaky_relu": uses(lambda m, x: F.leaky_relu(x - 0.2, 0.1)),
    "leaky_relu_": uses(lambda m, x: F.leaky_relu_(x - 0.2, 0.1)),
    "PReLU": lambda: nn.Sequential(nn.Conv2d(8, 8, 1), nn.PReLU()),
    "PReLU per channel": uses(lambda m, x: m.act(x - 0.3), act=lambda: varied(nn.PReLU(8))),
    "F.prelu": uses(lambda m, x: F.prelu(x - 0.3, m.w), w=weight(8)),
    "ReLU6": lambda: nn.Sequential(nn.Conv2d(8, 8, 1), Uses(lambda m, x: 10 * x), nn.ReLU6()),
    "F.relu6": uses(lambda m, x: F.relu6(20 * x - 2)),
    "Hardtanh": lambda: nn.Sequential(nn.Conv2d(8, 8, 1), nn.Hardtanh(-0.2, 0.1, inplace=True)),
    "F.hardtanh": uses(lambda m, x: F.hardtanh(2 * x - 1)),
    "relu of relu6": lambda: nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.ReLU6()),
}

POOLS: dict[str, tuple[tuple[int, ...], Body]] = {
    "max 1d": (D1, lambda: nn.MaxPool1d(2)),
    "max 2d": (D2, lambda: nn.MaxPool2d(3, 2, 1)),
    "max 3d": (D3, lambda: nn.MaxPool3d(2)),
    "max overlapping, dilated": (D2, lambda: nn.MaxPool2d(3, 1, dilation=2)),
    "max ceil": (D2, lambda: nn.MaxPool2d(3, 2, ceil_mode=True)),
    "max of negative values": (D2, lambda: nn.Sequential(nn.Conv2d(8, 8, 1), nn.MaxPool2d(2, padding=1))),
    "F.max_pool1d": (D1, uses(lambda m, x: F.max_pool1d(x, 3))),
    "F.max_pool2d": (D2, uses(lambda m, x: F.max_pool2d(x, 2, ceil_mode=True))),
    "F.max_pool3d": (D3, uses(lambda m, x: F.max_pool3d(x, (1, 2, 2)))),
    "adaptive max 1d": (D1, lambda: nn.AdaptiveMaxPool1d(3)),
    "adaptive max 2d": (D2, lambda: nn.AdaptiveMaxPool2d((3, 1))),
    "adaptive max 3d": (D3, uses(lambda m, x: F.adaptive_max_pool3d(x, 2))),
    "amax": (D2, uses(lambda m, x: x.amax((2, 3)))),
    "x.max": (D2, uses(lambda m, x: x.max(-1).values)),
    "amax kept": (D2, uses(lambda m, x: torch.amax(x, dim=-1, keepdim=True))),
    "max, leaky": (D2, lambda: nn.Sequential(nn.Conv2d(8, 8, 3), nn.MaxPool2d(2), nn.LeakyReLU(0.3))),
    "prelu, max": (D2, lambda: nn.Sequential(nn.Conv2d(8, 8, 3), varied(nn.PReLU(8)), nn.MaxPool2d(2))),
    "falling prelu, max": (D2, lambda: nn.Sequential(nn.Conv2d(8, 8, 3), nn.PReLU(8, init=-0.5), nn.MaxPool2d(2))),
    "relu6, max": (D2, lambda: nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU6(), nn.MaxPool2d(2))),
    "max of max": (D2, lambda: nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.MaxPool2d(3, 1, 1))),
    "average 1d": (D1, lambda: nn.AvgPool1d(2)),
    "average 2d": (D2, lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False)),
    "average 3d": (D3, lambda: nn.AvgPool3d(2)),
    "F.avg_pool2d": (D2, uses(lambda m, x: F.avg_pool2d(x, 2))),
    "adaptive average 1d": (D1, lambda: nn.AdaptiveAvgPool1d(5)),
    "adaptive average 2d": (D2, uses(lambda m, x: F.adaptive_avg_pool2d(x, (3, 1)))),
    "adaptive average 3d": (D3, lambda: nn.AdaptiveAvgPool3d(1)),
    "mean": (D2, uses(lambda m, x: x.mean((2, 3)))),
    "mean kept": (D2, uses(lambda m, x: torch.mean(x, dim=-1, keepdim=True))),
    "sum": (D2, uses(lambda m, x: x.sum(1))),
}

SHAPES: dict[str, Body] = {
    "flatten": uses(lambda m, x: torch.flatten(x, 1)),
    "Flatten(2)": lambda: nn.Flatten(2),
    "reshape": uses(lambda m, x: x.reshape(x.shape[0], 4, -1)),
    "view": uses(lambda m, x: x.view(x.size(0), -1)),
    "view_as": uses(lambda m, x: x.view_as(x.flatten(2))),
    "unflatten": uses(lambda m, x: x.unflatten(1, (2, 4)).squeeze().unsqueeze(-1)),
    "permute": uses(lambda m, x: x.permute(0, 2, 3, 1)),
    "transpose": uses(lambda m, x: x.transpose(1, -1).contiguous().swapaxes(2, 3)),
    "channel shuffle": uses(lambda m, x: x.view(-1, 2, 4, 8, 8).transpose(1, 2).reshape(x.shape)),
    "Dropout": lambda: nn.Sequential(nn.Dropout(), nn.Dropout2d(), nn.AlphaDropout()),
    "F.dropout": uses(lambda m, x: F.dropout(x, training=m.training)),
    "Identity": nn.Identity,
    "slice": uses(lambda m, x: x[:, 1:-1, ::2, -3:]),
    "select": uses(lambda m, x: x[:, 2]),
    "ellipsis": uses(lambda m, x: x[..., 1] - x[..., -1]),
    "narrow": uses(lambda m, x: x.narrow(1, 2, 3)),
    "split": uses(lambda m, x: (lambda a, b: a + b[:, :3] - b[:, 2:])(*x.split([3, 5], 1))),
    "split even": uses(lambda m, x: (lambda a, b, c: a - b[:, :3] + c[:, :1])(*torch.split(x, 3, dim=1))),
    "chunk": uses(lambda m, x: (lambda a, b: a - 2 * b)(*x.chunk(2, 1))),
    "unbind": uses(lambda m, x: (lambda a, *rest: a + sum(rest))(*x.unbind(2))),
    "cat": uses(lambda m, x: torch.cat([x, x.relu(), 2 * x], dim=1)),
    "cat of spatial parts": uses(lambda m, x: torch.cat((x[:, :, 4:], x[:, :, :4]), -2)),
    "stack": uses(lambda m, x: torch.stack([x[:, :4], x[:, 4:]], dim=1)),
    "stack last": uses(lambda m, x: torch.stack([x, x], -1)),
    "nearest": lambda: nn.Upsample(scale_factor=2),
    "bilinear": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
    "interpolate": uses(lambda m, x: F.interpolate(x, size=(5, 11), mode="bilinear", align_corners=True)),
    "bicubic": uses(lambda m, x: F.interpolate(x, scale_factor=1.5, mode="bicubic")),
    "nearest-exact": uses(lambda m, x: F.interpolate(x, size=(5, 5), mode="nearest-exact")),
    "zero padding": lambda: nn.ZeroPad2d((1, 2, 0, 1)),
    "F.pad": uses(lambda m, x: F.pad(x, (1, -1))),
    "reflect padding": lambda: nn.ReflectionPad2d(2),
    "replicate padding": uses(lambda m, x: F.pad(x, (1, 2, 0, 1), mode="replicate")),
}

ARITHMETIC: dict[str, Body] = {
    "residual": uses(lambda m, x: F.relu(m.conv(x) + x), conv=lambda: nn.Conv2d(8, 8, 3, padding=1)),
    "residual in place": uses(lambda m, x: (lambda y: F.relu(y.add_(x)))(m.conv(x)), conv=lambda: nn.Conv2d(8, 8, 1)),
    "+=": uses(lambda m, x: (lambda y: F.relu(y.__iadd__(x)))(m.conv(x)), conv=lambda: nn.Conv2d(8, 8, 1)),
    "-": uses(lambda m, x: F.relu(x - m.conv(x)), conv=lambda: nn.Conv2d(8, 8, 1)),
    "torch.sub": uses(lambda m, x: torch.sub(m.conv(x), x, alpha=0.3), conv=lambda: nn.Conv2d(8, 8, 1)),
    "torch.add": uses(lambda m, x: torch.add(m.conv(x), x, alpha=-0.5).relu(), conv=lambda: nn.Conv2d(8, 8, 1)),
    "twice itself": uses(lambda m, x: x + x),
    "broadcast": uses(lambda m, x: x + x.mean((2, 3), keepdim=True)),
    "broadcast first": uses(lambda m, x: x.mean(1, keepdim=True) - x),
    "plus constant": uses(lambda m, x: x + 0.7),
    "plus tensor": uses(lambda m, x: F.relu(x + m.c), c=lambda: torch.randn(8, 1, 1)),
    "plus tensor of batch 1": uses(lambda m, x: F.relu(m.c + x), c=weight(1, 8, 8, 8)),
    "constant minus": uses(lambda m, x: 0.7 - x),
    "tensor minus": uses(lambda m, x: m.c - x, c=lambda: torch.randn(8, 8)),
    "rsub": uses(lambda m, x: torch.rsub(x, 1.0, alpha=2)),
    "negative": uses(lambda m, x: -x),
    "times constant": uses(lambda m, x: 0.3 * x * 5),
    "times tensor": uses(lambda m, x: F.relu(x * m.c), c=weight(8, 1, 1)),
    "times pixels": uses(lambda m, x: m.conv(x).mul(m.c), c=weight(8, 8), conv=lambda: nn.Conv2d(8, 8, 1)),
    "layer scale": uses(lambda m, x: x + m.g * m.conv(x), g=weight(8, 1, 1), conv=lambda: nn.Conv2d(8, 8, 1)),
    "divided": uses(lambda m, x: x / 4),
    "divided by tensor": uses(lambda m, x: F.relu((x - 0.3) / m.c), c=lambda: torch.rand(8, 1, 1) + 0.5),
    "normalised input": uses(lambda m, x: (x - 0.45) / 0.225),
    "in place": uses(lambda m, x: in_place(x)),
    "in place on views": uses(lambda m, x: view_in_place(x)),
    "written into a slice": uses(lambda m, x: write(x)),
    "in place behind dropout": uses(lambda m, x: F.dropout(x, training=m.training).sub_(0.3).relu_() + x),
}

CASES = {
    **WEIGHTED,
    **NORMS,
    **{name: (D2, body) for name, body in ACTIVATIONS.items()},
    **POOLS,
    **{name: (D2, body) for name, body in SHAPES.items()},
    **{name: (D2, body) for name, body in ARITHMETIC.items()},
}
# A neuron that clips most of its input is coupled tightly to it: its error has a floor that steps do not lower.
CLIPPING = {"Hardtanh", "clamp_", "clamp(low, high)", "F.relu6", "F.hardtanh"}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", CASES)
def test_an_operation_in_a_network(name: str, tmp_path: Path) -> None:
    shape, body = CASES[name]
    model, x = Between(body(), shape).eval(), torch.randn(6, *shape)
    prepared = prepare(model, x)
    snn = prepared.convert(FINE)
    with torch.no_grad():
        want = model(x)
    assert distance(prepared.graph.run(x)[prepared.graph.outputs[0]], want) < 1e-6
    assert distance(snn.analog(x), want) < 2e-6
    got = snn(x)
    assert distance(got, want) < (4e-2 if name in CLIPPING else 5e-4)
    snn.save(tmp_path)
    assert torch.equal(load(tmp_path)(x), got)
