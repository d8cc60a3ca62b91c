"""What has no spiking form is refused, all of it at once, before anything is computed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from tests.conversion.nets import Between, Uses
from torch import Tensor, nn

from transpike import ConversionError, convert
from transpike.conversion.operators import OPERATORS
from transpike.conversion.trace import trace

SHAPE = (3, 8, 8)


def refusal(model: nn.Module, x: Tensor | None = None) -> str:
    with pytest.raises(ConversionError) as caught:
        convert(model, torch.randn(4, *SHAPE) if x is None else x)
    return str(caught.value)


def places(message: str) -> dict[str, str]:
    """{module path: reasons and remedies} of every place that a refusal lists."""
    found: dict[str, str] = {}
    for line in message.splitlines():
        if line.startswith("  - "):
            path, reason = line.removeprefix("  - ").split(": ", 1)
            assert reason not in found.get(path, ""), "a place is listed twice"
            found[path] = f"{found.get(path, '')}{reason}\n"
    return found


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x.flatten(2).transpose(1, 2)).chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v)


class SqueezeExcitation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean((2, 3), keepdim=True)).sigmoid()


def test_one_error_lists_every_place_with_reason_and_remedy() -> None:
    body = nn.Sequential(
        nn.GELU(),
        nn.Conv2d(8, 8, 1),
        nn.SiLU(),
        SqueezeExcitation(),
        nn.BatchNorm2d(8, track_running_stats=False),
        Uses(lambda m, x: F.dropout(x)),
        Uses(lambda m, x: torch.fft.rfft2(x).real),
        Attention(),
        nn.LayerNorm(8),
        Uses(lambda m, x: x.sort(-1).values),
    )
    found = places(refusal(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), body, nn.Linear(8, 5))))
    assert {path: reason.split()[0] for path, reason in found.items()} == {
        "1.0": "gelu",
        "1.2": "silu",
        "1.3.sigmoid": "sigmoid",
        "1.3.mul": "a",
        "1.4": "BatchNorm",
        "1.5": "this",
        "1.6": "fft_rfft2",
        "1.7": "a",
        "1.8": "LayerNorm",
        "1.9": "sorting",
    }
    for reason, remedy in {
        "1.0": "ReLU",
        "1.3.mul": "variant",
        "1.4": "track_running_stats=True",
        "1.8": "BatchNorm",
    }.items():
        assert remedy in found[reason]


def test_a_vision_transformer_and_a_gated_network() -> None:
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=10)
    found = places(refusal(vit, torch.randn(2, 3, 32, 32)))
    assert {"blocks.0.norm1", "blocks.1.norm1", "blocks.0.attn", "blocks.1.mlp.act", "norm"} <= set(found)
    gated = timm.create_model("efficientnet_b0", num_classes=10)
    found = places(refusal(gated, torch.randn(2, 3, 32, 32)))
    assert "blocks.0.0.se.mul" in found and "blocks.6.0.se.mul" in found and "silu" in found["bn1.act"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (lambda m, x: x * x.mean((2, 3), keepdim=True), "product of two activations"),
        (lambda m, x: x / (x.sum(1, keepdim=True) + 1), "division by an activation"),
        (lambda m, x: x.flatten(2) @ x.flatten(2).transpose(1, 2), "attention"),
        (lambda m, x: x.softmax(1), "softmax has no spiking form before"),
        (lambda m, x: x.argmax(1, keepdim=True).float(), "index of the maximum"),
        (lambda m, x: x.topk(2, 1).values, "sorting"),
        (lambda m, x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), "unpooling"),
        (lambda m, x: (lambda v, i: v + i)(*x.max(1)), "indices"),
        (lambda m, x: x - x.mean(0, keepdim=True), "batch axis"),
        (lambda m, x: x + x.amax(0), "batch axis"),
        (lambda m, x: x.flip(0), "flip"),
        (lambda m, x: x[:1] + x, "batch axis"),
        (lambda m, x: x[0] + x, "batch axis"),
        (lambda m, x: x.transpose(0, 1).flatten(1).T, "batch axis"),
        (lambda m, x: x.flatten(0, 1).unflatten(0, (-1, 8)), "batch axis"),
        (lambda m, x: torch.cat([x, x]), "batch axis"),
        (lambda m, x: torch.stack([x, x]), "batch axis"),
        (lambda m, x: x + x.sum(), "batch axis"),
        (lambda m, x: x * x.shape[0], "number that depends on the batch"),
        (lambda m, x: x + torch.ones(x.shape[0], 1, 1, 1), "a constant of the batch's size"),
        (lambda m, x: (x.mean((2, 3), keepdim=True) + torch.ones(1, 8, 2, 2)).amax((2, 3)), "widens"),
        (lambda m, x: F.pad(x, (1, 1), value=1.0), "padding with 1.0"),
        (lambda m, x: torch.cat([x, torch.ones(1, 8, 8, 8).expand_as(x)], 1), "constant"),
        (lambda m, x: x[x > 0].sum() + x, "index"),
        (lambda m, x: torch.where(x > 1, x, 0), "where"),
        (lambda m, x: x.mean(1, keepdim=True).expand(-1, 8, -1, -1), "copies of an activation"),
        (lambda m, x: F.instance_norm(x), "InstanceNorm"),
        (lambda m, x: F.group_norm(x, 2), "GroupNorm"),
        (lambda m, x: F.batch_norm(x, None, None, training=True), "BatchNorm without running statistics"),
        (lambda m, x: torch.clamp(x, max=x.mean(1, keepdim=True)), "clamp"),
        (lambda m, x: F.dropout2d(x, training=True), "dropout"),
        (lambda m, x: x + F.conv2d(x, x[:, :1].mean(0, keepdim=True).expand(8, 8, 8, 8), padding="same"), "conv2d"),
    ],
)  # fmt: skip
def test_a_reason_for_every_refusal(body: Callable[[Any, Tensor], Tensor], words: str) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.head(body(m, m.stem(x)).flatten(1)[:, :8])  # type: ignore[no-any-return]

    message = refusal(Uses(forward, stem=nn.Conv2d(3, 8, 3, padding=1), head=nn.Linear(8, 5)))
    assert words in message
    assert message.startswith("Uses cannot be converted:") and len(places(message)) == 1


def test_softmax_over_the_batch_is_refused_even_behind_the_last_layer() -> None:
    assert "batch axis" in refusal(Uses(lambda m, x: m.net(x).softmax(0), net=Between(nn.Identity(), SHAPE)))


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (lambda m, x: m.net(x) if x.sum() > 0 else m.net(-x), "depends on the values of the data"),
        (lambda m, x: m.net(x) * x.mean().item(), "mul with a number that depends on"),
        (lambda m, x: m.net(x.view(len(x), 3, 8, 8)), "fixes the batch size"),
        (lambda m, x: m.net(x[:, :2]), "does not run on images of shape"),
        (lambda m, x: (m.net(x), None), "every output must be a tensor"),
        (lambda m, x: (m.net(x), m.net.head.weight), "every output must be a tensor"),
        (lambda m, x: {"a": (m.net(x),)}, "tuple, list or dictionary of tensors"),
        (lambda m, x: x.relu().flatten(1), "no convolution and no linear layer"),
        (lambda m, x: m.net(x + torch.rand_like(x)), "rand_like has no spiking form|random"),
        (lambda m, x: F.dropout(m.net(x), training=True), "dropout"),
    ],
)  # fmt: skip
def test_forwards_that_cannot_be_traced(forward: Callable[[Any, Tensor], Any], words: str) -> None:
    with pytest.raises(ConversionError, match=words) as caught:
        convert(Uses(forward, net=Between(nn.Identity(), SHAPE)), torch.randn(4, *SHAPE))
    assert len(str(caught.value)) < 1500


def test_weights_that_are_not_numbers_are_named() -> None:
    model = Between(nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU()), SHAPE)
    with torch.no_grad():
        model.body[0].weight[0] = torch.nan
        model.head.bias[1] = torch.inf
    assert places(refusal(model)) == {
        "body.0": "its weight holds NaN or infinity; check the trained weights\n",
        "head": "its bias holds NaN or infinity; check the trained weights\n",
    }


def test_autocast_inside_the_model_is_refused_by_name() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return m.net(x)  # type: ignore[no-any-return]

    assert "autocast" in refusal(Uses(forward, net=Between(nn.Identity(), SHAPE)))


def test_nothing_is_measured_before_the_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["transpike.conversion.prepare"], "measure", None)
    assert "gelu" in refusal(Between(nn.GELU(), SHAPE))


def test_a_silent_miss_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATORS, "relu", lambda to, node, input: input)
    with pytest.raises(ConversionError, match="differs from the model"):
        trace(Between(nn.ReLU(), SHAPE), torch.randn(2, *SHAPE))
