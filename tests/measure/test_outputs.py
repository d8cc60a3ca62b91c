"""Outputs that are no classes: measures of the task, errors of each output, goals by them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import transpike
from transpike.conversion import SpikingNetwork
from transpike.data import Loading, load_images
from transpike.errors import ConfigError, DataError, GoalError
from transpike.measure.conversion import compare
from transpike.measure.goals import Goal
from transpike.measure.outputs import find_metric
from transpike.measure.sweep import Sweep, sweep
from transpike.metrics.tasks import mean_iou


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.map, self.value = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 3, 1), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.a(x).relu()
        return {"map": (9 * self.map(y)).softmax(1), "value": self.value(y.mean((2, 3)))}


X = torch.rand(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(0, 3, (32, 8, 8), generator=torch.Generator().manual_seed(1))


def made() -> tuple[Heads, SpikingNetwork]:
    torch.manual_seed(0)
    net = Heads().eval()
    return net, transpike.convert(net, X, scheme=transpike.CSS(steps=4, silent=1))


def relative(got: Tensor, want: Tensor) -> float:
    return float((got - want).norm() / (want - want.mean(0)).norm())


def test_each_output_is_measured_and_what_a_softmax_hides() -> None:
    net, snn = made()
    found = compare(snn, X.split(10), metric="iou")
    got, want = snn(X), net(X)
    errors = found.row.output_errors
    assert errors["map"] == pytest.approx(relative(got["map"], want["map"]), rel=1e-3)
    assert errors["value"] == pytest.approx(relative(got["value"], want["value"]), rel=1e-3)
    with torch.no_grad():
        before = 9 * net.map(net.a(X).relu())
    (name,) = set(errors) - {"map", "value"}
    assert "before softmax" in name
    decoded = snn.readings(X)[1]["map"]
    assert errors[name] == pytest.approx(relative(decoded, before), rel=1e-3)
    assert found.row.measures["iou"] == pytest.approx(float(mean_iou(got, want).mean()))
    assert 0.5 < found.row.measures["iou"] <= 1 and not found.row.label_measures


def test_labels_may_be_what_the_measure_takes() -> None:
    net, snn = made()
    found = compare(snn, [(X[:20], LABELS[:20]), (X[20:], LABELS[20:])], metric="iou")
    assert found.row.label_measures["iou"] == pytest.approx(float(mean_iou(snn(X), LABELS).mean()))
    assert found.ann.measures["iou"] == pytest.approx(float(mean_iou(net(X), LABELS).mean()))
    assert found.row.accuracy is None
    with pytest.raises(DataError, match="labels must be class indices"):
        compare(snn, [(X, LABELS)])


def test_a_measure_of_ones_own_sees_outputs_as_the_network_gives_them() -> None:
    net, snn = made()

    def apart(outputs: Any, targets: Any) -> Tensor:
        return (outputs["value"] - targets["value"]).abs().amax(1)

    found = compare(snn, X.split(10), metric={"apart": apart, "iou": "iou"})
    assert found.row.measures["apart"] == pytest.approx(float(apart(snn(X), net(X)).mean()), rel=1e-3)
    assert list(found.row.measures) == ["apart", "iou"]


@pytest.mark.parametrize(
    ("metric", "words"),
    [("iu", "Did you mean iou"), ("no_such_module:score", "cannot be imported"), (3, "'3' is not a known metric"),
     (lambda a, b: a + 1, "does not take these outputs"), (lambda a, b: torch.zeros(3), "not \\[3\\] for 32 images")],
)  # fmt: skip
def test_what_is_no_measure_is_one_line(metric: Any, words: str) -> None:
    with pytest.raises((ConfigError, DataError), match=words) as caught:
        compare(made()[1], [X], metric=metric)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("goal", [{"iou": 99}, {"metric": mean_iou, "least": 99}, lambda a, b: mean_iou(a, b) > 0.9])
def test_a_search_ends_at_a_measure(goal: Any) -> None:
    net, _ = made()
    snn = transpike.convert(net, X, scheme="auto", goal=goal)
    chosen = next(one for one in snn.search if one.chosen)
    assert chosen.measure is not None and chosen.measure >= (0.99 if isinstance(goal, dict) else 1)
    assert any(one.measure is not None and not one.met for one in snn.search)


def test_a_margin_holds_a_measure_with_the_deviations_enlarged() -> None:
    net, _ = made()
    tried = {}

    def near(outputs: Any, targets: Any) -> Tensor:
        return ((outputs["value"] - targets["value"]).abs().amax(1) < 0.04).float()

    for goal in ({"metric": near}, {"metric": near, "margin": 8}):
        snn = transpike.convert(net, X, scheme="auto", goal=goal, limits={"payload_bits": 1})
        tried[len(goal)] = float((snn(X)["value"] - net(X)["value"]).abs().max())
    assert tried[2] < 0.04 / 8 < tried[1]
    assert str(Goal.of({"iou": 90, "margin": 2})) == "at least 90 % iou with 2 times the deviation"


def test_a_goal_out_of_reach_tells_the_measure() -> None:
    net, _ = made()
    with pytest.raises(GoalError, match="gives at least 100 % never"):

        def never(outputs: Any, targets: Any) -> float:
            return 0.5

        transpike.convert(net, X, scheme="auto", goal=never, limits={"payload_bits": 1})


@pytest.mark.parametrize("metric", ["boxes", "iou"])
def test_a_measure_that_does_not_fit_is_said_before_networks_are_made(
    metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transpike.conversion.Prepared.build", pytest.fail)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10)).eval()
    with pytest.raises(DataError, match=f"{metric}: expected "):
        transpike.convert(net, X, scheme="auto", goal={metric: 90})
    sets = load_images("digits", loading=Loading(test_images=20))
    task = Sweep("net", net, sets, [transpike.CSS()], calibration=20, metric=find_metric(metric))
    with pytest.raises(DataError, match=f"{metric}: expected "):
        next(sweep(task, None))


@pytest.mark.parametrize(
    "goal", [{"ious": 3}, {"metric": 3}, {"iou": 300}, {"metric": mean_iou, "most": 3}, {"iou": 9, "margin": 0}]
)
def test_what_is_no_goal_is_refused(goal: Any) -> None:
    with pytest.raises(ConfigError):
        transpike.convert(made()[0], X, scheme="auto", goal=goal)


def test_a_measure_of_a_file_in_this_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "measures_of_mine.py").write_text(
        "def near(a, b):\n    return 1 - (a['map'] - b['map']).abs().mean()\n"
    )
    (tmp_path / "measures_not_python.py").write_text("def near(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    net, snn = made()
    found = compare(snn, X.split(10), metric="measures_of_mine:near")
    want = 1 - float((snn(X)["map"] - net(X)["map"]).abs().mean())
    assert found.row.measures["measures_of_mine:near"] == pytest.approx(want, rel=1e-3)
    with pytest.raises(ConfigError, match="'measures_not_python:near' cannot be imported: SyntaxError"):
        compare(made()[1], [X], metric="measures_not_python:near")
