"""Running in pieces of steps on networks with waits, skips, products and functions of any kind; stopping early."""

from __future__ import annotations

import pytest
import torch
from tests.conversion.test_modern_network import Modern
from torch import Tensor, nn

import transpike
from transpike.coding import CSS, FS, TSC, TTFS, Rate, Scheme
from transpike.conversion import SpikingNetwork
from transpike.conversion.anytime import left, trajectories
from transpike.conversion.pipeline import ROWS, Pipeline
from transpike.conversion.stopping import StopRule
from transpike.errors import ConfigError, ConversionError


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module", params=[CSS(steps=6, levels=(1, 2, 4, 8), silent=2), CSS(steps=7)], ids=["2", "auto"])
def snn(request: pytest.FixtureRequest, images: Tensor) -> SpikingNetwork:
    torch.manual_seed(0)
    return transpike.convert(Modern().eval(), images, scheme=request.param)


def test_a_modern_network_in_pieces_equals_a_whole_run(snn: SpikingNetwork, images: Tensor) -> None:
    """Products, functions that wait for a quotient, skips over layers that wait."""
    assert len(set(snn.timing.waits.values())) > 0 and max(snn.timing.waits.values()) > 0
    moments = list(snn.stream(images[:20]))
    assert torch.equal(moments[-1].outputs, snn(images[:20]))
    assert [m.latency for m in moments] == list(range(snn.latency - snn.steps + 1, snn.latency + 1))


def test_samples_that_leave_change_nothing_for_those_that_stay(snn: SpikingNetwork, images: Tensor) -> None:
    """Down to one sample, whose place in the batch and whose neighbours have changed."""
    whole = snn(images[:40])[[7, 31, 37]]
    pipeline = Pipeline(snn, images[:40])
    pipeline.advance(1)
    pipeline.keep(torch.arange(40)[::2] + 1)  # odd ones
    pipeline.advance(3)
    pipeline.keep(torch.tensor([3, 15, 18]))  # 7, 31 and 37
    said = pipeline.advance(snn.steps)[snn.graph.outputs[0]]
    assert torch.equal(said, whole) and said.shape == (3, *whole.shape[1:])


def test_what_is_not_needed_is_not_simulated(snn: SpikingNetwork, images: Tensor) -> None:
    """By the output's step t a layer has fired in no more than t steps and the waits that are still before it."""
    pipeline = Pipeline(snn, images[:ROWS])
    pipeline.advance(2)
    for op in snn.graph.neurons:
        behind = pipeline.arrived - snn.timing.first_spike[op.name]
        fired = pipeline.done[op.name] - snn.timing.waits[op.name]
        assert fired == min(2 + behind, snn.steps) == pipeline.simulated(op.name, 2)


def test_chunks_change_nothing(snn: SpikingNetwork, images: Tensor) -> None:
    whole = list(snn.stream(images))
    snn.chunk = 21
    try:
        parts = list(snn.stream(images))
    finally:
        snn.chunk = None
    for one, other in zip(whole, parts, strict=True):
        assert torch.equal(one.outputs, other.outputs) and torch.equal(one.bound, other.bound)


def test_a_whole_run_tells_what_is_said_after_every_step(snn: SpikingNetwork, images: Tensor) -> None:
    steps = torch.stack([moment.outputs for moment in snn.stream(images)])
    assert torch.equal(trajectories(snn, images), steps)


def test_trajectories_of_a_long_code_come_in_pieces() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 3)).eval()
    snn, x = transpike.convert(net, torch.randn(64, 6), scheme=Rate(steps=150)), torch.randn(20, 6)
    steps = torch.stack([moment.outputs for moment in snn.stream(x)])
    assert torch.equal(trajectories(snn, x), steps)


def test_half_precision_streams(images: Tensor) -> None:
    torch.manual_seed(0)
    snn = transpike.convert(Modern().eval(), images, scheme=CSS(steps=6, levels=(1, 2, 4, 8))).half()
    assert torch.equal(list(snn.stream(images[:20]))[-1].outputs, snn(images[:20]))


@pytest.mark.parametrize("scheme", [CSS(steps=6, levels=(1, 2, 4, 8)), Rate(steps=6), FS(steps=6)])
def test_a_constant_reads_right_from_the_first_step(scheme: Scheme) -> None:
    """What has come is divided by the share of a constant that has come."""
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    nn.init.zeros_(net[2].weight)  # type: ignore[arg-type]
    snn = transpike.convert(net, torch.randn(64, 4), scheme=scheme)
    for moment in snn.stream(torch.randn(20, 4)):
        torch.testing.assert_close(moment.outputs, net[2].bias.expand(20, 3).detach())
        assert (moment.bound < 1e-5).all()


class Segments(nn.Module):
    """A class for every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"pixels": self.b(self.a(x).relu())}


def test_dense_outputs_and_a_loss_of_ones_own(images: Tensor) -> None:
    snn = transpike.convert(Segments().eval(), images, scheme=CSS(steps=8, levels=(1, 2, 4, 8)))
    other = lambda a, b: (a.argmax(1) != b.argmax(1)).flatten(1).float().mean(1)  # noqa: E731
    snn.calibrate_stop(images[:40], changed=other, score="steady")
    answer = snn.until(images[40:], agreement=0.9)
    assert answer.outputs["pixels"].shape == (24, 4, 16, 16) and answer.steps.float().mean() < 8
    full = snn(images[40:])["pixels"]
    assert float(other(answer.outputs["pixels"], full).mean()) < 0.1


def test_a_regression_stops_within_its_error() -> None:
    torch.manual_seed(4)
    x = torch.randn(400, 6)
    net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1)).eval()
    snn = transpike.convert(net, x[:100], scheme=CSS(steps=10, levels=(1, 2, 4, 8)))
    rule = snn.calibrate_stop(x[100:300], error=0.02)
    assert rule.score == "steady" and rule is snn.stop
    answer, full = snn.until(x[300:], agreement=0.95), snn(x[300:])
    assert float(((answer.outputs - full).abs() > 0.02).float().mean()) <= 0.05 + 0.05
    assert answer.steps.float().mean() < 8 and len(answer.steps.unique()) > 1
    with pytest.raises(ConfigError, match="one output per sample"):
        snn.calibrate_stop(x[:40])


def test_an_answer_is_told_in_one_line(snn: SpikingNetwork, images: Tensor) -> None:
    snn.calibrate_stop(images)
    answer = snn.until(images[:5], agreement=0.5)
    assert repr(answer).startswith("Answer(5 samples, mean steps ")
    assert answer.steps.dtype == torch.long and answer.score.shape == (5,)
    assert (answer.score[answer.steps == snn.steps] == torch.inf).all()


def test_what_is_missing_is_one_error(images: Tensor) -> None:
    torch.manual_seed(0)
    snn = transpike.convert(Segments().eval(), images, scheme=CSS(steps=4))
    with pytest.raises(ConfigError, match=r"needs a stop rule: snn.calibrate_stop\(images\), on 999 images"):
        snn.until(images)
    with pytest.raises(ConfigError, match="Give only one of them"):
        snn.calibrate_stop(images, error=0.1, changed=lambda a, b: a)
    with pytest.raises(ConversionError, match=r"expects images \[N, 3, 16, 16\]"):
        snn.stream(images[:, :1])
    snn.calibrate_stop(images)
    with pytest.raises(ConfigError, match="needs at least 199 calibration images; this rule has 64"):
        snn.until(images, agreement=0.995)
    with pytest.raises(ConfigError, match=r"agreement=1"):
        snn.until(images, agreement=1)


@pytest.mark.parametrize(
    ("scheme", "reason"), [(TTFS(steps=4), "compute all steps"), (TSC(steps=4), "no constant ratio")]
)
def test_a_scheme_that_does_not_stream_says_so(scheme: Scheme, reason: str, images: Tensor) -> None:
    snn = transpike.convert(Segments().eval(), images, scheme=scheme)
    for begin in (snn.stream, snn.calibrate_stop):
        with pytest.raises(ConversionError, match=f"does not stream: .*{reason}"):
            begin(images)


@pytest.mark.parametrize("chunk", [None, 16, 20])
def test_samples_of_several_chunks_go_on_together_as_they_would_alone(
    chunk: int | None, snn: SpikingNetwork, images: Tensor
) -> None:
    """Those that never stop have the full run's outputs, to the bit; all others those of their step."""
    rule = StopRule(lambda said: said.outputs.mul(1e4).sin().mean(1), 2, 999, ((0.1, 999.0),))  # stops wherever
    said = torch.stack([moment.outputs for moment in snn.stream(images)])
    steps = rule.stops(said, left(snn), agreement=0.9)
    snn.chunk = chunk
    try:
        answer = snn.until(images, agreement=0.9, stop=rule)
    finally:
        snn.chunk = None
    assert torch.equal(answer.steps, steps) and len(steps.unique()) > 2
    assert torch.equal(answer.outputs, said[steps - 1, torch.arange(64)])


def test_what_has_ended_is_let_go(snn: SpikingNetwork, images: Tensor) -> None:
    pipeline = Pipeline(snn, images[:ROWS])
    pipeline.advance(snn.steps - 1)
    behind = {op.name for op in snn.graph.neurons if pipeline.done[op.name] == snn.steps + snn.timing.waits[op.name]}
    assert behind and not behind & pipeline.layers.keys() and len(pipeline.train) == 0
    pipeline.advance(snn.steps)
    assert not pipeline.layers and not pipeline.products and not pipeline.waiting


def test_no_images_have_no_answers(snn: SpikingNetwork, images: Tensor) -> None:
    snn.calibrate_stop(images)
    answer = snn.until(images[:0], agreement=0.9)
    snn.stop = None
    assert answer.outputs.shape[0] == len(answer.steps) == 0
