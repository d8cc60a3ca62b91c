"""Where runs that may stop are cut into pieces: in the least time, and without any say in the answers."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
import torch
from tests.conversion.test_modern_network import Modern
from torch import Tensor

import transpike
from transpike.coding import CSS
from transpike.conversion import SpikingNetwork, anytime, cuts
from transpike.conversion.anytime import left
from transpike.conversion.stopping import StopRule

T = 6


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def snn(images: Tensor) -> SpikingNetwork:
    torch.manual_seed(0)
    return transpike.convert(Modern().eval(), images, scheme=CSS(steps=T, levels=(1, 2, 4, 8), silent=2))


def by_hand(snn: SpikingNetwork, going: dict[int, float], ends: tuple[int, ...]) -> float:
    """The expected work of an image in pieces that end so: each layer's steps, and what it costs it to go on."""
    work, come, total = cuts._work(snn), cuts._come(snn), 0.0
    for begin, end in pairwise((0, *ends)):
        steps = come[:, end] - (come[:, begin] if begin else 0)
        total += going.get(begin, 1.0) * float((work * (steps + cuts._STATE * (steps > 0))).sum())
    return total


@pytest.mark.parametrize("state", [0.1, 1.5, 6.0])
def test_no_other_pieces_take_less_work(snn: SpikingNetwork, state: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuts, "_STATE", state)
    possible, found = [(*some, T) for k in range(T - 1) for some in combinations(range(2, T), k)], set()
    for seed in range(40):
        counts = torch.randint(11, (T - 2,), generator=torch.Generator().manual_seed(seed)).tolist()
        seen = tuple((0.0,) * count + (2.0,) * (10 - count) for count in sorted(counts, reverse=True))
        going = {step: count / 10 for step, count in enumerate(sorted(counts, reverse=True), start=2)}
        ends = cuts.cuts(snn, StopRule("margin", 2, 10, (), seen), 1.0)
        assert by_hand(snn, going, ends) == pytest.approx(min(by_hand(snn, going, one) for one in possible))
        found.add(ends)
    assert len(found) > 3


def test_few_that_go_on_make_few_pieces(snn: SpikingNetwork) -> None:
    """All stop at step 3: so many are looked at there, and nobody is before."""
    rule = StopRule("margin", 2, 10, (), ((0.0,) * 10, *((2.0,) * 10,) * 3))
    assert cuts.cuts(snn, rule, 1.0)[0] == 3
    assert cuts.cuts(snn, rule, 3.0) == (T,)  # nobody ever stops
    assert cuts.cuts(snn, StopRule("margin", 2, 10, ()), 1.0) == (2, 3, 4, 5, 6)


@pytest.mark.parametrize("pieces", [(6,), (2, 6), (4, 5, 6), (2, 3, 4, 5, 6)])
def test_answers_do_not_depend_on_the_pieces(
    pieces: tuple[int, ...], snn: SpikingNetwork, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = StopRule(lambda said: said.outputs.mul(1e4).sin().mean(1), 2, 999, ((0.1, 999.0),))  # stops wherever
    said = torch.stack([moment.outputs for moment in snn.stream(images)])
    steps = rule.stops(said, left(snn), agreement=0.9)
    monkeypatch.setattr(anytime, "cuts", lambda *_: pieces)
    answer = snn.until(images, agreement=0.9, stop=rule)
    assert torch.equal(answer.steps, steps) and len(steps.unique()) > 2
    assert torch.equal(answer.outputs, said[steps - 1, torch.arange(64)])
    scores = rule.scores(said, left(snn))[steps - 1, torch.arange(64)]
    assert torch.equal(answer.score, scores)


def test_answers_do_not_depend_on_the_threads(
    snn: SpikingNetwork, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = StopRule(lambda said: said.outputs.mul(1e4).sin().mean(1), 2, 999, ((0.1, 999.0),))  # stops wherever
    threads, used = torch.get_num_threads(), list[int]()
    monkeypatch.setattr(anytime, "_few", lambda *_: 16)
    beside = anytime.side_by_side
    monkeypatch.setattr(anytime, "side_by_side", lambda parts, run: [used.append(len(parts)), *beside(parts, run)][1:])
    try:
        torch.set_num_threads(1)
        one, said = snn.until(images, agreement=0.9, stop=rule), anytime.trajectories(snn, images)
        torch.set_num_threads(3)
        three = snn.until(images, agreement=0.9, stop=rule)
        assert torch.equal(anytime.trajectories(snn, images), said) and used == [3, 4]
    finally:
        torch.set_num_threads(threads)
    assert len(one.steps.unique()) > 1
    for name in ("outputs", "steps", "latency", "score"):
        assert torch.equal(getattr(one, name), getattr(three, name)), name


def test_a_rule_from_images_has_seen_their_scores(snn: SpikingNetwork, images: Tensor) -> None:
    rule = snn.calibrate_stop(images)
    scores = rule.scores(anytime.trajectories(snn, images), left(snn))
    limit = float(scores[2].median())
    shares = [float((row <= limit).float().mean()) for row in scores[1:-1]]
    assert rule.unsure(limit) == pytest.approx(shares, abs=0.05)
    snn.stop = None
