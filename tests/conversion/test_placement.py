"""Where neurons stand, how deep a network is, and what its skip connections wait for."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.conversion.nets import Uses
from torch import Tensor, nn

from transpike import CSS, create_model
from transpike.conversion import SpikingNetwork, prepare
from transpike.conversion.kinds import title

SHAPE = (3, 8, 8)


def spiking(model: nn.Module, *, silent: int = 2) -> SpikingNetwork:
    return prepare(model.eval(), torch.randn(4, *SHAPE)).convert(CSS(steps=8, silent=silent, amplitude="layer"))


def neurons(*modules: nn.Module) -> dict[str, str]:
    """{name: function} of the neurons of a sequence with a classifier behind it."""
    body = nn.Sequential(*modules)
    with torch.no_grad():
        features = body.eval()(torch.zeros(2, *SHAPE)).flatten(1).shape[1]
    snn = spiking(nn.Sequential(*modules, nn.Flatten(), nn.Linear(features, 5)))
    return {op.name: title(op) for op in snn.graph.neurons}


def conv(inputs: int = 3, outputs: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def test_relu_and_max_pool_are_one_neuron_in_either_order() -> None:
    assert neurons(conv(), nn.ReLU(), nn.MaxPool2d(2)) == {"2": "relu + max_pool"}
    assert neurons(conv(), nn.MaxPool2d(2), nn.ReLU()) == {"2": "relu + max_pool"}
    assert neurons(conv(), nn.MaxPool2d(2), nn.LeakyReLU(0.1)) == {"2": "leaky_relu(0.1) + max_pool"}
    assert neurons(conv(), nn.BatchNorm2d(3), nn.ReLU6(), nn.MaxPool2d(3, 2, 1)) == {"3": "relu6 + max_pool"}
    assert neurons(conv(), nn.PReLU(3), nn.AdaptiveMaxPool2d(2)) == {"2": "prelu + max_pool"}


def test_what_lies_between_is_part_of_one_neuron() -> None:
    assert neurons(conv(), nn.ReLU(), nn.MaxPool2d(2), nn.MaxPool2d(2)) == {"3": "relu + max_pool + max_pool"}
    falling = nn.PReLU(3, init=-1)
    assert neurons(conv(), falling, nn.MaxPool2d(2)) == {"2": "prelu + max_pool"}
    assert neurons(nn.MaxPool2d(2), conv(), nn.ReLU()) == {"0": "max_pool", "2": "relu"}
    read_twice = Uses(lambda m, x: (lambda y: F.max_pool2d(y, 3, 1, 1) + y)(F.relu(m.conv(x))), conv=conv())
    assert sorted(neurons(read_twice).values()) == ["max_pool", "relu"]


def test_a_weighted_layer_that_feeds_another_gets_an_identity_neuron() -> None:
    bottleneck = [conv(3, 8), nn.ReLU6(), nn.Conv2d(8, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 8, 1), nn.ReLU6()]
    assert neurons(*bottleneck) == {"1": "relu6", "2.identity": "identity", "5": "relu6"}


def test_average_pooling_and_shapes_before_a_weighted_layer_need_no_neuron() -> None:
    assert neurons(conv(), nn.ReLU(), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1)) == {"1": "relu"}
    assert neurons(nn.AvgPool2d(2), conv(), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Dropout()) == {"2": "relu"}
    assert neurons(conv(), nn.AvgPool2d(2)) == {"2.identity": "identity"}  # on what enters the classifier


def points(body: nn.Module, channels: int = 8) -> dict[str, tuple[str, ...]]:
    """{what a neuron computes of what: what it reads} between a convolution and a classifier of pooled features."""
    net = nn.Sequential(nn.Conv2d(3, 8, 1), body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))
    return {op.name.removeprefix("1."): (title(op), *op.inputs) for op in spiking(net).graph.neurons}


class SqueezeExcitation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.b(F.relu(self.a(x.mean((2, 3), keepdim=True)))).sigmoid()


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj, self.bias = nn.Linear(8, 24), nn.Linear(8, 8), nn.Parameter(torch.randn(2, 64, 64))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(x).reshape(x.shape[0], 64, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        shares = (q @ k.transpose(-2, -1) * 0.5 + self.bias).softmax(-1)
        x = x + self.proj((shares @ v).transpose(1, 2).flatten(2))
        return x.transpose(1, 2).unflatten(2, (8, 8))


def test_queries_keys_and_values_are_layers_of_their_own() -> None:
    torch.manual_seed(0)
    net, x = Attention().eval(), torch.randn(16, 8, 8, 8)
    prepared = prepare(net, x)
    layers = [op for op in prepared.graph if op.kind == "linear" and op.name.startswith("qkv")]
    assert [(op.name, op.shape) for op in layers] == [(f"qkv.{k}", (64, 8)) for k in range(3)]
    assert not any(op.kind == "select" for op in prepared.graph)
    torch.testing.assert_close(prepared.graph.pack(prepared.graph.run(x)), net(x), rtol=1e-4, atol=1e-5)
    snn = prepared.convert(CSS(silent=1, levels=(1, 2, 4, 8)))
    assert not any(op.gains for op in snn.graph.neurons if op.name.startswith("unbind"))
    with pytest.raises(KeyError, match="qkv became part of unbind"):
        snn.trace(x[:2])["qkv"]


def test_a_layer_that_is_read_as_a_whole_stays_one() -> None:
    def read(m: Any, x: Tensor) -> Any:
        whole = m.qkv(x.flatten(2).transpose(1, 2)).reshape(-1, 64, 3, 2, 4).permute(2, 0, 3, 1, 4)
        q, k, _ = whole.unbind(0)
        return (q @ k.transpose(-2, -1)).softmax(-1), whole.relu().transpose(0, 1)

    graph = prepare(Uses(read, qkv=nn.Linear(8, 24)).eval(), torch.randn(8, 8, 8, 8)).graph
    assert [op.name for op in graph if op.kind == "linear"] == ["qkv"]


def test_a_gate_reads_what_an_average_reads_as_a_train() -> None:
    assert points(nn.Sequential(nn.SiLU(), SqueezeExcitation())) == {
        "0": ("silu", "0"),
        "1.relu": ("relu", "1.1.a"),
        "1.mul": ("sigmoid + mul", "1.1.b", "1.0"),
    }
    mbconv = nn.Sequential(conv(8, 16), nn.BatchNorm2d(16), nn.SiLU(), conv(16, 8), nn.SiLU(), SqueezeExcitation())
    assert points(nn.Sequential(mbconv, nn.Conv2d(8, 8, 1))) == {
        "0.identity": ("identity", "0"),
        "0.2": ("silu", "1.0.0"),
        "0.4": ("silu", "1.0.3"),
        "0.5.relu": ("relu", "1.0.5.a"),
        "0.5.mul": ("sigmoid + mul", "1.0.5.b", "1.0.4"),
        "3.identity": ("identity", "3"),
    }


def test_a_gate_of_two_currents_is_one_neuron() -> None:
    both: Any = Uses(lambda m, x: (lambda a, b: F.silu(a) * b)(*m.c(x).chunk(2, 1)), c=conv(8, 16))
    assert points(both)["mul"] == ("silu + mul", "1.chunk", "1.chunk_2")
    assert points(Uses(lambda m, x: F.glu(m.c(x), 1), c=conv(8, 16)))["glu"] == ("glu", "1.c")


def test_averages_stay_outside_of_functions() -> None:
    body: Any = Uses(lambda m, x: m.c(F.avg_pool2d(m.b(x).relu(), 2).sigmoid()), b=conv(8, 8), c=conv(8, 8))
    found = points(body)
    assert found["relu"] == ("relu", "1.b") and found["sigmoid"] == ("sigmoid", "1.avg_pool2d")
    summed: Any = Uses(lambda m, x: m.c((m.a(x) * m.b(x)).sum(1, True)), a=conv(8, 8), b=conv(8, 8), c=conv(1, 8))
    assert points(summed)["mul"] == ("mul", "1.a", "1.b")


def test_norms_are_one_neuron_however_they_are_written() -> None:
    def norm(m: Any, x: Tensor) -> Tensor:
        variance = (x - x.mean(1, keepdim=True)).pow(2).mean(1, keepdim=True)
        return (x - x.mean(1, keepdim=True)) / (variance + 1e-5).sqrt() * m.g + m.b  # type: ignore[no-any-return]

    constants = {"g": torch.rand(8, 1, 1), "b": torch.rand(8, 1, 1)}
    assert points(Uses(norm, **constants)) == {"div": ("pow + mean + add + sqrt + div", "1.sub", "1.sub_2")}

    def response(m: Any, x: Tensor) -> Tensor:
        x = F.gelu(x)
        power = x.norm(p=2, dim=(2, 3), keepdim=True)
        return m.c(x + m.g * x * power / (power.mean(1, keepdim=True) + 1))  # type: ignore[no-any-return]

    assert points(Uses(response, c=conv(8, 8), g=constants["g"])) == {
        "gelu": ("gelu", "0"),
        "div": ("linalg_vector_norm + mul + mean + add + div", "1.gelu", "1.mul"),
        "3.identity": ("identity", "3"),
    }


def test_attention_sends_spikes_as_queries_keys_values_and_shares() -> None:
    assert points(Attention()) == {
        "transpose.identity": ("identity", "1.transpose"),
        "unbind.identity": ("identity", "1.unbind"),
        "unbind_3.identity": ("identity", "1.unbind_3"),
        "transpose_2.identity": ("identity", "1.transpose_2"),
        "softmax": ("mul + add + softmax", "1.matmul"),
        "flatten_2.identity": ("identity", "1.flatten_2"),
        "3.identity": ("identity", "3"),
    }


def test_linear_attention_sends_what_its_products_read() -> None:
    def attend(m: Any, x: Tensor) -> Tensor:
        q, k, v = m.qkv(x).flatten(2).transpose(1, 2).chunk(3, -1)
        q, k = q.relu(), k.relu()
        y = q @ (k.transpose(1, 2) @ v) / (q @ k.sum(1).unsqueeze(-1) + 1)
        return y.transpose(1, 2).unflatten(2, (8, 8))  # type: ignore[no-any-return]

    assert points(Uses(attend, qkv=conv(8, 24))) == {
        "0.identity": ("identity", "0"),
        "relu": ("relu", "1.chunk"),
        "relu_2": ("relu", "1.chunk_2"),
        "chunk_3.identity": ("identity", "1.chunk_3"),
        "matmul.identity": ("identity", "1.matmul"),
        "div": ("add + div", "1.matmul_3", "1.matmul_2"),
    }


def test_a_function_that_two_neurons_would_hold_is_one_itself() -> None:
    body: Any = Uses(
        lambda m, x: (lambda y: m.c(y + y.exp()) + m.d(y.tanh()))(F.silu(m.a(x))),
        a=conv(8, 8),
        c=conv(8, 8),
        d=conv(8, 8),
    )
    found = points(body)
    assert (
        found["silu"] == ("silu", "1.a") and found["exp"] == ("exp", "1.silu") and found["tanh"] == ("tanh", "1.silu")
    )
    masked: Any = Uses(lambda m, x: (lambda y, at: m.c(y * at) + m.d(y * ~at))(m.a(x), m.a(x) > 0),
                       a=conv(8, 8), c=conv(8, 8), d=conv(8, 8))  # fmt: skip
    assert [value[0] for value in points(masked).values()][1:3] == ["gt + mul", "gt + bitwise_not + mul"]


def test_norm_and_constants_fold_into_the_weights_before_them() -> None:
    scaled: Any = Uses(lambda m, x: 2 * x)
    shifted: Any = Uses(lambda m, x: x - m.c, c=torch.rand(3, 1, 1))
    model = nn.Sequential(
        conv(), nn.BatchNorm2d(3), scaled, shifted, nn.ReLU(), nn.Flatten(), nn.Linear(192, 4), scaled
    )
    assert [op.kind for op in spiking(model).graph] == ["input", "convolution", "call", "reshape", "linear"]
    per_pixel: Any = Uses(lambda m, x: x * m.c, c=torch.rand(8, 8))
    model = nn.Sequential(conv(), per_pixel, scaled, nn.ReLU(), nn.Flatten(), nn.Linear(192, 4))
    assert [op.kind for op in spiking(model).graph] == [
        "input",
        "convolution",
        "affine",
        "call",
        "reshape",
        "linear",
    ]


def test_skips_wait_for_the_longer_path() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.b, self.fc = conv(), conv(), conv(), nn.Linear(192, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x).relu()
            x = F.relu(self.b(F.relu(self.a(x))) + x)
            return self.fc(x.flatten(1))

    for silent in (0, 1, 2, 3):
        snn = spiking(Block(), silent=silent)
        waits = {edge: steps for edge, steps in snn.delays.items() if steps}
        assert waits == ({("relu", "add"): silent} if silent else {})
        assert snn.depth == 4 and snn.latency == 8 + 4 * silent and snn.interval == 8 + silent


@pytest.mark.parametrize("name", ["resnet20"])
def test_every_block_of_a_residual_network_delays_its_skip_by_one_neuron(name: str) -> None:
    snn = prepare(create_model(name), torch.randn(2, 3, 32, 32)).convert(CSS(steps=8, silent=2, amplitude="layer"))
    assert sorted(steps for steps in snn.delays.values() if steps) == [2] * 9
    assert len(snn.graph.neurons) == 19
    first = [snn.timing.depths[op.name] for op in snn.graph.neurons]
    assert first == list(range(1, 20))


def test_describe_names_every_layer() -> None:
    model = nn.Sequential(conv(), nn.ReLU(), conv(), nn.Hardtanh(-0.5, 0.5), nn.Flatten(), nn.Linear(192, 4))
    described = spiking(model).describe()
    assert [(row.name, row.function, row.neurons) for row in described.rows] == [
        ("input", "encoder", 192), ("1", "relu", 192), ("3", "hardtanh(-0.5, 0.5)", 192),
    ]  # fmt: skip
    assert [(row.wait, row.first_spike) for row in described.rows] == [(0, 0), (2, 2), (2, 4)]
    printed = str(described)
    assert "latency 14 steps" in printed and re.search(r"hardtanh\(-0.5, 0.5\) .* 192 .* step 4", printed)


def test_a_trace_tells_where_a_layer_without_spikes_went() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn, self.act, self.pool = conv(), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)
            self.fc = nn.Linear(48, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.pool(self.act(self.bn(self.conv(x)))).flatten(1))

    trace = spiking(Net()).trace(torch.randn(2, *SHAPE))
    assert list(trace) == ["input", "pool"]
    for name, words in {
        "act": r"act became part of pool. Use \['pool'\]",
        "bn": r"bn became part of conv. conv \(convolution\) sends no spikes; the next layer of neurons is pool",
        "fc": r"fc \(linear\) sends no spikes; its current is decoded into the output",
        "nothing": "no layer 'nothing'; those that send spikes: input, pool",
    }.items():
        with pytest.raises(KeyError, match=words):
            trace[name]
    assert repr(trace["pool"]).startswith("LayerTrace(spikes=[8, 2, 3, 4, 4], residual=[2, 3, 4, 4], amplitude=")
