"""A run's folder and the files in it."""

from __future__ import annotations

import json
import math
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from transpike.errors import ConfigError, DataError
from transpike.experiments.runs import located, start_run, write_json


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
        assert located(json.loads((first / "run" / "run.json").read_text())) == there
    first.rename(moved)
    monkeypatch.chdir(moved)
    assert located(json.loads(Path("run/run.json").read_text())) == options | {"root": "data"}


def test_a_failed_run_leaves_nothing_unless_it_has_results(tmp_path: Path) -> None:
    with pytest.raises(DataError), start_run("demo", {}, out=tmp_path / "a"):
        raise DataError("no")
    assert not (tmp_path / "a").exists()
    with pytest.raises(DataError), start_run("demo", {}, out=tmp_path / "b") as run:
        run.write("result.json", {"accuracy": 0.5})
        raise DataError("no")
    assert json.loads((tmp_path / "b" / "result.json").read_text()) == {"accuracy": 0.5}


def test_a_taken_or_impossible_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path, tmp_path / "file"):
        with pytest.raises(ConfigError, match="not an empty folder"):
            start_run("demo", {}, out=out)
    with pytest.raises(ConfigError, match="cannot make"):
        start_run("demo", {}, out=tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == "mine"


def test_json_has_no_infinity_and_knows_arrays(tmp_path: Path) -> None:
    @dataclass
    class Row:
        steps: int
        loss: float

    data = {
        "nan": math.nan,
        "rows": [Row(4, math.inf), Row(8, 0.5)],
        "tensor": torch.tensor([1.0, math.nan]),
        "numpy": np.float32(0.25),
        8: ("θ", None, True),
    }
    path = write_json(tmp_path / "new" / "result.json", data)
    assert json.loads(path.read_text()) == {
        "nan": None,
        "rows": [{"steps": 4, "loss": None}, {"steps": 8, "loss": 0.5}],
        "tensor": [1.0, None],
        "numpy": 0.25,
        "8": ["θ", None, True],
    }


def test_json_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_json(tmp_path / "result.json", {"first": 1})
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_json(path, {"second": 2})
    assert json.loads(path.read_text()) == {"first": 1}
    assert list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) & 0o400


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        write_json(tmp_path / "file" / "result.json", {})
