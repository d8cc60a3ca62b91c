"""Codes of many steps: trains travel in pieces, or as the values they say, and nothing changes."""

from __future__ import annotations

import pytest
import torch
from tests.conversion.nets import distance
from torch import Tensor, nn

from transpike.coding import CSS, QCFS, TSC, TTFS, Differential, Phase, Rate, Scheme
from transpike.coding.scheme import decode
from transpike.conversion import SpikingNetwork, prepare, running
from transpike.conversion.op import Op
from transpike.conversion.prepare import Prepared
from transpike.measure.conversion import compare
from transpike.neurons.tsa import Tracked

LONG = [
    Rate(steps=200),
    Rate.calibrated(steps=150),
    Rate(steps=150, correction="potential"),
    TSC(steps=200),
    QCFS(steps=150),
    Phase(steps=200),
    Differential(steps=150),
    CSS(steps=140, beta=1.1, silent=0, amplitude="layer"),
]


class Net(nn.Module):
    """A skip, a maximum and a clip."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8 * 9, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.a(x).relu(), 2)
        x = nn.functional.relu6(self.b(x)) + x
        return self.c(nn.functional.avg_pool2d(x, 2).flatten(1))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(24, 3, 12, 12, generator=torch.Generator().manual_seed(0)) * 2 - 0.5


@pytest.fixture(scope="module")
def ready(images: Tensor) -> Prepared:
    torch.manual_seed(0)
    return prepare(Net().eval(), images)


def pieces(snn: SpikingNetwork, x: Tensor) -> dict[str, list[int]]:
    """How many steps each layer's spikes are seen for at once, of the first chunk."""
    seen: dict[str, list[int]] = {}
    snn.observe(x[:1], lambda op, fired: seen.setdefault(op.name, []).append(len(fired.spikes)))
    return {name: lengths for name, lengths in seen.items() if name != "input"}


@pytest.mark.parametrize("scheme", LONG, ids=str)
def test_pieces_of_steps_are_the_whole_run(
    scheme: Scheme, ready: Prepared, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    snn = ready.convert(scheme)
    assert all(len(lengths) > 1 and max(lengths) <= 64 for lengths in pieces(snn, images).values())
    logits, trace, alone = snn(images), snn.trace(images), snn.trace(images[:1])
    monkeypatch.setattr(running, "LONG", 10**6)
    whole = ready.build(scheme, ready.amplitudes(scheme)) if not scheme.correction else _again(snn)
    assert set(map(tuple, pieces(whole, images).values())) == {(len(scheme.weights),)}
    for name, layer in whole.trace(images).items():
        assert torch.equal(layer.spikes, trace[name].spikes), name
        assert torch.equal(layer.spikes[:, :1], alone[name].spikes), name
        if layer.residual is not None and trace[name].residual is not None:
            torch.testing.assert_close((layer.residual, layer.target), (trace[name].residual, trace[name].target))
    torch.testing.assert_close(logits, whole(images), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("scheme", [Rate(steps=200), Rate.calibrated(steps=150), QCFS(steps=150)], ids=str)
def test_early_answers_end_in_the_whole_run(scheme: Scheme, ready: Prepared, images: Tensor) -> None:
    """To the bit: pieces of one step and of many are the same pipeline."""
    snn = ready.convert(scheme)
    assert torch.equal(list(snn.stream(images))[-1].outputs, snn(images))


def _again(snn: SpikingNetwork) -> SpikingNetwork:
    return SpikingNetwork(snn.graph, snn.scheme, snn.units, waits=snn.timing.waits)


def test_memory_does_not_grow_with_the_steps(ready: Prepared, images: Tensor) -> None:
    """As many images at a time as at 64 steps, and no more of their trains than 64 steps."""
    short = ready.convert(Rate(steps=64))
    for scheme in (Rate(steps=1024), TSC(steps=1024), TTFS(steps=1024)):
        snn = ready.convert(scheme)
        assert snn.default_chunk >= short.default_chunk // 2
        assert max(max(lengths) for lengths in pieces(snn, images).values()) <= 64


def test_layers_that_wait_run_whole(ready: Prepared, images: Tensor) -> None:
    snn = ready.convert(CSS(steps=140, beta=1.1, silent=2, amplitude="layer"))
    assert {tuple(lengths) for lengths in pieces(snn, images).values()} == {(140,)}


def test_values_in_place_of_trains_are_what_the_trains_say() -> None:
    """Exactly, where the weights are such that float32 holds every sum: step by step, and in one."""
    torch.manual_seed(1)
    net = Net().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_((parameter * 16).round() / 16)
    x = (torch.rand(16, 3, 12, 12) * 8).round() / 8
    ready, scheme = prepare(net, x), TTFS(steps=16)
    thetas = {name: torch.tensor(4.0 if name != "input" else 1.0).double() for name in ready.amplitudes(scheme)}
    snn = ready.build(scheme, thetas)

    def fire(op: Op, currents: list[Tensor]) -> Tracked:
        if op.kind == "input":
            return snn.encode(*currents)
        stepped[op.name] = snn.neurons[op.name](currents, snn.tensors(op), inplace=False, final=False)
        return stepped[op.name]

    stepped: dict[str, Tracked] = {}
    logits, trace = snn.simulate(x, fire), snn.trace(x)
    for name, fired in stepped.items():
        assert torch.equal(fired.spikes, trace[name].spikes) and fired.spikes.mean() > 0
    assert torch.equal(logits, snn(x))


def test_values_are_quick_and_right_at_a_thousand_steps(ready: Prepared, images: Tensor) -> None:
    snn = ready.convert(TTFS(steps=1024, percentile=100))
    assert distance(snn(images), snn.analog(images)) < 2e-3
    trace = snn.trace(images[:2])
    for name, layer in trace.items():
        if name != "input":
            assert layer.spikes.shape[0] == 1024 and layer.spikes.sum(0).max() == 1
            assert layer.residual is not None and layer.target is not None
            torch.testing.assert_close(decode(snn.scheme, layer.spikes) + layer.residual, layer.target)


@pytest.mark.parametrize("scheme", [Rate(steps=200), TTFS(steps=200), TSC(steps=200)], ids=str)
def test_a_long_code_is_measured_and_diagnosed(scheme: Scheme, ready: Prepared, images: Tensor) -> None:
    snn = ready.convert(scheme)
    row = compare(snn, [(images, torch.zeros(len(images), dtype=torch.long))], layer_images=3).row
    trace = snn.trace(images[:3])
    for layer in row.layers[1:]:
        assert layer.spikes_per_neuron == pytest.approx(float(trace[layer.name].spikes.abs().sum(0).mean()), rel=1e-5)
    assert row.layers[1].error is not None
    values = [layer.error for layer in row.layers]
    assert values[1] and values[1] < 0.1 * 200  # of the last steps
    assert snn.diagnose(images[:3]).error < 0.5  # negative pixels come late in TSC
