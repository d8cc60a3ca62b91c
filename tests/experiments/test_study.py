"""`transpike study`: a file, a queue of runs that goes on where it stopped, a table of differences paired by seed."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from transpike.cli import main
from transpike.errors import TranspikeError
from transpike.experiments import study_runs
from transpike.experiments.study_plan import read_plan
from transpike.experiments.study_table import interval, seeds_needed
from transpike.report.study import describe_study, write_arms
from transpike.results import Arm, Findings, MeanAt, Outcome, read_result
from transpike.train.hopeless import StopHopeless

FILE = """
title: KD against labels alone
options:
  teacher: $teacher
  student: resnet20
  network: {width: 4}
  epochs: 2
  loading: {train_images: 160, test_images: 60}
  machine: {accelerator: cpu}
before:
  teacher:
    network: {width: 4}
    epochs: 1
    loading: {train_images: 160, test_images: 60}
    machine: {accelerator: cpu}
arms:
  labels: {verb: train}
  silent: {method: kd, settings: {alpha: 0.0}}
  kd: {method: kd, cache: 8}
baseline: labels
seeds: 2
"""


def written(folder: Path, text: str = FILE) -> Path:
    path = folder / "study.yaml"
    path.write_text(text)
    return path


def findings(folder: Path) -> Findings:
    result = read_result(folder)
    assert isinstance(result, Findings)
    return result


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("study")
    assert main(["study", str(written(place)), "--out", str(place / "out")]) == 0
    return place


def test_a_table_a_page_and_a_folder_for_each_run(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ran / "out"
    result = findings(out)
    labels, off, kd = result.arms
    assert (labels.label, kd.label, result.state("finished")) == ("labels", "kd", 6)
    own = [json.loads((out / run.folder / "results.json").read_text()) for run in kd.runs]
    base = [json.loads((out / run.folder / "results.json").read_text()) for run in labels.runs]
    assert [run.seed for run in kd.runs] == [0, 1] and [one["distillation"]["method"] for one in own] == ["kd"] * 2
    assert "distillation" not in base[0]
    pairs = [one["accuracy"] - other["accuracy"] for one, other in zip(own, base, strict=True)]
    assert kd.difference == pytest.approx(np.mean(pairs)) and kd.pairs == 2 and labels.difference is None
    assert kd.mean == pytest.approx(np.mean([one["accuracy"] for one in own]))
    assert kd.curves[1].loss == pytest.approx(np.mean([one["epochs"][1]["loss"] for one in own]))
    page = (out / "report.html").read_text()
    assert "KD against labels alone: 6 of 6 runs finished." in page and page.count("<svg") >= 5
    with (out / "arms.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["arm"] for row in rows] == ["labels", "silent", "kd"] and float(rows[2]["mean"]) == pytest.approx(
        kd.mean
    )
    # A pair shares initial weights, batches and augmentation: without its term, a method is what labels alone are.
    assert (off.difference, off.curves, off.runs[1].accuracy) == (0, labels.curves, labels.runs[1].accuracy)
    assert main(["report", str(out), "--out", str(ran / "page.html")]) == 0


def an_arm(label: str, accuracies: list[float], base: list[float]) -> Arm:
    pairs = [one - other for one, other in zip(accuracies, base, strict=True)]
    low, high = interval(pairs) if any(pairs) else (None, None)
    runs = tuple(Outcome(seed=seed, state="finished", folder="x", accuracy=one) for seed, one in enumerate(accuracies))
    return Arm(label=label, runs=runs, mean=float(np.mean(accuracies)), low=low, high=high,
               difference=float(np.mean(pairs)) if any(pairs) else None)  # fmt: skip


def test_the_page_names_the_arms_that_differ() -> None:
    base = [0.40, 0.41, 0.42]
    values = {"kd": base, "better": [0.45, 0.462, 0.47], "worse": [0.3, 0.31, 0.33], "alike": [0.41, 0.40, 0.43]}
    arms = [an_arm(label, own, base) for label, own in values.items()]
    (group,) = describe_study(Findings(title="t", measure="test", baseline="kd", arms=tuple(arms)), "k").groups
    assert group.note.startswith("Above kd: better. Below kd: worse. Accuracy on test images")
    (first,) = group.plots  # there are no epochs to draw
    assert "better: +5.07; worse: -9.67; alike: +0.33." in str(first.svg)
    (alone,) = describe_study(Findings(title="t", measure="test", baseline="kd", arms=(arms[0], arms[3])), "k").groups
    assert alone.note.startswith("These runs show no difference from kd")
    (none,) = describe_study(Findings(title="t", measure="test", baseline="kd", arms=(arms[0],)), "k").groups
    assert none.note.startswith("Accuracy") and not none.plots


def test_accuracy_by_t_is_a_table_and_a_file(tmp_path: Path) -> None:
    base = [0.40, 0.41, 0.42]
    slow, kd = (replace(an_arm(label, base, base), by_steps=at) for label, at in (
        ("kd", (MeanAt(steps=1, accuracy=0.3), MeanAt(steps=2, accuracy=0.41))),
        ("twd", (MeanAt(steps=2, accuracy=0.405), MeanAt(steps=4, accuracy=0.5))),
    ))  # fmt: skip
    result = Findings(title="t", measure="test", baseline="kd", arms=(slow, kd, an_arm("artificial", base, base)))
    _, table = describe_study(result, "k").groups
    assert (table.heading, table.columns) == ("Accuracy by T", ("", "T = 1", "T = 2", "T = 4"))
    assert table.rows == [("kd", "30.00", "41.00", "–"), ("twd", "–", "40.50", "50.00")]
    write_arms(result, tmp_path)
    lines = (tmp_path / "steps.csv").read_text().splitlines()
    assert lines[0] == "setting,arm,steps,accuracy" and lines[-1] == ",twd,4,0.5" and len(lines) == 5


def test_it_goes_on_where_it_stopped(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ran / "out"
    before = findings(out)
    broken = out / before.arms[2].runs[1].folder
    for name in ("results.json", "weights.safetensors"):
        (broken / name).unlink()
    times = {path: path.stat().st_mtime_ns for path in out.glob("*/results.json")}
    capsys.readouterr()
    assert main(["study", str(ran / "study.yaml"), "--out", str(out)]) == 0
    assert findings(out).arms[2].runs[1].accuracy == before.arms[2].runs[1].accuracy
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert capsys.readouterr().out.count("to go") == 1


def test_an_interrupted_study_tells_how_it_goes_on(
    ran: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*given: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(study_runs, "_begin", interrupted)
    more = FILE.replace("seeds: 2", "seeds: 3")
    path = ran / "more.yaml"
    path.write_text(more)
    assert main(["study", str(path), "--out", str(ran / "out")]) == 130
    assert f"Finished runs lie in {ran / 'out'}. To continue: the same command." in capsys.readouterr().err
    assert findings(ran / "out").state("waiting") == 3
    # Another process could go on: the folder is free.
    monkeypatch.undo()
    assert main(["study", str(ran / "study.yaml"), "--out", str(ran / "out")]) == 0


def test_new_arms_run_and_old_runs_stay(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ran / "out"
    mine = out / findings(out).arms[2].runs[0].folder
    more = FILE.replace("seeds: 2", "seeds: [0]").replace("baseline", f"  own: {{runs: ['{mine}']}}\nbaseline")
    assert main(["study", str(written(ran, more)), "--out", str(out)]) == 0
    assert "to go" not in capsys.readouterr().out
    _, _, kd, own = findings(out).arms
    assert own.mean == kd.mean and own.runs[0].seed == 0 and own.difference == kd.difference


@pytest.mark.parametrize(
    "change, wrong",
    [
        (lambda text: text.replace("arms:", "arm:"), "Did you mean arms?"),
        (
            lambda text: text.replace("epochs: 2", "epoch: 2"),
            "labels (`transpike train`): option epoch is unknown. Did",
        ),
        (
            lambda text: text.replace("test_images: 60}\n  machine", "tst_images: 60}\n  machine", 1),
            "loading.tst_images",
        ),
        (lambda text: text.replace("method: kd,", "method: kdd,"), "Did you mean kd"),
        (lambda text: text.replace("$teacher", "$techer"), "$techer is not in this file. Did you mean teacher?"),
        (lambda text: text.replace("baseline: labels", "baseline: label"), "Did you mean 'labels'?"),
        (lambda text: text.replace("seeds: 2", "seeds: [1, 1]"), "seeds=[1, 1]"),
        (lambda text: text.replace("  silent:", "  off:"), "arms has the name False: YAML does not read it as text"),
        (lambda text: text + "stop: {after: 1}\n", "stop lacks behind"),
        (lambda text: text + "over: {steps: 4}\n", "over.steps=4: expected a list"),
    ],
)
def test_wrong_files(
    change: Callable[[str], str], wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", str(written(tmp_path, change(FILE))), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert wrong in told and "study.yaml" in told
    assert not (tmp_path / "out").exists()


def test_settings_multiply_and_names_fill_in(tmp_path: Path) -> None:
    text = FILE.replace("    epochs: 1\n", "    epochs: 1\n    seed: $seed\n    data: $data\n", 1)
    text += "over:\n  long: {short: {epochs: 1}, far: {epochs: 3, network: {width: 8}}}\n  data: [digits]\n"
    plan = read_plan(written(tmp_path, text))
    assert [(cell.setting, cell.seed, cell.arm) for cell in plan.cells[:4]] == [
        ("short, data digits", 0, "labels"), ("short, data digits", 0, "silent"), ("short, data digits", 0, "kd"),
        ("short, data digits", 1, "labels"),
    ]  # fmt: skip
    assert len(plan.cells) == 12 and len({cell.job.name for cell in plan.cells if cell.job}) == 12
    kd = plan.cells[8].job
    assert kd is not None and kd.options["epochs"] == 3 and kd.options["network"] == {"width": 8}
    assert [job.name.rsplit("-", 1)[0] for job in plan.before] == ["teacher-seed0", "teacher-seed1"]
    assert all(job.options["data"] == "digits" for job in plan.before)


def test_an_arm_of_another_label_is_the_same_run(tmp_path: Path) -> None:
    names = [
        [cell.job.name for cell in read_plan(written(tmp_path, text)).cells if cell.job]
        for text in (FILE, FILE.replace("  kd: {", "  logits KD: {"))
    ]
    assert names[0] == names[1] and len(set(names[0])) == 6


def test_where_the_data_lies_does_not_name_a_run(tmp_path: Path) -> None:
    names = [
        {cell.job.name for cell in read_plan(written(tmp_path), root=root).cells if cell.job}
        for root in (None, Path("elsewhere"))
    ]
    assert names[0] == names[1]


@pytest.mark.parametrize("differences", [[0.1, 0.3, 0.2], [1.0, -2.0, 0.5, 3.0]])
def test_the_interval_is_that_of_a_paired_t_test(differences: list[float]) -> None:
    expected = ttest_1samp(differences, 0).confidence_interval(0.95)
    assert interval(differences) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("deviation", [0.003, 0.01, 0.0147])
def test_as_many_seeds_as_show_a_point(deviation: float) -> None:
    count = seeds_needed(deviation)

    def half(n: int) -> float:
        values = np.linspace(-1, 1, n)
        low, high = interval(list(values * deviation / values.std(ddof=1)))
        return (high - low) / 2

    assert half(count) <= 0.01 < (half(count - 1) if count > 2 else np.inf)


def test_a_hopeless_run_is_stopped_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = FILE.replace("seeds: 2", "seeds: 1").replace("  silent: {method: kd, settings: {alpha: 0.0}}\n", "")
    text = text.replace("method: kd, cache: 8", "method: kd, epochs: 3")
    text = text.replace("epochs: 2", "epochs: 3") + "stop: {after: 1, behind: 5}\n"
    began = StopHopeless.__init__

    def above(self: Any, rival: list[float], **rule: Any) -> None:
        began(self, [2.0] * len(rival), **rule)

    monkeypatch.setattr(StopHopeless, "__init__", above)
    path = written(tmp_path, text)
    assert main(["study", str(path), "--out", str(tmp_path / "out")]) == 0
    kd = findings(tmp_path / "out").arms[1]
    assert kd.runs[0].state == "stopped" and kd.mean is None and "after 1 epochs" in kd.runs[0].note
    assert "Runs without a result" in (tmp_path / "out" / "report.html").read_text()
    path.write_text(text.replace("stop:", "#"))
    assert main(["study", str(path), "--out", str(tmp_path / "out")]) == 0  # goes on, for nothing stops it now
    again = findings(tmp_path / "out").arms[1]
    assert again.runs[0].state == "finished" and len(again.curves) == 3


def test_a_run_that_fails_leaves_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = FILE.replace("seeds: 2", "seeds: 1").replace("epochs: 2", "epochs: 1")
    text = text.replace("method: kd, cache: 8", "method: kd, taps: {nowhere: layers.2}, settings: {alpha: 1.0}")
    text = text.replace("method: kd,", "method: lasnn,")
    assert main(["study", str(written(tmp_path, text)), "--out", str(tmp_path / "out")]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "1 of the runs failed" in told and "nowhere" in told
    labels, _, kd = findings(tmp_path / "out").arms
    assert (labels.runs[0].state, kd.runs[0].state) == ("finished", "failed")


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "studies").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_study_is_one(path: Path) -> None:
    plan = read_plan(path)
    assert f"transpike study studies/{path.name}" in path.read_text()
    assert path.name in (path.parents[1] / "docs" / "studies.md").read_text()
    assert {cell.arm for cell in plan.cells} >= {plan.baseline} and plan.cells
    names = [cell.job.name for cell in plan.cells if cell.job]
    assert len(set(names)) == len(names)


def test_damaged_files_end_in_one_clear_error_or_in_a_plan(tmp_path: Path) -> None:
    draw = random.Random(0)
    whole = FILE + "over: {steps: [2], long: {far: {epochs: 3}}}\nstop: {after: 1, behind: 5}\n"
    pieces = [
        "null",
        "[]",
        "{}",
        "-1",
        "1e400",
        "$seed",
        ".nan",
        "true",
        "[[1]]",
        "{a: {b: 1}}",
        '"',
        "a: b: c",
        "\x00",
    ]
    told = 0
    for _ in range(60):
        text = whole
        for _ in range(draw.randint(1, 2)):
            lines = text.splitlines()
            place = draw.randrange(len(lines))
            name, colon, _ = lines[place].partition(":")
            lines[place] = draw.choice(
                ["", f"{name}{colon} {draw.choice(pieces)}", lines[place][2:], name, f"x{lines[place]}"]
            )
            text = "\n".join(lines)
        try:
            read_plan(written(tmp_path, text))
        except TranspikeError as error:
            told += 1
            assert "study.yaml: " in str(error) and "\n" not in str(error) and len(str(error)) < 700, str(error)
    assert 20 < told < 60
