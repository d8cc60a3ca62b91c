"""Runs that are recorded on a GPU and replayed: with a recorder of the CPU in CUDA's place."""

from __future__ import annotations

import copy
import logging
import pickle

import pytest
import torch
from torch import Tensor, nn

from transpike.coding import CSS
from transpike.conversion import SpikingNetwork, captured, prepare
from transpike.conversion.captured import Run, Values


@pytest.fixture
def snn(monkeypatch: pytest.MonkeyPatch) -> SpikingNetwork:
    monkeypatch.setattr(captured, "is_gpu", lambda device: True)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 4))
    return prepare(model.eval(), torch.randn(24, 3, 8, 8)).convert(CSS(steps=4, silent=1))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes that were recorded. As in a CUDA graph, a replay reads and writes the tensors of the recording."""
    shapes = list[tuple[int, ...]]()

    def recorded(run: Run, x: Tensor) -> Run:
        shapes.append(tuple(x.shape))
        given = x.clone()
        found = run(given)

        def replay(x: Tensor) -> Values:
            given.copy_(x)
            for name, value in run(given).items():
                found[name].copy_(value)
            return {name: value.clone() for name, value in found.items()}

        return replay

    monkeypatch.setattr(captured, "recorded", recorded)
    return shapes


def test_a_shape_is_recorded_at_its_second_run_and_replayed(
    snn: SpikingNetwork, recorder: list[tuple[int, ...]]
) -> None:
    batches = [torch.randn(n, 3, 8, 8) for n in (10, 10, 10, 6, 10, 6, 6)]
    snn.capture = False
    wanted = [snn(x) for x in batches]
    assert not recorder
    snn.capture, found, counts = None, [], []
    for x in batches:
        found.append(snn(x))
        counts.append(len(recorder))
    assert all(map(torch.equal, found, wanted))  # those of earlier calls too, which no replay may write over
    assert counts == [0, 1, 1, 1, 1, 2, 2] and recorder == [(10, 3, 8, 8), (6, 3, 8, 8)]
    seen = list[str]()
    snn.observe(batches[0], lambda op, fired: seen.append(op.name))
    assert seen  # who watches sees a run of his own


def test_other_weights_and_another_precision_are_other_runs(
    snn: SpikingNetwork, recorder: list[tuple[int, ...]]
) -> None:
    x = torch.randn(10, 3, 8, 8)
    for _ in range(2):
        snn(x)
    half = copy.deepcopy(snn).to(torch.bfloat16)
    assert torch.equal(half(x), half(x)) and len(recorder) == 2
    snn.to(torch.bfloat16)
    assert torch.equal(snn(x), half(x)) and len(recorder) == 2
    torch.set_float32_matmul_precision("high")
    try:
        snn(x)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert len(recorder) == 2
    assert pickle.loads(pickle.dumps(snn.captures))._runs == {}


def test_what_is_large_is_recorded_only_on_request(
    snn: SpikingNetwork, recorder: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captured, "SMALL", 10 * captured.held(snn))
    for count in (11, 10):
        for _ in range(3):
            snn(torch.randn(count, 3, 8, 8))
    assert recorder == [(10, 3, 8, 8)]
    snn.captures, snn.capture = captured.Captures(), True
    for _ in range(2):
        snn(torch.randn(11, 3, 8, 8))
    assert recorder[1:] == [(11, 3, 8, 8)]


def test_a_run_that_cannot_be_recorded_goes_on_as_it_is(
    snn: SpikingNetwork, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(run: Run, x: Tensor) -> Run:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(captured, "recorded", failing)
    x = torch.randn(10, 3, 8, 8)
    with caplog.at_level(logging.WARNING):
        found = [snn(x) for _ in range(4)]
    assert all(torch.equal(each, found[0]) for each in found)
    (note,) = caplog.records
    assert "kernels are launched one by one" in note.getMessage()
