"""Layers that multiply spikes with weights of 16 bits as bytes, where PyTorch's setting allows it."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from tests.conversion.nets import Uses
from torch import Tensor, nn

from transpike import CSS
from transpike.coding import Rate
from transpike.conversion import SpikingNetwork, load, prepare, synapses
from transpike.conversion.op import Op
from transpike.neurons.kernels import bytes_cpu
from transpike.neurons.kernels.bytes_cpu import Weights, linear
from transpike.neurons.tsa import Tracked

IMAGES = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def high(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(synapses, "_supported", lambda: True)  # right on every processor, faster on some
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


def network() -> nn.Module:
    torch.manual_seed(0)
    parts = {
        "stem": nn.Conv2d(3, 64, 3, padding=1),
        "wide": nn.Conv2d(64, 96, 1),
        "grouped": nn.Conv2d(96, 96, 1, groups=2),
        "strided": nn.Conv2d(96, 64, 1, stride=2),
        "averaged": nn.Linear(64, 64),
        "token": nn.Linear(1024, 80),
        "small": nn.Linear(80, 10),
    }

    def function(self: Uses, x: Tensor) -> Tensor:
        x = F.relu(self.wide(F.relu(self.stem(x))))
        x = F.relu(self.strided(F.relu(self.grouped(x))))
        pooled = F.relu(self.averaged(F.avg_pool2d(x, 4).flatten(1)))
        return self.small(F.relu(self.token(x.permute(0, 2, 3, 1).flatten(1)))) + pooled[:, :10]

    return Uses(function, **parts).eval()


@pytest.fixture(scope="module")
def snn() -> SpikingNetwork:
    return prepare(network(), IMAGES).convert(CSS(steps=8, silent=1))


def test_layers_are_chosen_by_what_they_read(snn: SpikingNetwork) -> None:
    assert synapses.as_bytes(snn.graph, snn.scheme) == {"wide", "token"}


def test_an_analog_image_is_not_made_of_digits() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)).eval()
    prepared = prepare(net, torch.rand(20, 64))
    assert synapses.as_bytes(prepared.convert(CSS(silent=1)).graph, CSS()) == {"0", "2"}
    assert synapses.as_bytes(prepared.convert(Rate(steps=8)).graph, Rate(steps=8)) == {"2"}
    wide = CSS(steps=2, levels=range(1, 200), silent=0)
    assert synapses.as_bytes(prepared.convert(wide).graph, wide) == frozenset()


@pytest.mark.parametrize("rows", [0, 1, 511, 513])
def test_weights_of_sixteen_bits_are_exact(rows: int) -> None:
    g = torch.Generator().manual_seed(2)
    digits = torch.randint(-8, 9, (rows, 70), generator=g)
    weight = torch.randint(-32512, 32513, (33, 70), generator=g).float()
    weight[0, :6] = torch.tensor([128.0, -128.0, 127.0, -129.0, 32512.0, -32512.0])
    weight[:, 0] = 32512.0
    bias = torch.randint(-9, 9, (33,), generator=g).float()
    small = digits.clone()
    small[:, 20:] = 0  # so that float32 holds the sums
    assert linear(small.to(torch.int8), Weights.of(weight), bias).equal(F.linear(small.float(), weight, bias))
    exact = F.linear(digits.double(), weight.double(), bias.double())
    torch.testing.assert_close(
        linear(digits.to(torch.int8), Weights.of(weight), bias).double(), exact, rtol=1e-6, atol=2
    )


def test_the_error_of_a_weight_is_below_its_row_s_last_bit() -> None:
    g = torch.Generator().manual_seed(3)
    weight = torch.randn(40, 64, generator=g) * torch.logspace(-30, 3, 40).unsqueeze(1)
    weight[7] = 0
    read = linear(torch.eye(64, dtype=torch.int8), Weights.of(weight), None).t()
    assert ((read - weight).abs() <= weight.abs().amax(1, keepdim=True) * 1.55e-5).all()
    assert read[7].count_nonzero() == 0


def test_threads_do_not_change_the_result() -> None:
    digits = torch.randint(-8, 9, (2000, 64), dtype=torch.int8)
    weights, threads = Weights.of(torch.randn(96, 64)), torch.get_num_threads()
    one = linear(digits, weights, None)
    try:
        torch.set_num_threads(2)
        assert linear(digits, weights, None).equal(one)
    finally:
        torch.set_num_threads(threads)


def test_the_network_is_the_same_but_for_the_last_bits(snn: SpikingNetwork, high: None) -> None:
    bytes_ = snn(IMAGES)
    torch.set_float32_matmul_precision("highest")
    exact = snn(IMAGES)
    assert not bytes_.equal(exact)
    assert (bytes_ - exact).norm() < 2e-3 * exact.norm()
    assert exact.argmax(1).equal(bytes_.argmax(1))


def test_pytorch_s_default_multiplies_floats(snn: SpikingNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synapses, "_supported", lambda: True)
    monkeypatch.setattr(bytes_cpu, "linear", None)
    snn(IMAGES[:2])


def test_pieces_of_steps_equal_the_whole_run(snn: SpikingNetwork, high: None) -> None:
    *_, last = snn.stream(IMAGES)
    assert last.outputs.equal(snn(IMAGES))


def test_changed_weights_are_seen(snn: SpikingNetwork, high: None) -> None:
    other = snn.timed(snn.timing.waits)
    assert other(IMAGES[:4]).equal(snn(IMAGES[:4]))
    with torch.no_grad():
        other.get_buffer("token/weight").mul_(-1)
    assert not other(IMAGES[:4]).equal(snn(IMAGES[:4]))


def test_a_copy_has_weights_of_its_own(snn: SpikingNetwork, high: None) -> None:
    other = snn.timed(snn.timing.waits)
    for factor in (2, 0.5):  # each counts as a change
        other.get_buffer("token/weight").mul_(factor)
    before = other(IMAGES[:4])
    twin = copy.deepcopy(other)
    twin.get_buffer("token/weight").mul_(-1)
    assert not twin(IMAGES[:4]).equal(before)
    assert other(IMAGES[:4]).equal(before)


def test_no_image_and_another_default_type(snn: SpikingNetwork, high: None) -> None:
    assert snn(IMAGES[:0]).shape == (0, 10)
    expected = snn(IMAGES[:4])
    torch.set_default_dtype(torch.float64)
    try:
        assert snn(IMAGES[:4]).equal(expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_waits_are_chosen_with_trains_of_half_an_amplitude(high: None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    layers = [nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 1), nn.ReLU(), nn.Conv2d(64, 64, 1), nn.ReLU()]
    prepared = prepare(nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 36, 5)).eval(), IMAGES)
    seen, usual = list[Tensor](), bytes_cpu.linear

    def spy(digits: Tensor, *rest: Tensor) -> Tensor:
        seen.append(digits)
        return usual(digits, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(bytes_cpu, "linear", spy)
    snn = prepared.convert(CSS(steps=4, levels=(1, 2, 4, 8), silent=1))

    def halves(op: Op, z: list[Tensor]) -> Tracked:
        shape = z[0].shape if op.fires else (4, *z[0].shape)
        return Tracked(torch.full(shape, 0.5))

    seen.clear()
    snn.simulate(IMAGES[:2], halves)
    assert not seen  # half a digit is no byte
    snn(IMAGES[:2])
    assert seen


def test_a_saved_network_computes_the_same_bits(snn: SpikingNetwork, high: None, tmp_path) -> None:  # type: ignore[no-untyped-def]
    snn.save(tmp_path / "net")
    assert load(tmp_path / "net")(IMAGES).equal(snn(IMAGES))
