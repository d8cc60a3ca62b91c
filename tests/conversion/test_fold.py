"""BatchNorm and other constants behind a weighted layer are in its weights, whatever moves and averages lie between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.conversion.nets import Between, Uses, distance
from torch import Tensor, nn

from transpike import CSS
from transpike.conversion import prepare

SHAPE = (3, 8, 8)


def conv(inputs: int = 8, outputs: int = 8) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 1)


def gate(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def halves(m: Any, x: Tensor) -> Tensor:
    a, b = m.c(x).chunk(2, 1)
    return gate(m.n(a)) + m.o(b).sigmoid()  # type: ignore[no-any-return]


def scaled_query(m: Any, x: Tensor) -> Tensor:
    q, k = m.c(tokens(x)).reshape(x.shape[0], 64, 2, 8).permute(2, 0, 1, 3).unbind(0)
    return (q * 0.3 + 1).tanh() * k  # type: ignore[no-any-return]


def merged(m: Any, x: Tensor) -> Tensor:
    return gate(m.n(m.c(tokens(x)).flatten(0, 1))).view(x.shape[0], 64, 8)


N1, N2 = nn.BatchNorm1d, nn.BatchNorm2d
Case = Callable[[], nn.Module]
FOLDED: dict[str, Case] = {
    "reshape": lambda: Uses(lambda m, x: gate(m.n(m.c(x).flatten(2))), c=conv(), n=N1(8)),
    "permute": lambda: Uses(
        lambda m, x: gate(m.n(m.c(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))), c=nn.Linear(8, 8), n=N2(8)
    ),
    "merged samples": lambda: Uses(merged, c=nn.Linear(8, 8), n=N1(8)),
    "slice": lambda: Uses(lambda m, x: gate(m.n(m.c(x)[:, 2:])), c=conv(), n=N2(6)),
    "both halves": lambda: Uses(halves, c=conv(8, 16), n=N2(8), o=N2(8)),
    "one half": lambda: Uses(halves, c=conv(8, 16), n=N2(8), o=nn.Identity()),
    "query": lambda: Uses(scaled_query, c=nn.Linear(8, 16)),
    "cat": lambda: Uses(lambda m, x: gate(m.n(torch.cat([m.a(x), m.b(x)], 1))), a=conv(), b=conv(8, 4), n=N2(12)),
    "average": lambda: Uses(lambda m, x: gate(m.n(F.avg_pool2d(m.c(x), 2))), c=conv(), n=N2(8)),
    "adaptive average": lambda: Uses(lambda m, x: gate(m.n(F.adaptive_avg_pool2d(m.c(x), 3))), c=conv(), n=N2(8)),
    "mean": lambda: Uses(lambda m, x: gate(m.n(m.c(x).mean((2, 3)))), c=conv(), n=N1(8)),
    "sum": lambda: Uses(lambda m, x: gate(m.n(m.c(x).sum((2, 3))) / 64), c=conv(), n=N1(8)),
    "shuffle": lambda: Uses(lambda m, x: gate(m.n(F.channel_shuffle(m.c(x), 2))), c=conv(), n=N2(8)),
    "several": lambda: Uses(
        lambda m, x: gate(m.o(F.avg_pool2d(m.n(m.c(x).flatten(2)).unflatten(2, (8, 8)), 2))), c=conv(), n=N1(8), o=N2(8)
    ),
    "transposed": lambda: Uses(
        lambda m, x: gate(m.n(m.c(x).flatten(2))), c=nn.ConvTranspose2d(8, 8, 2, groups=2), n=N1(8)
    ),
}  # fmt: skip
KEPT: dict[str, Case] = {
    "average with padding": lambda: Uses(lambda m, x: gate(m.n(F.avg_pool2d(m.c(x), 3, 1, 1))), c=conv(), n=N2(8)),
    "read twice": lambda: Uses(
        lambda m, x: (lambda y: gate(m.n(y.flatten(2))) + y.flatten(2).sigmoid())(m.c(x)), c=conv(), n=N1(8)
    ),
    "halves that overlap": lambda: Uses(
        lambda m, x: (lambda y: gate(m.n(y[:, :6])) + y[:, 2:].sigmoid())(m.c(x)), c=conv(), n=N2(6)
    ),
    "pixels that share a channel": lambda: Uses(
        lambda m, x: gate(m.n(F.pixel_shuffle(m.c(x), 2).transpose(1, 2))), c=conv(8, 8), n=N2(16)
    ),
    "behind a function": lambda: Uses(lambda m, x: gate(m.n(m.c(x).tanh().flatten(2))), c=conv(), n=N1(8)),
}


def network(case: Case) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(2)
    model = Between(case(), SHAPE)
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            for parameter in (norm.running_mean, norm.weight, norm.bias):
                assert parameter is not None
                nn.init.normal_(parameter)
            assert norm.running_var is not None
            nn.init.uniform_(norm.running_var, 0.5, 2)
    return model.eval(), torch.randn(5, *SHAPE)


@pytest.mark.parametrize("name", FOLDED)
def test_no_constant_is_left_before_a_gate(name: str) -> None:
    model, x = network(FOLDED[name])
    snn = prepare(model, x).convert(CSS(steps=14, levels=(1, 2, 4, 8), percentile=100, silent=2, amplitude="layer"))
    assert not [op.name for op in snn.graph if op.kind == "affine"]
    assert not [op.name for op in snn.graph.neurons if op.tensors]
    assert distance(snn.analog(x), model(x).detach()) < 1e-5
    assert distance(snn(x), model(x).detach()) < 2e-3


@pytest.mark.parametrize("name", KEPT)
def test_what_others_read_or_what_differs_within_a_channel_stays(name: str) -> None:
    model, x = network(KEPT[name])
    snn = prepare(model, x).convert(CSS(steps=14, levels=(1, 2, 4, 8), percentile=100, silent=2, amplitude="layer"))
    kept = [op for op in snn.graph if op.kind == "affine" or (op.fires and op.tensors)]
    assert len(kept) == 1
    assert distance(snn.analog(x), model(x).detach()) < 1e-5


def test_a_trace_tells_where_a_norm_went() -> None:
    model, x = network(FOLDED["reshape"])
    snn = prepare(model, x).convert(CSS(silent=2, amplitude="layer"))
    with pytest.raises(KeyError, match=r"body\.n became part of body\.c\. body\.c \(convolution\) sends no spikes"):
        snn.trace(x)["body.n"]
