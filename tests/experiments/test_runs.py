"""A run's folder and the files in it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.files.children import ended, fork

from transpike.errors import ConfigError, DataError
from transpike.experiments.runs import _commit, located, resume_run, start_run, write_json


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
        run.write("results.json", {"kind": "evaluation", "version": 1})
    assert sorted(os.listdir(out)) == ["results.json", "run.json"]
    assert json.loads((out / "run.json").read_text())["options"] == {"seed": 2}
    with pytest.raises(ConfigError, match="is not an empty folder"):
        start_run("evaluate", {}, out=out)


def test_two_processes_cannot_go_on_with_one_run(tmp_path: Path) -> None:
    with start_run("convert", {}, out=tmp_path / "run") as run:
        run.write("results.json", {"kind": "conversion", "version": 1})
        with pytest.raises(ConfigError, match="another process is at work there"), resume_run(run.folder):
            pass
    for _ in range(2):
        with resume_run(run.folder) as again:
            assert again.folder == run.folder
    with pytest.raises(ConfigError, match=r"cannot go on with .*none"), resume_run(tmp_path / "none"):
        pass


def test_a_copy_replaces_copies_alone(tmp_path: Path) -> None:
    first, second = ({"kind": "evaluation", "version": 1, "images": images} for images in (1, 2))
    copy = write_json(tmp_path / "new" / "copy.json", first)
    write_json(copy, second)
    assert json.loads(copy.read_text()) == second
    with start_run("evaluate", {}, out=tmp_path / "run") as run:
        own = run.write("results.json", first)
    write_json(own, first)  # what --json names may be the run's own file
    for path in (own, own.with_name("run.json")):
        before = path.read_bytes()
        with pytest.raises(ConfigError, match="already exists and is not a copy of results of transpike; name another"):
            write_json(path, second)
        assert path.read_bytes() == before


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@localhost"]
    return subprocess.run(["git", "-C", folder, *who, *arguments], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("digest", ["sha1", "sha256"])
def test_the_commit_is_that_of_the_packages_own_files(digest: str, tmp_path: Path) -> None:
    package = tmp_path / "src" / "package"
    (package / "inner").mkdir(parents=True)
    for name in ("a.py", "inner/ä.py", "page.html"):
        (package / name).write_text(f"{name}\n")
    assert _commit(package) is None
    git(tmp_path, "init", "--quiet", f"--object-format={digest}")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", "x")
    assert _commit(package) is None
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "y")
    commit = git(tmp_path, "rev-parse", "HEAD").strip()
    (tmp_path / "beside.py").write_text("not the package's")
    assert _commit(package) == commit
    for name in ("page.html", "new.py"):
        before = (package / name).read_text() if (package / name).exists() else None
        (package / name).write_text("changed")
        assert _commit(package) == f"{commit}+"
        (package / name).unlink() if before is None else (package / name).write_text(before)
    (package / "inner" / "ä.py").unlink()
    assert _commit(package) == f"{commit}+"


def test_whatever_repository_encloses_the_package_none_of_its_programs_run(tmp_path: Path) -> None:
    package, ran = tmp_path / "repository" / "package", tmp_path / "ran"
    package.mkdir(parents=True)
    (package / "a.py").write_text("1\n")
    (package / ".gitattributes").write_text("* filter=spy diff=spy\n")
    git(package.parent, "init", "--quiet")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "--quiet", "-m", "x")
    spy = tmp_path / "spy"
    spy.write_text(f"#!/bin/sh\ntouch {ran}\ncat\n")
    spy.chmod(0o755)
    hooks = package.parent / ".git" / "hooks"
    for hook in ("post-index-change", "fsmonitor-watchman", "post-checkout"):
        shutil.copy(spy, hooks / hook)
    for key in ("core.fsmonitor", "filter.spy.clean", "filter.spy.process", "diff.spy.command", "core.pager"):
        git(package.parent, "config", key, str(spy))
    ran.unlink(missing_ok=True)
    (package / "a.py").write_text("2\n")
    commit = _commit(package)
    assert commit is not None and commit.endswith("+") and not ran.exists()
    git(package.parent, "status")
    assert ran.exists()  # it would have
