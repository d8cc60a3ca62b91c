"""How long each layer listens: by the error at the output, no longer than needed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.conversion.nets import distance
from tests.conversion.test_amplitudes import made
from torch import Tensor, nn

import transpike
from transpike import CSS
from transpike.coding import Rate
from transpike.coding.scheme import decode
from transpike.conversion import SpikingNetwork, network, prepare, running, values
from transpike.conversion.calibrate import collect
from transpike.conversion.op import Op
from transpike.conversion.sensitivity import effects, gains, relative_error
from transpike.conversion.silence import IMAGES, Silences, _proposals, allowed


class Loud(nn.Module):
    """A common part of the inputs that the weights cancel: the first layer's target settles late."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(64, 32), nn.Linear(32, 32), nn.Linear(32, 4)
        with torch.no_grad():
            self.first.weight -= self.first.weight.mean(1, keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(torch.relu(self.second(torch.relu(self.first(x)))))


@pytest.fixture
def loud() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Loud().eval(), 10 * torch.rand(256, 1) + torch.rand(256, 64)


def test_the_layer_that_needs_it_waits(loud: tuple[nn.Module, Tensor]) -> None:
    net, images = loud
    prepared = prepare(net, images)
    snn = prepared.convert(CSS(steps=12))
    first, second = (snn.timing.waits[op.name] for op in snn.graph.neurons)
    assert first >= second and first >= 4 and snn.latency == 12 + first + second and snn.interval == 12 + first
    with pytest.warns(UserWarning, match=r"cannot follow .*relu \(.*silent='auto'"):
        none = prepared.convert(CSS(steps=12, silent=0))
    want = net(images)
    assert distance(snn(images), want) < 0.2 * distance(none(images), want)


def test_the_choice_is_the_shortest_within_its_slack(loud: tuple[nn.Module, Tensor]) -> None:
    net, images = loud
    prepared, scheme = prepare(net, images), CSS(steps=8)
    proposals = _proposals(Silences(prepared, scheme, prepared.amplitudes(scheme)))
    snn = prepared.convert(scheme)
    least = min(each.error for each in proposals)
    within = [each for each in proposals if each.error <= allowed(least)]
    assert snn.latency == min(each.latency for each in within) < max(each.latency for each in proposals)
    measured = relative_error(snn(images[-IMAGES:]), net(images[-IMAGES:]).detach())
    assert measured == pytest.approx(min(within, key=lambda each: each.latency).error, rel=1e-4)
    again = prepare(net, images).convert(scheme)
    assert again.timing.waits == snn.timing.waits and again.units == snn.units


def test_at_most_fifteen_simulations(loud: tuple[nn.Module, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    net, images = loud
    prepared, seen = prepare(net, images), []
    walk = running.walk

    def counted(snn: SpikingNetwork, x: Tensor, *args: Any) -> dict[str, Tensor]:
        seen.append(len(x))
        return walk(snn, x, *args)

    for module in (network, running, values):
        monkeypatch.setattr(module, "walk", counted)
    prepared.convert(CSS(steps=8))
    assert len(seen) <= 15 and max(seen) <= 64


def test_multi_level_spikes_need_less_silence() -> None:
    net, images = made("mobile")
    prepared = prepare(net, images)
    ternary, levels = (prepared.convert(CSS(steps=8, **how)) for how in ({}, {"levels": (1, 2, 4, 8)}))
    assert levels.latency < ternary.latency
    assert distance(levels(images), net(images)) < 0.1


def test_effects_predict_the_error_at_the_output() -> None:
    net, images = made("mobile")
    prepared = prepare(net, images)
    found = effects(prepared.graph, images[:32], prepared.statistics.axes)
    graph, x = prepared.graph, collect(images)[:32]
    (want,) = graph.run(x).values()
    scale = (want - want.mean(0)).square().sum(1).mean()
    generator = torch.Generator().manual_seed(0)
    for layer in (graph.neurons[0].name, graph.neurons[1].name, graph.neurons[-1].name):
        noises: list[Tensor] = []

        def moved(op: Op, value: Tensor, layer: str = layer, noises: list[Tensor] = noises) -> None:
            if op.name == layer:
                noises.append(torch.rand(value.shape, generator=generator) - 0.5)
                value.add_(noises[0] * 1e-3)

        (got,) = graph.run(x, moved).values()
        caused, theta = (got - want).square().sum(1).mean() / scale, torch.tensor(1e-3)
        assert found[layer].of(noises[0], theta) == pytest.approx(float(caused), rel=0.6)
        assert found[layer].floor(theta) == pytest.approx(found[layer].of(noises[0], theta), rel=0.1)


def test_the_gain_is_the_largest_current_of_unit_spikes() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, -2.0], [0.5, 0.0]]))
        net[0].bias.fill_(7.0)
    snn = prepare(net, torch.tensor([[1.0, 1.0], [0.5, -1.0]])).convert(
        CSS(steps=4, silent=1, percentile=100, amplitude="layer")
    )
    unit, theta = snn.units["input"], snn.units["1"]
    assert gains(snn.graph)["1"] == pytest.approx(3 * unit / theta)
    assert {row.name: row.gain for row in snn.describe().rows} == {"input": None, "1": gains(snn.graph)["1"]}


def test_in_one_step_nothing_waits(loud: tuple[nn.Module, Tensor]) -> None:
    net, images = loud
    snn = transpike.convert(net, images, scheme=CSS(steps=1, levels=tuple(range(1, 128)), span=127))
    assert snn.latency == 1 and set(snn.timing.waits.values()) == {0}


def test_few_images_suffice_and_one_is_enough(loud: tuple[nn.Module, Tensor]) -> None:
    net, images = loud
    for count in (1, 2, 5):
        snn = transpike.convert(net, images[:count])
        assert snn(images[:3]).isfinite().all()
        assert set(snn.timing.waits.values()) != {6}  # what each layer's errors cause is known


def test_outputs_that_do_not_vary_have_effects_too(loud: tuple[nn.Module, Tensor]) -> None:
    net, images = loud
    graph = prepare(net, images).graph
    found = effects(graph, images[:1].expand(8, *images.shape[1:]), {})
    assert all(float(effect.sensitivity) > 0 for effect in found.values())


def test_a_scheme_that_waits_as_told_says_nothing_of_silence(loud: tuple[nn.Module, Tensor], recwarn) -> None:  # type: ignore[no-untyped-def]
    net, images = loud
    prepare(net, images).convert(Rate(steps=8))
    assert not [warning for warning in recwarn if "cannot follow" in str(warning.message)]


@pytest.mark.parametrize("span, finer", [(1, 4), (2, 2), (4, 1), (8, 1)])
def test_the_input_of_larger_digits_is_as_fine_as_they_allow(span: int, finer: int) -> None:
    torch.manual_seed(0)
    net, images = nn.Sequential(nn.Linear(256, 4), nn.ReLU(), nn.Linear(4, 4)).eval(), torch.rand(128, 256)
    prepared, scheme = prepare(net, images), CSS(steps=8, levels=(1, 2, 4, 8), span=span)
    coarse = prepared.amplitudes(scheme)
    snn = prepared.convert(scheme)
    assert snn.units["input"] == pytest.approx(float(coarse["input"].max()) / finer)
    waits = snn.timing.waits
    if finer > 1:
        plain = prepared.build(scheme, coarse, waits)
        assert distance(snn(images), net(images)) < distance(plain(images), net(images))
        twice = decode(scheme, scheme.encode(2 * images / snn.amplitude("input"))) * snn.amplitude("input")
        assert distance(twice, 2 * images) < 0.01
    ternary = CSS(steps=8)
    assert prepared.convert(ternary).units["input"] == float(prepared.amplitudes(ternary)["input"].max())


def test_an_input_that_does_not_bind_stays_coarse() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 4)).eval()
    with torch.no_grad():
        net[0].weight *= 0.01
    prepared, scheme = prepare(net, torch.rand(128, 4)), CSS(steps=8, levels=(1, 2, 4, 8))
    assert prepared.convert(scheme).units["input"] == float(prepared.amplitudes(scheme)["input"].max())
