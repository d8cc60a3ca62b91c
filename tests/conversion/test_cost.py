"""Multiply-accumulates against PyTorch's counter, fan-out against the Jacobian's non-zero entries."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from tests.conversion.nets import CONV
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from transpike.coding import CSS
from transpike.conversion import prepare
from transpike.conversion.cost import evaluated, fan_out, macs, relays, step
from transpike.conversion.graph import Graph
from transpike.conversion.kinds import RELATIVE, apply

SHAPE = (2, 6, 6)


@pytest.mark.parametrize(
    "model",
    [
        torchvision.models.resnet18(num_classes=10),
        torchvision.models.mobilenet_v2(num_classes=10).features[:4],
        nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ConvTranspose2d(8, 4, 3, stride=2, groups=2), nn.Linear(31, 5)),
    ],
)
def test_multiply_accumulates_are_products_with_what_lies_inside_the_image(model: nn.Module) -> None:
    x, found = torch.randn(1, 3, 32, 32), []

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ones = copy.deepcopy(module)
        with torch.no_grad():
            for name, parameter in ones.named_parameters():
                parameter.copy_((parameter != 0) if name == "weight" else torch.zeros_like(parameter))
            found.append(int(ones.forward(torch.ones_like(inputs[0])).sum(dtype=torch.float64)))

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(x)
    weighted = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))]
    hooks = [module.register_forward_hook(count) for module in weighted]
    model(x)
    for hook in hooks:
        hook.remove()
    whole, dense = sum(found), counter.get_total_flops() / 2
    assert sum(macs(prepare(model, x).graph).values()) == whole
    padded = any(getattr(module, "padding", (0,)) not in ((0, 0), 0, (0,)) for module in model.modules())
    assert (whole < dense) if padded else (whole == dense)


def test_one_spike_a_neuron_costs_as_many_operations_as_the_analog_network_has() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 5, padding=2, stride=2, groups=4), nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 17 * 17, 5),
    )  # fmt: skip
    graph = prepare(model.eval(), torch.randn(2, 3, 16, 16)).graph
    assert sum(int(counts.sum()) for counts in fan_out(graph).values()) == sum(macs(graph).values())


def test_multiply_accumulates_of_resnet18_on_imagenet() -> None:
    graph = prepare(torchvision.models.resnet18(), torch.randn(1, 3, 224, 224)).graph
    dense = 1_814_073_344  # the 1.8 GMACs of the literature, which count the padding's zeros
    assert 0.92 * dense < sum(macs(graph).values()) < dense


def jacobian_counts(graph: Graph) -> dict[str, Tensor]:
    """How many inputs of neurons and outputs change with each neuron, by the Jacobian of what lies between."""
    firing = [op for op in graph if op.kind == "input" or op.fires]
    ends = [op.inputs[0] for op in graph.neurons] + [n for n in graph.outputs if graph[n] not in firing]

    def currents(name: str, value: Tensor) -> Tensor:
        values = {op.name: torch.zeros(1, *op.shape) for op in firing} | {name: value}
        for op in graph:
            if op not in firing:
                constants = {key: t for key, t in op.tensors.items() if key in ("weight", "scale")}
                values[op.name] = apply(op, constants, *(values[n] for n in op.inputs))
        return torch.cat([values[end].flatten() for end in dict.fromkeys(ends)])

    def count(name: str, shape: tuple[int, ...]) -> Tensor:
        jacobian: Any = torch.autograd.functional.jacobian(lambda v: currents(name, v), torch.zeros(1, *shape))
        return (jacobian != 0).sum(0)[0]

    return {op.name: count(op.name, op.shape) for op in firing}


def net(body: Callable[[Any, Tensor], Tensor], **parts: nn.Module) -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = CONV[len(SHAPE) - 1](2, 4, 3, padding=1)
            self.parts = nn.ModuleDict(parts)
            self.fc = nn.LazyLinear(3)

        def forward(self, x: Tensor) -> Tensor:
            x = body(self, F.relu(self.conv(x)))
            return self.fc(x.flatten(1))

    made = Net()
    made(torch.zeros(2, *SHAPE))
    return made.eval()


CASES = {
    "strided convolution": (lambda m, x: m.parts["c"](x).relu(), {"c": nn.Conv2d(4, 3, 3, stride=2, padding=1)}),
    "grouped": (lambda m, x: m.parts["c"](x).relu(), {"c": nn.Conv2d(4, 4, 2, groups=2)}),
    "dilated, reflected": (lambda m, x: m.parts["c"](F.pad(x, (0, 0))).relu(), {"c": nn.Conv2d(4, 4, 2, dilation=3)}),
    "transposed": (lambda m, x: m.parts["c"](x).relu(), {"c": nn.ConvTranspose2d(4, 2, 2, stride=2)}),
    "average pooling": (lambda m, x: F.avg_pool2d(x, 2), {}),
    "pooling with a rest": (lambda m, x: F.avg_pool2d(x, 4), {}),
    "adaptive pooling": (lambda m, x: F.adaptive_avg_pool2d(x, (3, 2)), {}),
    "global mean": (lambda m, x: x.mean((2, 3)), {}),
    "bilinear": (
        lambda m, x: m.parts["c"](F.interpolate(x, scale_factor=2, mode="bilinear")).relu(),
        {"c": nn.Conv2d(4, 3, 1)},
    ),
    "nearest": (lambda m, x: m.parts["c"](F.interpolate(x, size=(9, 7))).relu(), {"c": nn.Conv2d(4, 3, 1)}),
    "padding": (lambda m, x: F.relu(m.parts["c"](F.pad(x, (2, 1, 0, 3)))), {"c": nn.Conv2d(4, 3, 3)}),
    "cat": (lambda m, x: torch.cat([x, m.parts["c"](x).relu(), x[:, :2]], 1)[:, :6], {"c": nn.Conv2d(4, 4, 1)}),
    "skip": (
        lambda m, x: F.relu(x + m.parts["d"](F.relu(m.parts["c"](x)))),
        {"c": nn.Conv2d(4, 4, 3, padding=1), "d": nn.Conv2d(4, 4, 1)},
    ),
    "max-pool": (lambda m, x: F.max_pool2d(m.parts["c"](x).relu(), 2), {"c": nn.Conv2d(4, 4, 3)}),
    "max-pool of spikes": (lambda m, x: F.max_pool2d(x, 2) - F.avg_pool2d(x, 2), {}),
    "norm before": (
        lambda m, x: F.relu(m.parts["c"](m.parts["n"](x))),
        {"c": nn.Conv2d(4, 4, 3), "n": nn.BatchNorm2d(4)},
    ),
    "bottleneck": (
        lambda m, x: m.parts["d"](m.parts["c"](x)).relu(),
        {"c": nn.Conv2d(4, 2, 1), "d": nn.Conv2d(2, 5, 3)},
    ),
    "shapes": (lambda m, x: torch.stack(x.chunk(2, 1), 1).permute(0, 3, 1, 2, 4).flatten(2), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_fan_out_is_the_number_of_non_zero_entries_of_the_jacobian(name: str) -> None:
    body, parts = CASES[name]
    graph = prepare(net(body, **parts), torch.randn(4, *SHAPE)).graph
    expected, found = jacobian_counts(graph), fan_out(graph)
    assert list(found) == list(expected)
    for layer, counts in found.items():
        assert torch.equal(counts, expected[layer].float()), layer


def test_a_zero_weight_is_no_synapse() -> None:
    model = net(lambda m, x: m.parts["c"](x).relu(), c=nn.Conv2d(4, 4, 1))
    with torch.no_grad():
        model.parts["c"].weight[:, 1] = 0  # type: ignore[index,union-attr]
        model.fc.weight[1] = 0  # type: ignore[index,union-attr]
    found = fan_out(prepare(model, torch.randn(4, *SHAPE)).graph)
    first, second = (found[name] for name in list(found)[1:])
    assert first[:, 0, 0].tolist() == [4, 0, 4, 4]
    assert (second == 2).all()


def test_parallel_paths_are_synapses_of_their_own() -> None:
    model = net(lambda m, x: F.relu(m.parts["c"](x) + x), c=nn.Conv2d(4, 4, 1))
    found = fan_out(prepare(model, torch.randn(4, *SHAPE)).graph)
    first, second = (found[name] for name in list(found)[1:])
    assert (first == 4 + 1).all() and (second == 3).all()


class Residual(nn.Module):
    """Two blocks before whose functions norms read the residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(3))
        self.wide, self.narrow = (nn.ModuleList(nn.Linear(*size) for _ in range(2)) for size in ((8, 20), (20, 8)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, wide, narrow in zip(self.norms, self.wide, self.narrow, strict=False):
            x = x + narrow(F.gelu(wide(norm(x))))
        return self.head(self.norms[2](x))  # type: ignore[no-any-return]


def test_a_residual_stream_is_summed_once_and_passed_on() -> None:
    graph = prepare(Residual().eval(), torch.randn(4, 5, 6)).graph
    names = ["input", *(op.name for op in graph.neurons)]
    assert {name: fan.unique().tolist() for name, fan in fan_out(graph).items()} == dict(
        zip(names, ([8.0], [20.0], [8.0], [20.0], [8.0], [3.0]), strict=True)
    )
    norms = [op.name for op in graph.neurons if "norm" in op.name]
    first, second = (op.name for op in graph if op.kind == "add")
    # At the second sum the stream goes on to one layer alone, which accumulates it.
    assert relays(graph) == {norms[0]: 40, first: 40, norms[1]: 40, second: 40}


def test_a_part_of_a_shared_current_is_passed_on_alone() -> None:
    class Token(Residual):
        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.head(self.norms[0](x)[:, 0] * F.gelu(self.wide[0](self.norms[1](x[:, 1]))).sum(-1, True))  # type: ignore[no-any-return]

    graph = prepare(Token().eval(), torch.randn(4, 5, 6)).graph
    assert sorted(relays(graph).values()) == [8, 40]


def test_counting_needs_no_gradients_to_be_on() -> None:
    graph = prepare(Residual().eval(), torch.randn(4, 5, 6)).graph
    with torch.no_grad():
        assert fan_out(graph)["input"].unique().tolist() == [8]


def test_what_a_neuron_does_in_a_step() -> None:
    graph = prepare(Residual().eval(), torch.randn(4, 5, 6)).graph
    norm, gelu = (step(graph, op) for op in graph.neurons[:2])
    assert (norm.evaluations, norm.operations, norm.state, norm.group) == (1, 4 + 3, 2, 8)
    assert (gelu.evaluations, gelu.operations, gelu.state, gelu.group) == (1, 5 + 5, 2, 1)
    pooled = prepare(
        net(lambda m, x: F.max_pool2d(m.parts["c"](x).relu(), 2), c=nn.Conv2d(4, 4, 1)), torch.randn(2, *SHAPE)
    )
    relu, pool = (step(pooled.graph, op) for op in pooled.graph.neurons)
    assert (relu.evaluations, relu.operations, relu.state, relu.group) == (0, 0, 2, 1)
    assert (pool.evaluations, pool.state, pool.group) == (0, 4 + 1, 4)


@pytest.mark.parametrize("activation, evaluations", [(nn.ReLU6(), 0), (nn.GELU(), 1)])
def test_amplitudes_of_channels_are_thresholds_and_cost_nothing(activation: nn.Module, evaluations: int) -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), activation, nn.Conv2d(4, 3, 1))
    prepared = prepare(model.eval(), 3 * torch.randn(16, *SHAPE))
    steps, works = [], []
    for amplitude in ("layer", "channel"):
        snn = prepared.convert(CSS(silent=1, amplitude=amplitude))
        (op,) = snn.graph.neurons
        assert (RELATIVE in op.tensors) == (amplitude == "channel")
        steps.append(step(snn.graph, op))
        works.append(evaluated(snn.graph, op))
    assert steps[0] == steps[1] and steps[0].evaluations == evaluations
    assert works[0] == works[1] and bool(works[0].additions) == bool(evaluations)
