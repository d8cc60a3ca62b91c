"""Networks as users write them: subclasses, parametrisations, several outputs, modules shared and switched."""

from __future__ import annotations

from collections import OrderedDict
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.conversion.nets import FINE, Between, Uses, distance, leaves, true_statistics
from timm.layers import BatchNormAct2d, Conv2dSame, DropPath, ScaledStdConv2d, StdConv2d
from torch import Tensor, nn

from transpike import CSS, convert, load
from transpike.conversion import prepare

SHAPE = (3, 8, 8)


def agrees(model: nn.Module, x: Tensor, *, bound: float = 1e-3) -> Any:
    """Convert ``model``; its folded graph, its analog twin and its spikes compute what it does. Returns the SNN."""
    modes = [m.training for m in model.modules()]
    prepared = prepare(model, x)
    assert [m.training for m in model.modules()] == modes
    snn = prepared.convert(FINE)
    with torch.no_grad():
        want = model.eval()(x.clone())
    values = prepared.graph.run(x)
    folded = [values[name] for name in prepared.graph.outputs]
    for result, limit in ((folded, 1e-5), (leaves(snn.analog(x)), 1e-5), (leaves(snn(x)), bound)):
        for got, expected in zip(result, leaves(want), strict=True):
            assert distance(got, expected) < limit
    with TemporaryDirectory() as folder:
        snn.save(folder)
        for got, again in zip(leaves(snn(x)), leaves(load(folder)(x)), strict=True):
            assert torch.equal(got, again)
    return snn


class PadsItself(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (2, 0, 2, 0)))


class ScalesItself(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * 0.5 - 0.1, self.bias, padding=2)


class ShiftedReLU(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - 0.3) + 0.1


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(PadsItself(8, 8, 3), nn.ReLU()),
        lambda: nn.Sequential(ScalesItself(8, 8, 3), nn.ReLU()),
        lambda: nn.Sequential(nn.Conv2d(8, 8, 1), ShiftedReLU()),
        lambda: nn.Sequential(Conv2dSame(8, 8, 3, stride=2), nn.ReLU()),
        lambda: nn.Sequential(nn.Conv2d(8, 8, 3), BatchNormAct2d(8)),
        lambda: nn.Sequential(StdConv2d(8, 8, 3), nn.ReLU()),
        lambda: nn.Sequential(ScaledStdConv2d(8, 8, 3), nn.ReLU()),
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3)), nn.ReLU()),
        lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 8, 3)), nn.ReLU()),
        lambda: nn.Sequential(DropPath(0.5), nn.Conv2d(8, 8, 1), nn.ReLU(inplace=True), nn.Dropout(0.9)),
    ],
    ids=[
        "pads",
        "scales",
        "relu",
        "same",
        "norm-act",
        "standardised",
        "scaled",
        "weight-norm",
        "spectral-norm",
        "drop-path",
    ],
)
def test_a_subclass_or_a_parametrisation_is_run_by_its_own_forward(make: Any) -> None:
    x = torch.randn(8, *SHAPE)
    agrees(true_statistics(Between(make(), SHAPE), x), x)


def test_the_model_may_be_in_train_mode_and_compiled() -> None:
    x = torch.randn(8, *SHAPE)
    model = true_statistics(
        Between(nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.Dropout()), SHAPE), x
    ).train()
    model.stem.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    agrees(model, x)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(prepare(torch.compile(model), x).graph.run(x)["head"], prepare(model, x).graph.run(x)["head"])


def test_a_shared_module_is_converted_at_each_of_its_places() -> None:
    relu, conv = nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)
    snn = agrees(Between(nn.Sequential(conv, relu, conv, relu), SHAPE), torch.randn(8, *SHAPE))
    names = [op.name for op in snn.graph.neurons]
    assert len(names) == len(set(names)) == 3


class Outputs(nn.Module):
    def __init__(self, pack: Any) -> None:
        super().__init__()
        self.pack, self.conv, self.fc = pack, nn.Conv2d(3, 6, 3), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Any:
        features = self.conv(x).relu()
        pooled = features.mean((2, 3))
        return self.pack(self.fc(pooled), features, 2 * pooled)


def test_several_outputs_come_back_in_their_own_container() -> None:
    x = torch.randn(8, *SHAPE)
    assert isinstance(agrees(Outputs(lambda *o: o), x)(x), tuple)
    assert isinstance(agrees(Outputs(lambda *o: list(o[:2])), x)(x), list)
    assert list(agrees(Outputs(lambda a, b, c: {"logits": a, "map": b}), x)(x)) == ["logits", "map"]
    assert list(agrees(Outputs(lambda a, b, c: OrderedDict(out=c, aux=a)), x)(x)) == ["out", "aux"]
    assert torch.equal(*agrees(Outputs(lambda a, b, c: (a, a)), x)(x))
    one = agrees(Outputs(lambda a, b, c: [a]), x)(x)
    assert isinstance(one, list) and one[0].shape == (8, 4)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.softmax(1),
        lambda x: F.log_softmax(x, dim=-1, dtype=torch.float32),
        torch.sigmoid,
        lambda x: F.normalize(x),
        lambda x: F.gelu(x, approximate="tanh"),
        lambda x: F.softplus(x) * x.sigmoid(),
        lambda x: 4 * x.tanh() + 1,
        lambda x: F.leaky_relu(x).clamp(max=0.2),
        lambda x: x / x.norm(dim=1, keepdim=True),
    ],
)
def test_functions_behind_the_last_weights_apply_to_decoded_output(function: Any) -> None:
    model = Uses(lambda m, x: function(m.net(x)), net=Between(nn.Conv2d(8, 8, 3), SHAPE))
    snn = agrees(model, torch.randn(8, *SHAPE))
    assert len(snn.graph.neurons) == 2  # none of them behind the classifier


def test_argmax_of_the_logits() -> None:
    net = Between(nn.Conv2d(8, 8, 3), SHAPE).eval()
    x = torch.randn(16, *SHAPE)
    assert (convert(Uses(lambda m, x: m.net(x).argmax(1), net=net), x, scheme=FINE)(x) == net(x).argmax(1)).sum() >= 15


def test_work_in_place_on_the_image_leaves_the_users_images_alone() -> None:
    model = Uses(lambda m, x: m.net(x.sub_(0.5).relu_()), net=Between(nn.Conv2d(8, 8, 3), SHAPE))
    x = torch.randn(8, *SHAPE)
    kept = x.clone()
    prepared = prepare(model, [x])
    assert torch.equal(x, kept) and torch.equal(prepared.images, kept)
    agrees(model, x)


def test_a_buffer_that_counts_calls_is_left_as_it_was() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        m.calls.add_(1)
        return m.net(x)  # type: ignore[no-any-return]

    model = Uses(forward, net=Between(nn.Conv2d(8, 8, 3), SHAPE), calls=torch.tensor([5.0]))
    x = torch.randn(4, *SHAPE)
    prepare(model, x)
    assert model.calls == 5
    agrees(model, x)


def test_regions_without_autocast_are_part_of_the_network() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            x = m.a(x.float()).relu()
        return m.b(x) + x.sum(1, keepdim=True)  # type: ignore[no-any-return]

    agrees(Uses(forward, a=nn.Linear(6, 8), b=nn.Linear(8, 3)), torch.randn(5, 6))


def test_regions_without_gradients_are_part_of_the_network() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = m.net.stem(x).relu()
        return m.net.head(x.detach().flatten(1))  # type: ignore[no-any-return]

    agrees(Uses(forward, net=Between(nn.Identity(), SHAPE)), torch.randn(8, *SHAPE))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(dtype: torch.dtype) -> None:
    x = torch.randn(16, *SHAPE)
    body = nn.Sequential(
        nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), Uses(lambda m, x: x * m.c + 0.1, c=torch.rand(8, 1, 1))
    )
    model = true_statistics(Between(body, SHAPE), x)
    want = model(x).detach()
    snn = convert(
        model.to(dtype), x.to(dtype), scheme=CSS(steps=12, beta=2.0, silent=2, percentile=100, amplitude="layer")
    )
    assert snn.dtype == dtype
    assert distance(snn(x), want) < (2e-3 if dtype == torch.float64 else 4e-2)
