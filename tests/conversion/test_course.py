"""What the kernels of neurons do of the graph by themselves changes no bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from transpike.coding import CSS, FS, Rate
from transpike.coding.function import Function
from transpike.coding.scheme import Scheme
from transpike.conversion import SpikingNetwork, prepare
from transpike.conversion.course import Course
from transpike.conversion.pipeline import Pipeline

SCHEMES = {
    "channel": CSS(steps=6, silent=1, amplitude="channel"),
    "layer": CSS(steps=6, silent=0, levels=(1, 2, 4, 8), amplitude="layer"),
    "ramp": FS(steps=6),
    "rate": Rate(steps=12),
}


class Blocks(nn.Module):
    """A bias, a skip around two layers, one with weights of its own, one into max-pooling and one past a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3 if k == 0 else 6, 6, 3, padding=1) for k in range(4))
        self.side, self.norm, self.head = nn.Conv2d(6, 6, 1), nn.LayerNorm(6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        first, second, third, fourth = self.convs
        x = first(x).relu()
        x = (second(x) + x).relu()
        x = torch.max_pool2d(third(x) + self.side(x), 2).relu()
        tokens = (fourth(x) * 0.5 + 2 * x).flatten(2).transpose(1, 2)
        return self.head(self.norm(tokens).relu().mean(1))


@pytest.fixture(scope="module")
def prepared():
    torch.manual_seed(0)
    model, images = Blocks().eval(), torch.randn(24, 3, 8, 8)
    plain = nn.Sequential(*list(nn.Sequential(model.convs[0], nn.ReLU(), nn.Flatten(), nn.Linear(384, 4))))
    return {True: prepare(model, images), False: prepare(plain.eval(), images)}, images


def unjoined(snn: SpikingNetwork) -> Course:
    return Course(snn.graph, snn.plan, {})


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES.keys())
def test_kernels_that_make_their_current_change_no_bit(
    scheme: Scheme, bare: bool, prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a kernel leaves a bias out of a layer (on a GPU, and where it enters by a ramp) sums round alike."""
    networks, images = prepared
    snn = networks[scheme.digits[0] < 0].convert(scheme)
    with monkeypatch.context() as patch:
        patch.setattr(SpikingNetwork, "course", property(unjoined))
        want = snn(images)
    monkeypatch.setattr(SpikingNetwork, "_bare", property(lambda snn: bare))
    seen: list[str] = []
    got = snn.observe(images, lambda op, fired: seen.append(snn.graph.by_name[op.name].name))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5 if bare else 0)
    assert bool(snn.course.joints) == (bare or scheme.digits[0] < 0)
    assert len(snn.course.graph.ops) <= len(snn.graph.ops) and set(seen) >= {op.name for op in snn.graph.neurons}
    pipeline = Pipeline(snn, images, rows=1)
    assert torch.equal(next(iter(pipeline.advance(pipeline.total).values())), got)
    half = snn.to(torch.bfloat16)
    assert half(images).isfinite().all()


def test_what_is_joined(prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    """An addition before a neuron with the amplitudes of its skip; where biases are left out, those of both sides."""
    networks, _ = prepared
    snn = networks[True].convert(SCHEMES["channel"])
    found = {name: [part.name for part in joint.ops] for name, joint in snn.course.joints.items()}
    assert found == {"relu_2": ["add.1.amplitude"], "relu_3": []}
    left = [op.name for op in snn.course.graph]
    assert "add_3" in left and not {"add", "add_2", "add.1.amplitude"} & set(left)
    assert [snn.course.graph[name].inputs for name in found] == [("convs.1", "relu"), ("convs.2", "side")]
    monkeypatch.setattr(SpikingNetwork, "_bare", property(lambda snn: True))
    found = {name: [part.name for part in joint.ops] for name, joint in snn.course.joints.items()}
    assert found == {"relu": ["convs.0"], "relu_2": ["convs.1", "add.1.amplitude"], "relu_3": ["convs.2", "side"]}
    bare = [op.name for op in snn.course.graph if op.kind == "convolution" and "bias" not in op.tensors]
    assert bare == ["convs.0", "convs.1", "convs.2", "side"]  # what follows the fourth is no neuron


@pytest.mark.parametrize("bare", [False, True])
def test_bounds_over_the_amplitudes_of_channels_change_no_bit(bare: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel bounds and divides as PyTorch does, in whole runs and in pieces."""
    torch.manual_seed(1)
    layers = [nn.Conv2d(3, 6, 3), nn.ReLU6(), nn.Conv2d(6, 6, 3), nn.Hardtanh(-0.2, 0.3), nn.Flatten()]
    model, images = nn.Sequential(*layers, nn.Linear(96, 4)), torch.randn(24, 3, 8, 8)
    for layer, least in ((model[0], 0.1), (model[2], 0.002)):  # some channels reach the bounds, others do not
        layer.weight.data *= torch.linspace(least, 6, 6).view(-1, 1, 1, 1)
        layer.bias.data *= torch.linspace(least, 6, 6)
    snn = prepare(model.eval(), images).convert(CSS(steps=6, silent=1, levels=(1, 2)))
    assert all(snn.graph[name].function.clipped for name in ("1", "3"))
    monkeypatch.setattr(SpikingNetwork, "_bare", property(lambda snn: bare))
    got, trace = snn(images), snn.trace(images)
    pipeline = Pipeline(snn, images, rows=1)
    assert torch.equal(next(iter(pipeline.advance(pipeline.total).values())), got)
    monkeypatch.setattr(Function, "clipped", None)
    assert torch.equal(snn(images), got)
    for name, layer in snn.trace(images).items():
        for each in ("spikes", "residual", "target"):
            ours, theirs = getattr(trace[name], each), getattr(layer, each)
            if ours is not None:  # the input has no residual
                assert torch.equal(ours.view(torch.int32), theirs.view(torch.int32)), (name, each)  # -0 is not 0
