"""A run's folder and the files in it."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.files.children import ended, fork

from transpike.errors import ConfigError, DataError
from transpike.models import model_names
from transpike.results import Evaluation, copy_results, located, read_result, read_run, resume_run, start_run

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
        assert (begun := read_run(first / "run")) and located(begun, names=model_names()) == there
    first.rename(moved)
    monkeypatch.chdir(moved)
    assert (begun := read_run("run")) and located(begun, names=model_names()) == options | {"root": "data"}


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
    for out, said in [
        (tmp_path, f"{tmp_path} is not an empty folder: name another one for this run's results."),
        (tmp_path / "file", "a file lies where a folder is needed. Name another place."),
        (tmp_path / "file" / "below", "a part of its path is a file, not a folder. Name another place."),
        (tmp_path / ("x" * 300), "its name is too long. Name a shorter one."),
    ]:
        with pytest.raises(ConfigError) as error:
            start_run("demo", {}, out=out)
        assert str(error.value).endswith(said)
    assert (tmp_path / "file").read_text() == "mine" and os.listdir(tmp_path) == ["file"]


def test_a_killed_run_without_results_can_be_repeated(tmp_path: Path) -> None:
    out = tmp_path / "run"

    def killed() -> None:
        start_run("evaluate", {"seed": 1}, out=out)
        (out / ".results.json.0123abcd.partial").write_text("{")
        os.kill(os.getpid(), signal.SIGKILL)

    assert ended(fork(killed)) == -signal.SIGKILL
    with start_run("evaluate", {"seed": 2}, out=out) as run:
        with pytest.raises(ConfigError, match="is not an empty folder"):
            start_run("evaluate", {"seed": 3}, out=out)
        run.write(TESTED)
    assert sorted(os.listdir(out)) == ["results.json", "run.json"]
    assert json.loads((out / "run.json").read_text())["options"] == {"seed": 2}
    with pytest.raises(ConfigError, match="is not an empty folder"):
        start_run("evaluate", {}, out=out)


def test_two_processes_cannot_go_on_with_one_run(tmp_path: Path) -> None:
    with start_run("convert", {}, out=tmp_path / "run") as run:
        run.write(TESTED)
        with pytest.raises(ConfigError, match="another process is at work there"), resume_run(run.folder):
            pass
    for _ in range(2):
        with resume_run(run.folder) as again:
            assert again.folder == run.folder
    with pytest.raises(ConfigError, match=r"cannot go on with .*none"), resume_run(tmp_path / "none"):
        pass


def test_a_run_whose_results_could_not_be_replaced_does_not_go_on(tmp_path: Path) -> None:
    with start_run("train", {}, out=tmp_path / "run") as run:
        (run.folder / "results.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"results\.json: already exists and is not results"), resume_run(run.folder):
        pass


def test_a_copy_replaces_copies_alone(tmp_path: Path) -> None:
    other = replace(TESTED, accuracy=0.25)
    copy = tmp_path / "new" / "copy.json"
    copy_results(TESTED, copy)
    copy_results(other, copy)
    assert json.loads(copy.read_text())["accuracy"] == 0.25
    with start_run("evaluate", {}, out=tmp_path / "run") as run:
        own = run.write(TESTED)
    copy_results(TESTED, own)  # what --json names may be the run's own file
    for path in (own, own.with_name("run.json")):
        before = path.read_bytes()
        with pytest.raises(ConfigError, match="already exists and is not a copy of results of transpike; name another"):
            copy_results(other, path)
        assert path.read_bytes() == before
    assert read_result(run.folder) == TESTED


def test_a_record_holds_what_json_can(tmp_path: Path) -> None:
    options = {"nan": math.nan, "tensor": torch.tensor([1.0, math.inf]), "numpy": np.float32(0.25), "loading": Row(4)}
    run = start_run("demo", options, out=tmp_path / "run")
    begun = read_run(run.folder)
    assert begun and begun.options == {"nan": None, "tensor": [1.0, None], "numpy": 0.25, "loading": {"steps": 4}}


def test_a_run_that_fails_before_it_has_anything_can_be_begun_again(tmp_path: Path) -> None:
    for place, name, stays in (
        ("new", "hparams.yaml", False),
        ("empty", "hparams.yaml", True),
        ("full", "last.ckpt", True),
    ):
        folder = tmp_path / place
        folder.mkdir() if place == "empty" else None
        with pytest.raises(ZeroDivisionError), start_run("train", {}, out=folder):
            (folder / name).write_text("x")
            raise ZeroDivisionError
        assert folder.exists() == stays
        if place != "full":
            start_run("train", {}, out=folder)
    assert sorted(path.name for path in (tmp_path / "full").iterdir()) == ["last.ckpt", "run.json"]
