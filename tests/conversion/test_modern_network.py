"""A network of patches, a token, attention, a gate and norms keeps what every converted network keeps."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.conversion.nets import Between, distance
from tests.conversion.test_modern import CASES, SHAPE, heads, tokens
from torch import Tensor, nn

from transpike import CSS, ConversionError
from transpike.coding import FS, Rate
from transpike.coding.scheme import Scheme, decode
from transpike.conversion import SpikingNetwork, load, prepare
from transpike.conversion.cost import evaluated, fan_out, macs, pairings
from transpike.errors import ModelError
from transpike.measure.conversion import compare
from transpike.neurons import tsa
from transpike.neurons.kernels import track_reference


class Modern(nn.Module):
    """Patches, a token, windows, attention, a gate, norms: one of each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.token = nn.Conv2d(3, 8, 2, 2), nn.Parameter(torch.randn(1, 1, 8))
        self.norms = nn.ModuleList(nn.LayerNorm(8, eps=1e-2) for _ in range(3))
        self.qkv, self.proj, self.gated, self.out = (
            nn.Linear(8, 24),
            nn.Linear(8, 8),
            nn.Linear(8, 32),
            nn.Linear(16, 8),
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), tokens(self.stem(x))], 1)
        q, k, v = heads(self, self.norms[0](x))
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        a, b = self.gated(self.norms[1](x)).chunk(2, -1)
        x = x + self.out(F.gelu(a) * b)
        return self.head(self.norms[2](x)[:, 0])  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def modern() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(3)
    return Modern().eval(), torch.randn(24, *SHAPE)


@pytest.fixture(scope="module")
def snn(modern: tuple[nn.Module, Tensor]) -> SpikingNetwork:
    return prepare(*modern).convert(CSS(silent=1, levels=(1, 2, 4, 8), amplitude="layer"))


def test_chunks_and_batches_change_nothing_but_rounding(snn: SpikingNetwork, modern: tuple[nn.Module, Tensor]) -> None:
    x = modern[1]
    whole = snn(x)
    for chunk in (1, 7):
        snn.chunk = chunk
        torch.testing.assert_close(snn(x), whole, rtol=1e-3, atol=2e-3)
    snn.chunk = None
    assert snn.default_chunk == 2**21 // (
        snn.interval * (2 * 17 * 17 + 2 * 2 * 17 * 4)
    )  # attention's shares and its operands


def test_a_trace_decodes_to_what_was_sent(snn: SpikingNetwork, modern: tuple[nn.Module, Tensor]) -> None:
    x = modern[1][:4]
    analog: dict[str, Tensor] = {}
    snn.analog(x, lambda op, value: analog.__setitem__(op.name, value))
    traced = snn.trace(x)
    assert list(traced) == list(analog) and len(traced) == 10
    for name, layer in traced.items():
        assert set(layer.spikes.unique().tolist()) <= {-8, -4, -2, -1, 0, 1, 2, 4, 8}
        said = decode(snn.scheme, layer.spikes)
        if layer.residual is not None and layer.target is not None:
            torch.testing.assert_close(said + layer.residual, layer.target, rtol=1e-4, atol=1e-3)
        assert distance(said, analog[name]) < 0.05
    printed = str(snn.describe())
    assert "gelu + mul" in printed and "add + mul" not in printed and printed.count("layer_norm") >= 3


def test_it_comes_nearer_with_every_step(modern: tuple[nn.Module, Tensor]) -> None:
    model, x = modern
    prepared, want = prepare(model, x), model(x).detach()
    schemes = [
        CSS(steps=steps, silent=1, levels=(1, 2, 4, 8), percentile=100, amplitude="layer") for steps in (4, 7, 10, 13)
    ]
    errors = [distance(prepared.convert(scheme)(x), want) for scheme in schemes]
    assert all(after < before / 3 for before, after in itertools.pairwise(errors)) and errors[-1] < 1e-3


def test_products_cost_multiplications_and_functions_evaluations(
    snn: SpikingNetwork, modern: tuple[nn.Module, Tensor]
) -> None:
    pairs, counts = pairings(snn.graph), macs(snn.graph)
    (scores, mixed) = [op for op in snn.graph if op.kind == "product"]
    assert counts[scores.name] == counts[mixed.name] == 2 * 17 * 17 * 4
    assert {name: pair.unique().tolist() for name, pair in pairs.items() if pair.any()} == {
        **{name: [17.0] for name in (*scores.inputs, mixed.inputs[1])},
        mixed.inputs[0]: [4.0],
    }
    assert not any(fan_out(snn.graph)[name].any() for name in scores.inputs)
    measured = compare(snn, [(modern[1][:8], torch.zeros(8, dtype=torch.long))], layer_images=8)
    row = measured.row
    sent = {layer.name: layer.spikes_per_neuron * layer.neurons for layer in row.layers}
    expected = sum(sent[name] * float(pairs[name].mean()) for name in pairs)
    assert row.products == pytest.approx(expected, rel=1e-4)
    layers = {layer.name: layer for layer in row.layers}
    assert sum(layer.products for layer in row.layers) == pytest.approx(row.products)
    assert all(layers[name].state == 3 for name in (*scores.inputs, *mixed.inputs))
    (softmax,) = [layer for layer in row.layers if layer.function == "softmax"]
    assert (softmax.evaluations, softmax.group, softmax.evaluation_operations) == (1, 17, 12)
    evaluations = {layer.name: layer.evaluation_operations * layer.neurons for layer in row.layers}
    assert row.function_operations == pytest.approx(sum(evaluations.values()) * snn.interval)
    found = [evaluated(snn.graph, op) for op in snn.graph.neurons]
    once = sum(0.9e-12 * one.additions + 3.7e-12 * one.multiplications for one in found)
    assert row.energy_parts_uj["functions"] == pytest.approx(once * snn.interval * 1e6)
    assert measured.ann.energy_uj == pytest.approx(measured.ann.macs * 4.6e-6 + once * 1e6)
    assert row.energy_parts_uj["products"] == pytest.approx(expected * 4.6e-6, rel=1e-4)


@pytest.mark.parametrize("scheme", [Rate(), FS(), CSS(signed=False, silent=2, amplitude="layer")])
def test_schemes_without_negative_spikes_refuse_by_name(scheme: Scheme, modern: tuple[nn.Module, Tensor]) -> None:
    with pytest.raises(ConversionError) as caught:
        prepare(*modern).convert(scheme)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{type(scheme).__name__} has no neurons for this network:"
    assert any("gelu + mul has no neuron in this scheme" in line for line in lines)
    reasons = [line.partition(": ")[2] for line in lines[1:]]
    assert len(set(reasons)) == len(reasons) < 9  # nine places, each reason once


def test_half_precision(snn: SpikingNetwork, modern: tuple[nn.Module, Tensor], tmp_path: Path) -> None:
    model, x = modern
    half = prepare(model, x).convert(snn.scheme).to(torch.bfloat16)
    half.save(tmp_path)
    assert half.dtype == torch.bfloat16 and torch.equal(load(tmp_path)(x), half(x))
    assert distance(half(x).float(), model(x).detach()) < 0.2


def test_what_a_function_would_need_on_the_way_is_bounded(snn: SpikingNetwork, tmp_path: Path) -> None:
    snn.save(tmp_path)
    network = json.loads((tmp_path / "network.json").read_text())
    entry = next(op for op in network["ops"] if op["kind"] == "call" and op["function"]["calls"])
    calls = entry["function"]["calls"]
    pads = {"operator": "constant_pad_nd.default", "args": [{"result": len(calls) - 1}, [0, 2**40], 0.0]}
    cut = {"operator": "constant_pad_nd.default", "args": [{"result": len(calls)}, [0, -(2**40)], 0.0]}
    calls += [pads, cut]
    (tmp_path / "network.json").write_text(json.dumps(network))
    with pytest.raises(ModelError, match="too large for any memory"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["modern", "squeeze-excitation"])
def test_the_kernels_equal_the_reference_to_the_bit(
    name: str, modern: tuple[nn.Module, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = modern if name == "modern" else (Between(CASES[name](), SHAPE).eval(), modern[1])
    snn = prepare(model, x).convert(CSS(silent=1, levels=(1, 2, 4, 8)))
    usual, ready = snn.trace(x[:3]), tsa._prepare
    monkeypatch.setattr(tsa, "_prepare", lambda z, *, rows: (track_reference, ready(z, rows=rows)[1]))
    slow = snn.trace(x[:3])
    assert list(slow) == list(usual)
    for layer, wanted in slow.items():
        assert torch.equal(usual[layer].spikes, wanted.spikes), layer
