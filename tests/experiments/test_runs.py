"""A run's folder and the files in it."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from transpike.errors import ConfigError, DataError
from transpike.experiments.runs import copy_results, located, start_run
from transpike.results import Evaluation, read_result, read_run

TESTED = Evaluation(model="mlp", dataset="digits", images=360, accuracy=0.5, loss=0.75)


@dataclass(frozen=True)
class Row:
    steps: int


def test_a_run_records_what_ran_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/transpike", "convert", "--steps", "4,8"])
    runs = [start_run("convert", {"seed": 7, "steps": [4, 8], "out": Path("x")}) for _ in range(3)]
    assert len({run.folder for run in runs}) == 3 and all(run.folder.parent == Path("runs") for run in runs)
    record = json.loads((runs[0].folder / "run.json").read_text())
    assert record["command"] == ["transpike", "convert", "--steps", "4,8"]
    assert record["options"] == {"seed": 7, "steps": [4, 8], "out": "x"} and record["seed"] == 7
    assert record["directory"] == str(tmp_path)
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]
    assert record["hardware"]["cores"] >= 1


def test_files_of_a_run_are_found_from_elsewhere_and_after_a_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, moved = tmp_path / "first", tmp_path / "moved"
    for name in ("teacher", "data", "digits", "mlp"):
        (first / name).mkdir(parents=True)
    monkeypatch.chdir(first)
    options = {"root": Path("data"), "teacher": "teacher", "student": ["teacher", "mlp"], "data": "digits", "ann": None}
    start_run("analyze", options, out=Path("run"))
    teacher = str(first / "teacher")
    there = options | {"root": str(first / "data"), "teacher": teacher, "student": [teacher, "mlp"]}
    for place in (first, tmp_path):
        monkeypatch.chdir(place)
        assert (begun := read_run(first / "run")) and located(begun) == there
    first.rename(moved)
    monkeypatch.chdir(moved)
    assert (begun := read_run("run")) and located(begun) == options | {"root": "data"}


def test_a_failed_run_leaves_nothing_unless_it_has_results(tmp_path: Path) -> None:
    with pytest.raises(DataError), start_run("demo", {}, out=tmp_path / "a"):
        raise DataError("no")
    assert not (tmp_path / "a").exists()
    with pytest.raises(DataError), start_run("demo", {}, out=tmp_path / "b") as run:
        run.write(TESTED)
        raise DataError("no")
    assert read_result(tmp_path / "b") == TESTED


def test_a_taken_or_impossible_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="not an empty folder"):
        start_run("demo", {}, out=tmp_path)
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match=r"cannot make the folder .*\. Name another place"):
            start_run("demo", {}, out=out)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_record_holds_what_json_can(tmp_path: Path) -> None:
    options = {"nan": math.nan, "tensor": torch.tensor([1.0, math.inf]), "numpy": np.float32(0.25), "loading": Row(4)}
    run = start_run("demo", options, out=tmp_path / "run")
    begun = read_run(run.folder)
    assert begun and begun.options == {"nan": None, "tensor": [1.0, None], "numpy": 0.25, "loading": {"steps": 4}}


def test_results_are_copied_whole_and_never_over_another_runs(tmp_path: Path) -> None:
    run = start_run("demo", {}, out=tmp_path / "run")
    path, copy = run.write(TESTED), tmp_path / "copy.json"
    copy_results(TESTED, copy)
    copy_results(replace(TESTED, accuracy=0.25), copy)
    assert json.loads(copy.read_text())["accuracy"] == 0.25
    copy_results(TESTED, path)  # the run's own file
    with pytest.raises(ConfigError, match="already exists and is not a copy of results of transpike"):
        copy_results(replace(TESTED, accuracy=0.25), path)
    assert read_result(run.folder) == TESTED
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        copy_results(TESTED, tmp_path / "file" / "copy.json")
