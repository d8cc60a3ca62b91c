"""Several files as one change, and folders that one process alone gets."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.files.children import ended, fork
from tests.files.kill_points import (
    HALF,
    PAIR,
    alone,
    interrupted_change,
    killed_change,
    killed_claim,
    read_pair,
    refuse,
    without_waiting,
    write_pair,
)

from transpike import files
from transpike.errors import ConfigError, DataError, ModelError, TranspikeError
from transpike.files import Change, claim, hold, reading, release, settle
from transpike.files.partial import JOURNAL


@pytest.fixture(autouse=True)
def _quick() -> Iterator[None]:
    with without_waiting():
        yield


@pytest.mark.parametrize(("old", "step"), [("old", 2), (None, 7)])
def test_killed_anywhere_all_files_are_old_or_all_new(old: str | None, step: int, tmp_path: Path) -> None:
    alone(killed_change, tmp_path, old, step)


def test_interrupted_anywhere_all_files_are_old_or_all_new(tmp_path: Path) -> None:
    alone(interrupted_change, tmp_path)


def test_a_writer_that_fails_changes_nothing(tmp_path: Path) -> None:
    write_pair(tmp_path, "old")
    with pytest.raises(ZeroDivisionError), Change(tmp_path) as change:
        change.write("a.json", '{"half": "new"}', kind=HALF)
        raise ZeroDivisionError
    (tmp_path / "b.json").write_text('{"other": 1}')
    refused = r"b\.json: already exists and is not half of a pair; name another place\."
    with pytest.raises(ModelError, match=refused), Change(tmp_path, error=ModelError) as change:
        change.write("a.json", '{"half": "new"}', kind=HALF)
        change.write("b.json", '{"half": "new"}', kind=HALF)
    assert sorted(os.listdir(tmp_path)) == list(PAIR)
    assert (tmp_path / "a.json").read_text() == '{"half": "old"}'


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_one_sentence_and_nothing_changes(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pair(tmp_path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse(errno.ENOSPC))
        with pytest.raises(ConfigError, match=r"^cannot write .*: no space is left on its disk\. Free some, or name"):
            write_pair(tmp_path, "new")
    assert sorted(os.listdir(tmp_path)) == list(PAIR) and read_pair(tmp_path) == ["old", "old"]


def test_readers_never_see_half_of_a_change(tmp_path: Path) -> None:
    write_pair(tmp_path, "0")

    def write() -> None:
        for number in range(1, 60):
            write_pair(tmp_path, str(number))

    child, seen = fork(write), set()
    while "59" not in seen:
        first, second = read_pair(tmp_path)
        assert first == second
        seen.add(first)
    assert ended(child) == 0


def test_writers_at_once_leave_one_of_them(tmp_path: Path) -> None:
    def write(half: str) -> Callable[[], None]:
        return lambda: [write_pair(tmp_path, half) for _ in range(20)] and None

    children = [fork(write(half)) for half in ("left", "right")]
    assert [ended(child) for child in children] == [0, 0]
    first, second = read_pair(tmp_path)
    assert first == second and sorted(os.listdir(tmp_path)) == list(PAIR)


def test_a_link_is_followed_to_its_own_folder(tmp_path: Path) -> None:
    far, near = tmp_path / "far", tmp_path / "near"
    far.mkdir()
    near.mkdir()
    (near / "a.json").symlink_to(far / "elsewhere.json")
    write_pair(near, "new")
    assert (near / "a.json").is_symlink() and read_pair(near) == ["new", "new"]
    assert os.listdir(far) == ["elsewhere.json"] and sorted(os.listdir(near)) == list(PAIR)


@pytest.mark.parametrize(
    "entries",
    [
        {"../b.json": ".b.json.00000000.partial"},
        {"a.json": "../.a.json.00000000.partial"},
        {"a.json": "secret"},
        {"a.json": ".b.json.00000000.partial"},
        {"": "..00000000.partial"},
        {"..": "....00000000.partial"},
        {"a.json": 3},
        [],
    ],
)
def test_a_journal_moves_nothing_but_our_own_temporary_files(entries: object, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for place in (folder / "secret", folder / ".b.json.00000000.partial", tmp_path / ".a.json.00000000.partial"):
        place.write_text("")
    before = sorted(tmp_path.rglob("*"))
    (folder / JOURNAL).write_text(json.dumps({"format": "transpike change", "version": 1, "files": entries}))
    for read in (settle, read_pair):
        with pytest.raises(DataError, match=r"\.transpike\.journal: damaged\. Delete it, and write these"):
            read(folder)
    (folder / JOURNAL).unlink()
    assert sorted(tmp_path.rglob("*")) == before


def test_reading_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with reading(tmp_path / "none") as place:
        assert place("a.json") == tmp_path / "none" / "a.json"


def test_a_folder_that_stays_busy_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pair(tmp_path, "old")
    monkeypatch.setattr("transpike.files.partial.WAIT", 0.05)
    with reading(tmp_path), pytest.raises(TranspikeError, match="another process has been at work on its files"):
        write_pair(tmp_path, "new")
    assert sorted(os.listdir(tmp_path)) == list(PAIR) and read_pair(tmp_path) == ["old", "old"]


@pytest.mark.parametrize("there", [False, True])
def test_of_processes_that_claim_a_folder_at_once_one_gets_it(there: bool, tmp_path: Path) -> None:
    for attempt in range(10):
        folder = tmp_path / f"{there}{attempt}"
        if there:
            folder.mkdir()
        start, go = os.pipe()

        def race(number: int) -> None:
            os.read(start, 1)  # noqa: B023
            claim(folder, "run.json", str(number))  # noqa: B023
            time.sleep(0.1)

        children = [fork(partial(race, number)) for number in range(4)]
        os.write(go, b"1234")
        codes = [ended(child) for child in children]
        assert sorted(codes) == [0, 1, 1, 1]
        assert (folder / "run.json").read_text() == str(codes.index(0)) and os.listdir(folder) == ["run.json"]
        os.close(start)
        os.close(go)


def test_a_claimed_folder_is_free_again_once_its_process_is_dead_and_left_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ready, tell = os.pipe()

    def live() -> None:
        claim(folder, "run.json", "first")
        # A worker of a killed run may outlive it.
        fork(lambda: time.sleep(2))
        os.write(tell, b".")
        time.sleep(60)

    child = fork(live)
    os.read(ready, 1)
    (folder / ".results.json.0123abcd.partial").write_text("half")
    with pytest.raises(ConfigError, match=r"run is not an empty folder: name another one for this run's results\."):
        claim(folder, "run.json", "second")
    os.kill(child, signal.SIGKILL)
    assert ended(child) == -signal.SIGKILL
    lock = claim(folder, "run.json", "third")
    assert os.listdir(folder) == ["run.json"] and (folder / "run.json").read_text() == "third"
    with pytest.raises(ConfigError, match="not an empty folder"):
        claim(folder, "run.json", "fourth")
    release(lock)
    (folder / "results.json").write_text("{}")
    with pytest.raises(ConfigError, match="not an empty folder"):
        claim(folder, "run.json", "fifth")
    assert (folder / "run.json").read_text() == "third"


def test_a_claim_killed_at_any_point_can_be_repeated(tmp_path: Path) -> None:
    alone(killed_claim, tmp_path)


def test_one_process_goes_on_with_a_run(tmp_path: Path) -> None:
    lock = claim(tmp_path / "run", "run.json", "{}")
    with pytest.raises(ConfigError, match=r"run: another process is at work there\. Wait for its end, or stop it\."):
        hold(tmp_path / "run" / "run.json")
    release(lock)
    release(hold(tmp_path / "run" / "run.json"))
    release(hold(tmp_path / "run" / "run.json"))
    with pytest.raises(ModelError, match=r"cannot go on with .*none: no such file or folder"):
        hold(tmp_path / "none" / "run.json", error=ModelError)


def test_folders_are_made_once(tmp_path: Path) -> None:
    assert files.make_folder(tmp_path / "new" / "one") and not files.make_folder(tmp_path / "new" / "one")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot make the folder .*: a part of its path is a file"):
        files.make_folder(tmp_path / "file" / "below" / "it")
