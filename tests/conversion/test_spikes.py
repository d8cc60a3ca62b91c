"""Where spikes stand in networks as people train them, and the settings that put more of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.conversion.nets import Between, Uses, distance
from tests.conversion.test_placement import SHAPE, Attention, SqueezeExcitation, conv
from timm.models.convnext import ConvNeXt
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from transpike import CSS, ConfigError, convert, load
from transpike.conversion import Prepared, prepare
from transpike.conversion.kinds import title
from transpike.errors import ModelError
from transpike.measure.conversion import compare
from transpike.results import Spikes

FINE = CSS(steps=14, levels=(1, 2, 4, 8), percentile=100, silent=2, amplitude="layer")


def points(prepared: Prepared, within: str = "") -> dict[str, tuple[str, ...]]:
    """{neuron: (what it computes, of what)}, of those whose names begin with ``within``, without these words."""
    found = {op.name: (title(op), *op.inputs) for op in prepared.graph.neurons if op.name.startswith(within)}
    return {
        name.removeprefix(within): (words, *(source.removeprefix(within) for source in inputs))
        for name, (words, *inputs) in found.items()
    }


def vit() -> nn.Module:
    return VisionTransformer(img_size=8, patch_size=4, embed_dim=8, depth=2, num_heads=2, num_classes=5).eval()


def swin() -> nn.Module:
    return SwinTransformer(img_size=16, patch_size=2, window_size=4, embed_dim=8, depths=(2,), num_heads=(2,))


def convnext(**how: Any) -> nn.Module:
    """Two blocks in the first stage."""
    return ConvNeXt(depths=(2, 1, 1, 1), dims=(8,) * 4, num_classes=5, **how)


def prepared(model: nn.Module, size: int, spikes: Spikes = "needed") -> Prepared:
    return prepare(model.eval(), torch.randn(4, 3, size, size), spikes=spikes)


def test_a_vision_transformer_sends_spikes_into_its_layers_and_products() -> None:
    ready = prepared(vit(), 8)
    assert points(ready, "blocks.1.") == {
        "norm1.layer_norm": ("layer_norm", "blocks.0.add_2"),
        "attn.unbind.identity": ("identity", "attn.unbind"),
        "attn.unbind_2.identity": ("identity", "attn.unbind_2"),
        "attn.unbind_3.identity": ("identity", "attn.unbind_3"),
        "attn.scaled_dot_product_attention.softmax": ("softmax", "attn.scaled_dot_product_attention_2"),
        "attn.reshape_2.identity": ("identity", "attn.reshape_2"),
        "norm2.layer_norm": ("layer_norm", "add"),
        "mlp.act": ("gelu", "mlp.fc1"),
    }
    others = {name for name in points(ready) if not name.startswith("blocks.")}
    assert others == {"norm.layer_norm"}  # the class token and the positions are currents


def test_shifted_windows_send_spikes_as_whole_ones_do() -> None:
    ready = prepared(swin(), 16)
    first, shifted = (points(ready, f"layers.0.blocks.{k}.") for k in (0, 1))
    assert shifted == {
        "norm1": ("layer_norm", "layers.0.blocks.0.reshape_2"),
        "attn.unbind.identity": ("identity", "attn.unbind"),
        "attn.transpose.identity": ("identity", "attn.transpose"),
        "attn.unbind_3.identity": ("identity", "attn.unbind_3"),
        "attn.softmax": ("add + add + softmax", "attn.matmul"),  # its bias, and the mask between windows
        "attn.reshape_2.identity": ("identity", "attn.reshape_2"),
        "norm2": ("layer_norm", "reshape"),
        "mlp.act": ("gelu", "mlp.fc1"),
    }
    assert first["norm1"] == ("layer_norm", "patch_embed.norm")
    assert first == shifted | {"norm1": first["norm1"], "attn.softmax": ("add + softmax", "attn.matmul")}


def test_convnext_v2_normalises_its_response_in_one_neuron() -> None:
    assert points(prepared(convnext(use_grn=True), 64), "stages.0.blocks.0.") == {
        "norm.layer_norm": ("layer_norm", "permute"),
        "mlp.act.gelu": ("gelu", "mlp.fc1"),
        "mlp.grn.mul": ("linalg_vector_norm + mean + add + div + mul", "mlp.act.gelu"),
        "add.identity": ("identity", "add"),  # a depthwise convolution reads it
    }


# -- settings ----------------------------------------------------------------------------------------------------------


def gated(m: Any, x: Tensor) -> Tensor:
    y = m.b(F.max_pool2d(m.a(x).relu(), 2))
    return m.c(y * torch.sigmoid(y))  # type: ignore[no-any-return]


def settled(body: nn.Module, spikes: Spikes) -> dict[str, tuple[str, ...]]:
    return points(prepare(Between(body, SHAPE), torch.randn(4, *SHAPE), spikes=spikes), "body.")


def test_one_operator_a_neuron() -> None:
    body = Uses(gated, a=conv(8, 8), b=conv(8, 8), c=conv(8, 8))
    assert settled(body, "needed") == {"max_pool2d": ("relu + max_pool", "a"), "mul": ("sigmoid + mul", "b")}
    assert settled(body, "operators") == {
        "relu": ("relu", "a"),
        "max_pool2d": ("max_pool", "relu"),
        "sigmoid": ("sigmoid", "b"),
        "mul": ("mul", "b", "sigmoid"),
    }
    norm = Uses(lambda m, x: (x - x.mean(1, True)) / (x.var(1, keepdim=True) + 0.1).sqrt())
    assert {name: words for name, (words, *_) in settled(norm, "operators").items()} == {
        "var": "var",
        "sqrt": "sqrt",
        "div": "div",
    }
    assert settled(Attention(), "operators")["softmax"] == ("softmax", "mul")  # scale and bias stay on the current
    masked = Uses(lambda m, x: m.c(x * (m.b(x) > 0)), b=conv(8, 8), c=conv(8, 8))
    assert settled(masked, "operators") == {"mul": ("gt + mul", "b", "relu")}


def test_a_neuron_behind_every_block() -> None:
    def added(model: nn.Module, size: int) -> set[str]:
        few, more = (set(points(prepared(model, size, spikes))) for spikes in ("needed", "blocks"))
        assert few <= more
        return more - few

    ends = {f"blocks.{k}.{name}.identity" for k, name in ((0, "add"), (0, "add_2"), (1, "add"))}
    assert added(vit(), 8) == ends  # the last one goes nowhere but into the last norm
    assert {f"layers.0.{name}" for name in ends} == added(swin(), 16)
    assert not added(convnext(), 64)  # its convolutions read the stream: it is a train without the setting


@pytest.mark.parametrize("spikes", ["blocks", "operators"])
def test_more_neurons_compute_the_same(spikes: Spikes, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model, x = nn.Sequential(nn.Conv2d(3, 8, 1), SqueezeExcitation(), nn.Conv2d(8, 3, 1), vit()), torch.randn(6, *SHAPE)
    snn, usual = (convert(model, x, scheme=FINE, spikes=each) for each in (spikes, "needed"))
    assert len(snn.graph.neurons) > len(usual.graph.neurons)
    assert distance(snn.analog(x), model(x).detach()) < 1e-5
    assert distance(snn(x), model(x).detach()) < 2e-3
    snn.save(tmp_path)
    again = load(tmp_path)
    assert again.graph.spikes == spikes and torch.equal(again(x), snn(x))
    row = compare(again, [(x, torch.zeros(6, dtype=torch.long))], layer_images=2).row
    assert row.spikes == spikes and row.label.endswith(f", {spikes}")
    network = json.loads((tmp_path / "network.json").read_text())
    (tmp_path / "network.json").write_text(json.dumps(network | {"spikes": "block"}))
    with pytest.raises(ModelError, match=r"spikes='block': expected .* Did you mean 'blocks'"):
        load(tmp_path)


def test_no_other_setting() -> None:
    with pytest.raises(ConfigError, match=r"spikes='operator': expected .* Did you mean 'operators'"):
        convert(vit(), torch.randn(4, 3, 8, 8), spikes="operator")  # type: ignore[arg-type]
