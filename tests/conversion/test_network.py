"""The converted network: its spikes, its independence of batches, calls, chunks, backends and precision."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conversion.nets import distance, true_statistics
from torch import Tensor, nn

from transpike import CSS, convert
from transpike.conversion import Prepared, SpikingNetwork, prepare, running
from transpike.neurons import tsa
from transpike.neurons.kernels import track_reference
from transpike.neurons.tsa import decode

SHAPE = (3, 12, 12)
SCHEMES = [
    CSS(steps=8, beta=2.0, silent=2, amplitude="layer"),
    CSS(steps=9, beta=1.5, silent=1, amplitude="layer"),
    CSS(steps=6, beta=2.0, silent=0, levels=(1, 2, 4, 8), amplitude="layer"),
    CSS(steps=4, beta=4.0, silent=1, levels=(1, 2, 3), amplitude="layer"),
]


class Net(nn.Module):
    """A residual network with every kind of neuron: relu, leaky with max-pool, prelu, clipped, identity."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.LeakyReLU(0.1), nn.MaxPool2d(2))
        self.a = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.BatchNorm2d(8), nn.PReLU(8))
        self.b = nn.Sequential(nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.c = nn.Sequential(nn.Conv2d(16, 8, 1), nn.Hardtanh(-1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(self.b(self.a(x)) + x)
        return self.fc(self.c(torch.cat([x, 2 * x], 1)))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(24, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def prepared(images: Tensor) -> Prepared:
    torch.manual_seed(2)
    return prepare(true_statistics(Net(), images), images)


@pytest.fixture(scope="module", params=SCHEMES, ids=str)
def snn(request: Any, prepared: Prepared) -> SpikingNetwork:
    return prepared.convert(request.param)


def test_spikes_are_digits_and_what_they_miss_is_the_residual(snn: SpikingNetwork, images: Tensor) -> None:
    allowed = torch.tensor([0, *snn.scheme.levels])
    traces = snn.trace(images)
    assert list(traces) == ["input", *(op.name for op in snn.graph.neurons)]
    for name, layer in traces.items():
        assert layer.spikes.shape == (snn.scheme.steps, 24, *snn.graph[name].shape)
        assert torch.isin(layer.spikes.abs(), allowed).all() and layer.spikes.any()
        assert layer.amplitude == snn.units[name]
        if name == "input":
            assert layer.residual is None and layer.target is None
            error = decode(layer.spikes, beta=snn.scheme.beta) * layer.amplitude - images
            assert error.abs().max() <= 0.5001 * layer.amplitude
        else:
            assert layer.residual is not None and layer.target is not None
            reached = layer.residual + decode(layer.spikes, beta=snn.scheme.beta)
            assert torch.allclose(reached, layer.target, atol=1e-3, rtol=1e-5)


def test_the_first_layers_target_is_its_function_of_the_encoded_image(snn: SpikingNetwork, images: Tensor) -> None:
    traces = snn.trace(images)
    encoded = decode(traces["input"].spikes, beta=snn.scheme.beta) * snn.units["input"]
    first = snn.graph.neurons[0].name
    seen: dict[str, Tensor] = {}
    snn.analog(encoded, lambda op, value: seen.setdefault(op.name, value))
    target = traces[first].target
    assert target is not None and distance(target, seen[first]) < 1e-5


def test_unsigned_neurons_fire_no_negative_spike() -> None:
    torch.manual_seed(3)
    x = torch.randn(16, *SHAPE)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU6(), nn.Flatten(), nn.Linear(72, 5)
    )
    ready = prepare(model, x)
    traces = ready.convert(CSS(steps=12, silent=3, signed=False, amplitude="layer")).trace(x)
    assert (traces["input"].spikes < 0).any()
    assert all((layer.spikes >= 0).all() and layer.spikes.any() for name, layer in traces.items() if name != "input")
    assert any(
        (layer.spikes < 0).any()
        for name, layer in ready.convert(CSS(steps=12, silent=3, amplitude="layer")).trace(x).items()
        if name != "input"
    )


@settings(max_examples=12, deadline=None)
@given(data=st.data(), size=st.integers(2, 12), chunk=st.one_of(st.none(), st.integers(1, 5)))
def test_a_samples_output_is_bitwise_the_same_with_other_mates(
    prepared: Prepared, images: Tensor, data: st.DataObject, size: int, chunk: int | None
) -> None:
    snn = prepared.convert(data.draw(st.sampled_from(SCHEMES)))
    snn.chunk = chunk
    place = data.draw(st.integers(0, size - 1))
    batch = images[:size]
    strangers = data.draw(st.sampled_from([0.0, 1.0, 1e3, -1e-3])) * torch.randn(size, *SHAPE)
    strangers[place] = batch[place]
    assert torch.equal(snn(batch)[place], snn(strangers)[place])


def test_batch_and_chunk_sizes_change_at_most_rounding(snn: SpikingNetwork, images: Tensor) -> None:
    whole = snn(images)
    norms = whole.norm(dim=1)
    for size in (1, 2, 7):
        parts = torch.cat([snn(part) for part in images.split(size)])
        assert ((parts - whole).norm(dim=1) <= 0.01 * norms).all()
    other = copy.deepcopy(snn)
    for chunk in (1, 5, 100):
        other.chunk = chunk
        assert ((other(images) - whole).norm(dim=1) <= 0.01 * norms).all()
    assert torch.equal(other(images), whole)  # 100 is one chunk again
    assert snn(images[:0]).shape == (0, 5)


def test_no_chunk_is_so_small_that_it_is_computed_otherwise(
    snn: SpikingNetwork, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "cached", lambda: 1)
    least = -(-16 // snn.steps)
    assert snn.default_chunk == least > 1
    assert [len(part) for part in snn.chunks(images[: 2 * least + 1])] == [least + 1, least]
    assert [len(part) for part in snn.chunks(images[:1])] == [1]
    other = copy.deepcopy(snn)
    other.chunk = 1  # one's own is kept to
    assert [len(part) for part in other.chunks(images[:3])] == [1, 1, 1]


def test_no_state_is_left_between_calls(snn: SpikingNetwork, images: Tensor) -> None:
    first, kept = snn(images), {key: value.clone() for key, value in snn.state_dict().items()}
    given = images.clone()
    for other in (10 * images, -images, torch.zeros_like(images)):
        snn(other)
        snn.trace(other[:2])
        snn.analog(other[:3])
    assert torch.equal(snn(images), first) and torch.equal(images, given)
    assert all(torch.equal(value, kept[key]) for key, value in snn.state_dict().items())
    assert not first.requires_grad
    with torch.no_grad():
        assert torch.equal(snn(images), first)


def test_memory_layout_and_precision_of_the_images_do_not_matter(snn: SpikingNetwork, images: Tensor) -> None:
    want = snn(images)
    assert torch.equal(snn(images.contiguous(memory_format=torch.channels_last)), want)
    assert torch.equal(snn(images.double()), want)
    assert torch.equal(snn(images.flip(-1).contiguous().flip(-1)), want)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_the_fused_kernels_and_the_reference_agree_to_the_bit(
    prepared: Prepared, images: Tensor, scheme: CSS, monkeypatch: pytest.MonkeyPatch
) -> None:
    snn = prepared.convert(scheme)
    want, traces = snn(images), snn.trace(images)
    original = tsa._prepare
    used = []

    def reference(z: Tensor, *, rows: int) -> Any:
        used.append(rows)
        return track_reference, original(z, rows=rows)[1]

    monkeypatch.setattr(tsa, "_prepare", reference)
    assert torch.equal(snn(images), want) and used
    for name, layer in snn.trace(images).items():
        assert torch.equal(layer.spikes, traces[name].spikes), name


def test_bfloat16_weights_run_and_agree(prepared: Prepared, images: Tensor) -> None:
    snn = prepared.convert(CSS(steps=10, silent=2, amplitude="layer"))
    want = snn(images)
    half = copy.deepcopy(snn).to(torch.bfloat16)
    assert half.dtype == torch.bfloat16
    got = half(images)
    assert got.dtype == torch.float32 and distance(got, want) < 0.05
    assert distance(half.analog(images), want) < 0.05
    spikes = half.trace(images[:2])
    assert all(torch.isin(layer.spikes.abs(), torch.tensor([0.0, 1.0])).all() for layer in spikes.values())


def test_the_networks_twin_is_the_model(prepared: Prepared, images: Tensor, snn: SpikingNetwork) -> None:
    want = prepared.graph.run(images)[prepared.graph.outputs[0]]
    assert distance(snn.analog(images), want) < 1e-5


def test_adjustments_enlarge_amplitudes_where_residuals_exceed_theta(prepared: Prepared, images: Tensor) -> None:
    plain = prepared.convert(CSS(steps=8, silent=0, percentile=100, amplitude="layer"))
    adjusted = prepared.convert(CSS(steps=8, silent=0, percentile=100, adjustments=1, amplitude="layer"))
    for name, layer in plain.trace(images).items():
        before, after = plain.units[name], adjusted.units[name]
        if layer.residual is None or layer.residual.abs().quantile(0.999) < 0.99:
            assert after == before
        elif layer.residual.abs().quantile(0.999) > 1.01:
            assert after > before
    assert any(adjusted.units[name] > theta for name, theta in plain.units.items())
    calm = CSS(steps=8, silent=0, levels=(1, 2, 4, 8), percentile=100, amplitude="layer")
    assert prepared.convert(calm).units.keys() == plain.units.keys()


def test_the_error_falls_with_steps_until_clipping_and_not_further(prepared: Prepared, images: Tensor) -> None:
    want = prepared.graph.run(images)[prepared.graph.outputs[0]]

    def errors(**how: Any) -> list[float]:
        return [
            distance(prepared.convert(CSS(steps=t, **how, amplitude="layer"))(images), want) for t in (4, 6, 8, 10, 12)
        ]

    for enough in ({"silent": 3}, {"silent": 0, "levels": tuple(range(1, 17))}):
        free = errors(beta=2.0, percentile=100, **enough)
        for before, after in pairwise(free):
            assert 3 < before / after < 6  # a factor beta = 2 for each of two more steps
    clipped = errors(beta=2.0, silent=3, percentile=99)
    assert clipped[-1] > 50 * free[-1] and clipped[-1] == pytest.approx(clipped[-2], rel=0.05)


def test_silent_steps_lower_the_floor_of_coupling(prepared: Prepared, images: Tensor) -> None:
    want = prepared.graph.run(images)[prepared.graph.outputs[0]]
    floors = [
        distance(prepared.convert(CSS(steps=12, silent=s, percentile=100, amplitude="layer"))(images), want)
        for s in (0, 1, 2)
    ]
    assert floors[0] > 5 * floors[1] > 5 * floors[2]


def test_it_says_what_it_is(snn: SpikingNetwork) -> None:
    assert f"latency {snn.latency}" in repr(snn) and str(snn.scheme) in repr(snn)
    assert snn.training and snn.eval()(torch.zeros(1, *SHAPE)).shape == (1, 5)


def test_a_network_without_neurons_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="Linear has no layer of neurons"):
        convert(nn.Linear(4, 2), torch.rand(8, 4))
