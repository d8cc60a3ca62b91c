"""An amplitude a channel: the network is the same, its trains are finer."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from tests.conversion.nets import distance
from torch import Tensor, nn

import transpike
from transpike import CSS
from transpike.coding.scheme import decode
from transpike.conversion import prepare
from transpike.conversion.amplitudes import channel_axes, with_relative
from transpike.conversion.graph import Graph
from transpike.measure.conversion import compare


class Mobile(nn.Module):
    """A depthwise block whose channels differ by a hundred, a gate, a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Hardswish())
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1), nn.Hardsigmoid()
        )
        self.project = nn.Conv2d(8, 8, 1)
        self.head = nn.Sequential(
            nn.ReLU6(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 16, 16), nn.PReLU(16), nn.Linear(16, 5)
        )
        with torch.no_grad():
            self.stem[0].weight.mul_(torch.logspace(-1, 1, 8).view(-1, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = torch.relu(self.depthwise(x))
        y = self.project(y * self.gate(y))
        return self.head(torch.cat([x + y, x - y], 2)[:, :, 2:10])


class Tokens(nn.Module):
    """Attention over tokens, a transposed convolution in two groups behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(6, 16), nn.LayerNorm(16)
        self.attend = nn.MultiheadAttention(16, 2, batch_first=True)
        self.mix = nn.ConvTranspose1d(16, 8, 3, groups=2)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.embed(x))
        x = x + self.attend(x, x, x, need_weights=False)[0]
        return self.head(torch.relu(self.mix(torch.nn.functional.gelu(x).transpose(1, 2))).mean(2))


LAYERED = CSS(steps=4, silent=1, amplitude="layer")
NETS = {"mobile": (Mobile, (3, 8, 8)), "tokens": (Tokens, (5, 6))}


def made(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    net, shape = NETS[name]
    return net().eval(), torch.randn(64, *shape)


def random_vectors(graph: Graph) -> dict[str, Tensor]:
    torch.manual_seed(1)
    vectors = {}
    for name, axis in channel_axes(graph).items():
        sizes = [n if k == axis else 1 for k, n in enumerate(graph[name].shape)]
        vectors[name] = torch.rand(sizes) * 0.99 + 0.01
    return vectors


@pytest.mark.parametrize("name", NETS)
def test_any_vectors_leave_the_network_as_it_is(name: str) -> None:
    net, images = made(name)
    graph = prepare(net, images).graph
    vectors = random_vectors(graph)
    assert len(vectors) > 4 and any(vector.numel() > 1 for vector in vectors.values())
    scaled = with_relative(graph, vectors)
    seen: dict[str, Tensor] = {}
    want: dict[str, Tensor] = {}
    (got,) = scaled.run(images, lambda op, value: seen.update({op.name: value})).values()
    graph.run(images, lambda op, value: want.update({op.name: value}))
    torch.testing.assert_close(got, net(images), rtol=2e-4, atol=2e-5)
    for layer, value in want.items():  # every train is divided by its vector, and by nothing else
        torch.testing.assert_close(seen[layer] * vectors.get(layer, 1.0), value, rtol=2e-4, atol=2e-5)


class Moved(nn.Module):
    """A train that ``move`` moves before the head reads it; both are outputs, or the head's result alone."""

    def __init__(self, move: Callable[[Tensor], Tensor], head: nn.Module, *, both: bool = False) -> None:
        super().__init__()
        self.move, self.head, self.both = move, head, both
        self.body = nn.Conv2d(3, 8, 1)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        moved = self.move(torch.relu(self.body(x)))
        return (moved, self.head(moved)) if self.both else self.head(moved)


class Outer(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nchw,k->nchwk", x, torch.tensor([1.0, -2.0]))


MOVED = {
    "a flattened train, an output too": Moved(lambda x: x.flatten(1), nn.Linear(8 * 24, 3), both=True),
    "a padded train, an output too": Moved(lambda x: F.pad(x, (1, 1, 1, 1)), nn.Conv2d(8, 3, 3), both=True),
    "a mean of trains, an output too": Moved(lambda x: x.mean((2, 3)), nn.Linear(8, 3), both=True),
    "a train of one channel": Moved(lambda x: x[:, 2:3], nn.Conv2d(1, 3, 3)),
    "a channel on several axes": Moved(lambda x: F.pixel_shuffle(x, 2), nn.Conv2d(2, 3, 3)),
    "pooling over two axes of three": Moved(lambda x: F.avg_pool2d(x.mean(3), 2), nn.Conv1d(4, 3, 1)),
    "an outer product": Moved(lambda x: x, Outer()),
}


@pytest.mark.parametrize("name", MOVED)
def test_what_moves_a_train_is_the_networks_own(name: str) -> None:
    torch.manual_seed(0)
    net, images = MOVED[name].eval(), torch.randn(16, 3, 4, 6)
    with torch.no_grad():
        net.body.weight.mul_(torch.logspace(-1, 1, 8).view(-1, 1, 1, 1))
    graph = prepare(net, images).graph
    scaled = with_relative(graph, random_vectors(graph)).run(images)
    for output, value in graph.run(images).items():
        torch.testing.assert_close(scaled[output], value, rtol=2e-4, atol=2e-5)
    snn = transpike.convert(net, images, scheme=CSS(steps=12, silent=4, percentile=100))
    got, want = (out if isinstance(out, tuple) else (out,) for out in (snn(images), net(images)))
    assert all(distance(a, b) < 0.02 for a, b in zip(got, want, strict=True))


def test_pooling_over_two_axes_of_three_is_counted() -> None:
    net, images = MOVED["pooling over two axes of three"].eval(), torch.randn(16, 3, 4, 6)
    snn = transpike.convert(net, images, scheme=CSS(steps=6, silent=1))
    assert snn.describe().rows and compare(snn, [images]).ann.macs == 8 * 3 * 24 + 4 * 3 * 2


def test_weights_take_the_vectors_where_they_stand() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.LeakyReLU(0.1),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4, 2),
    )
    graph = prepare(net, torch.randn(16, 3, 6, 6)).graph
    scaled = with_relative(graph, random_vectors(graph))
    kinds = [op.kind for op in scaled]
    assert kinds == [op.kind for op in graph] and not any(op.gains for op in scaled)


def test_a_skip_connection_carries_its_vector() -> None:
    net, images = made("mobile")
    graph = prepare(net, images).graph
    scaled = with_relative(graph, random_vectors(graph))
    edges = [op for op in scaled if op.kind == "affine"]
    assert edges and all(set(op.tensors) == {"scale"} and op.tensors["scale"].numel() > 1 for op in edges)


def test_the_axis_of_channels_is_what_weights_sum_over() -> None:
    net, images = made("tokens")
    graph = prepare(net, images).graph
    axes = channel_axes(graph)
    assert {name: graph[name].shape[axis] for name, axis in axes.items()}["input"] == 6
    after = next(op for op in graph.neurons if op.function.name == "relu")
    assert after.shape[axes[after.name]] == 8 and axes[after.name] == 0
    gelu = next(op for op in graph.neurons if "gelu" in op.function.name)
    assert gelu.shape[axes[gelu.name]] == 16


@pytest.mark.parametrize("name", NETS)
def test_trains_with_an_amplitude_a_channel_are_finer(name: str) -> None:
    net, images = made(name)
    prepared = prepare(net, images)
    errors = {
        amplitude: distance(
            prepared.convert(CSS(steps=8, silent=4, percentile=100, amplitude=amplitude))(images), net(images)
        )
        for amplitude in ("layer", "channel")
    }
    assert errors["channel"] < {"mobile": 0.8, "tokens": 1.1}[name] * errors["layer"]


def test_decoded_trains_are_the_activations(name: str = "mobile") -> None:
    net, images = made(name)
    prepared = prepare(net, images)
    snn = prepared.convert(CSS(steps=12, silent=6, percentile=100))
    want: dict[str, Tensor] = {}
    prepared.graph.run(images, lambda op, value: want.update({op.name: value}))
    for layer, traced in snn.trace(images).items():
        value = decode(snn.scheme, traced.spikes) * traced.amplitude
        assert distance(value, want[layer]) < 0.01, layer
        assert traced.amplitude.ndim in (0, value.ndim - 1)
    rows = {row.name: row for row in snn.describe().rows}
    layered = prepared.convert(LAYERED).describe().rows
    assert [row.function for row in rows.values()] == [row.function for row in layered]
    assert min(row.spread for row in rows.values()) < 0.5 and rows["stem.1"].amplitude == snn.units["stem.1"]


@pytest.mark.parametrize("steps", [2, 6])
def test_a_saved_network_keeps_its_vectors(tmp_path, steps: int) -> None:  # type: ignore[no-untyped-def]
    net, images = made("mobile")
    snn = transpike.convert(net, images, scheme=CSS(steps=steps))
    snn.save(tmp_path / "snn")
    again = transpike.load(tmp_path / "snn")
    assert torch.equal(again(images), snn(images)) and again.describe() == snn.describe()
    assert again.timing.waits == snn.timing.waits and again.residuals == snn.residuals


# -- which amplitude -------------------------------------------------------------------------------------------------


def test_the_least_squares_choice_has_the_least_error() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    images = torch.randn(512, 4) ** 3  # heavy tails
    prepared = prepare(net, images)
    values: list[Tensor] = []
    prepared.graph.run(images, lambda op, value: values.append(value) if op.name == "1" else None)

    def error(theta: Tensor, full: float) -> Tensor:
        rounded = (values[0] / theta).round().clamp(max=full) * theta
        return (rounded - values[0]).square().sum(0)

    for steps in (3, 6, 10):
        scheme = CSS(steps=steps, percentile="fit", silent=1)
        fitted = prepared.amplitudes(scheme)["1"].float()
        for percentile in (90.0, 99.0, 100.0):
            other = prepared.amplitudes(CSS(steps=steps, percentile=percentile, silent=1))["1"].float()
            assert error(fitted, scheme.full).sum() <= 1.1 * error(other, scheme.full).sum()
    coarse, fine = (prepared.amplitudes(CSS(steps=t, percentile="fit", silent=1))["1"] * (2**t - 1) for t in (2, 12))
    assert (coarse <= fine).all() and (coarse < fine).any()  # more steps leave room for the tail


def test_scarce_channels_reach_beyond_what_was_seen() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    torch.manual_seed(0)
    few, many = torch.randn(100, 3), torch.randn(40_000, 3)
    peaks = {}
    for images in (few, many):
        prepared = prepare(net, images, images=len(images))
        full = CSS(steps=8, silent=1).full
        channels = prepared.statistics.seen["1"].channels
        assert channels is not None
        peaks[len(images)] = prepared.amplitudes(CSS(steps=8, silent=1))["1"] * full / channels.maximum
    growth = math.log(300) / math.log(100)  # as far as the layer's largest of three times as many
    assert peaks[100].min() == 1 and peaks[100].max() == pytest.approx(growth)
    assert (peaks[40_000] <= 1).all()


def test_a_channel_that_fires_in_few_images_has_the_layers_amplitude() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    torch.manual_seed(0)
    images = torch.randn(40_000, 3)
    images[:, 1].clamp_(max=1)
    images[:3, 1] = 2
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(3))
        net[0].bias.copy_(torch.tensor([0.0, -1.0, 0.0]))  # three images in 40,000 pass
    theta = prepare(net, images, images=len(images)).amplitudes(CSS(steps=8, silent=1))["1"]
    assert theta[1] == theta.max()


def test_places_of_one_image_are_not_as_many_values() -> None:
    net = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(2)[..., None, None])
        net[0].bias.zero_()
    images = torch.rand(64, 2, 8, 8)
    images[:, 1] -= 1
    images[:8, 1, :4] = 0.01  # in eight images, at many places
    theta = prepare(net, images).amplitudes(CSS(steps=8, silent=1))["1"]
    assert theta[1] == theta[0] / 2
    images[:, 1] = 0.01  # everywhere
    theta = prepare(net, images).amplitudes(CSS(steps=8, silent=1))["1"]
    assert theta[1] == theta[0] / 64


@pytest.mark.parametrize(("images", "share"), [(512, 1 / 64), (64, 1 / 16), (8, 1 / 2), (3, 1)])
def test_a_channel_that_says_little_has_a_share_of_the_layers_amplitude_and_one_that_never_fires_all_of_it(
    images: int, share: float
) -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        net[0].bias[:2] = torch.tensor([1e-4, -1e3])
        net[0].weight[0] = 0
        net[0].weight[2], net[0].bias[2] = 1, 0
    theta = prepare(net, torch.rand(images, 3)).amplitudes(CSS(silent=1))["1"]
    assert theta[0] == theta[2] * share and theta[1] == theta[2]


def test_the_largest_of_few_values_is_not_the_bound_of_new_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    turned = torch.linalg.qr(torch.randn(8, 8, generator=generator))[0]
    net = nn.Sequential(nn.Linear(8, 8, bias=False), nn.ReLU(), nn.Linear(8, 8, bias=False)).eval()
    with torch.no_grad():
        net[0].weight.copy_(turned)
        net[2].weight.copy_(torch.eye(8))
    loud = torch.randint(8, (200,), generator=generator)  # each image excites one channel, and all a bit
    images = (torch.eye(8)[loud] + 0.01 * torch.rand(200, 8, generator=generator)) @ turned
    snn = transpike.convert(net, images[:6], scheme=CSS(steps=8, levels=(1, 2, 4, 8), silent=2))
    assert len(set(loud[:6].tolist())) < 8  # some are loud in new images alone
    with torch.no_grad():
        assert (snn(images) - net(images)).abs().max() < 0.02  # 0.87 in units of 1/64 of the largest


def test_a_channel_that_never_fires_says_nothing_of_what_only_seems_to_come() -> None:
    generator = torch.Generator().manual_seed(0)
    net, images = nn.Sequential(nn.Linear(64, 2), nn.ReLU(), nn.Linear(2, 1)), torch.rand(512, 64, generator=generator)
    with torch.no_grad():
        net[0].weight.copy_(torch.randn(2, 64, generator=generator))
        net[0].bias.zero_()
        net[0].bias[1] = -0.01 - (images @ net[0].weight[1]).max()  # the first digits of an image may say otherwise
        net[2].weight.fill_(1.0)
    snn = transpike.convert(net, images, scheme=CSS(steps=10, levels=(1, 2, 4, 8), silent=0))
    assert (snn(images) - net(images)).abs().max() < 0.05  # 0.42 in units of 1/64


def test_one_step_with_digits_as_range_is_the_quantised_network() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    images = torch.randn(256, 6)
    scheme = CSS(steps=1, silent=0, levels=tuple(range(1, 128)), span=127, amplitude="layer", percentile=100)
    prepared = prepare(net, images)

    def rounded(x: Tensor, analog: Tensor) -> Tensor:
        scale = analog.abs().max() / 127
        return (x / scale).round().clamp(-127, 127) * scale

    x = analog = images
    for module in net:
        x = module(rounded(x, analog) if isinstance(module, nn.Linear) else x)
        analog = module(analog)
    assert distance(prepared.convert(scheme)(images), x) < 1e-5
    plain = CSS(steps=1, silent=0, levels=tuple(range(1, 128)), amplitude="layer", percentile=100)
    assert (
        distance(prepared.convert(scheme)(images), net(images))
        < 0.05
        < distance(prepared.convert(plain)(images), net(images))
    )
