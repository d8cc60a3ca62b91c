"""One file: whole or not at all, only over its own kind, wherever its path leads."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.files.children import ended, fork, killed_at
from tests.files.kill_points import NOTES, alone, killed_write
from torch import Tensor

from transpike import files
from transpike.errors import ConfigError, DataError, ModelError, TranspikeError, reason
from transpike.files import Kind, check_target, json_kind, safetensors_kind, write, zip_kind

RESULTS = json_kind("results", kind=str, version=int)
WEIGHTS, OTHERS = safetensors_kind("weights"), safetensors_kind("other weights")
CHECKPOINT = zip_kind("a checkpoint", "data.pkl", "version")


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def elsewhere(path: Path) -> None:
    """Write as some libraries do: to a private file, moved over the one that was asked for."""
    other = path.with_name("other")
    os.close(os.open(other, os.O_CREAT, 0o600))
    other.write_text("notes: 2")
    other.rename(path)


def test_text_bytes_json_and_functions_are_written(tmp_path: Path) -> None:
    for content in ("notes: θ", "notes: θ".encode(), lambda path: path.write_text("notes: θ"), elsewhere):
        path = write(tmp_path / "new" / "notes.txt", content, kind=NOTES)
        assert path.read_text().startswith("notes: ") and os.listdir(path.parent) == ["notes.txt"]
    results = files.write_json(
        tmp_path / "results.json", {"kind": "x", "version": 1, "loss": float("nan")}, kind=RESULTS
    )
    assert json.loads(results.read_text()) == {"kind": "x", "version": 1, "loss": None}


def test_the_umask_is_respected(umask: None, tmp_path: Path) -> None:
    for number, content in enumerate(("notes: 1", elsewhere)):
        path = write(tmp_path / str(number) / "notes.txt", content, kind=NOTES)
        assert (mode(path), mode(path.parent)) == (0o640, 0o750)


@pytest.mark.parametrize("by_function", [False, True])
def test_killed_anywhere_a_file_is_old_or_new_and_the_next_writer_cleans_up(by_function: bool, tmp_path: Path) -> None:
    alone(killed_write, tmp_path, by_function)


def test_what_a_living_writer_writes_is_no_leaving(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    ready, tell = os.pipe()

    def slow(partial: Path) -> None:
        partial.write_text("notes: slow")
        os.write(tell, b".")
        time.sleep(60)

    child = fork(lambda: write(path, slow, kind=NOTES))
    os.read(ready, 1)
    write(path, "notes: quick", kind=NOTES)
    assert len(os.listdir(tmp_path)) == 2
    os.kill(child, signal.SIGKILL)
    ended(child)
    write(path, "notes: quick", kind=NOTES)
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_links_are_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "far" / "notes.txt", tmp_path / "link"
    link.symlink_to(tmp_path / "second")
    (tmp_path / "second").symlink_to(Path("far") / "notes.txt")
    for text in ("notes: 1", "notes: 2"):  # first it leads nowhere
        write(link, text, kind=NOTES)
        assert link.is_symlink() and target.read_text() == text
    assert os.listdir(target.parent) == ["notes.txt"]
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(ConfigError, match=r"circle: its links lead in a circle\. Name the file itself\.$"):
        write(tmp_path / "circle", "notes: 1", kind=NOTES)


def write_tensors(path: Path, *, kind: Kind | None) -> None:
    state: dict[str, Tensor] = {"weight": torch.ones(2)}
    path.write_bytes(files.tensors(state, kind)) if kind else save_file(state, path)


FOREIGN: dict[str, tuple[Kind, Callable[[Path], object]]] = {
    "text": (NOTES, lambda path: path.write_text("mine")),
    "far mark": (NOTES, lambda path: path.write_text(" " * 5000 + "notes:")),
    "json of another": (RESULTS, lambda path: path.write_text('{"verb": "train", "version": 1}')),
    "json of another type": (RESULTS, lambda path: path.write_text('{"kind": "x", "version": "1"}')),
    "json list": (RESULTS, lambda path: path.write_text("[]")),
    "no json": (RESULTS, lambda path: path.write_text('{"kind": "x", "version": 1')),
    "binary": (RESULTS, lambda path: path.write_bytes(b"\xff\x00")),
    "weights of another": (WEIGHTS, lambda path: write_tensors(path, kind=OTHERS)),
    "strangers' weights": (WEIGHTS, lambda path: write_tensors(path, kind=None)),
    "no weights": (WEIGHTS, lambda path: path.write_bytes(b"short")),
    "huge header": (WEIGHTS, lambda path: path.write_bytes(b"\xff" * 64)),
    "odd header": (WEIGHTS, lambda path: path.write_bytes((2).to_bytes(8, "little") + b"[]")),
    "odd metadata": (WEIGHTS, lambda path: path.write_bytes((19).to_bytes(8, "little") + b'{"__metadata__": 3}')),
    "deep header": (WEIGHTS, lambda path: path.write_bytes((100_000).to_bytes(8, "little") + b"[" * 100_000)),
    "no archive": (CHECKPOINT, lambda path: path.write_text("mine")),
    "page": (WEIGHTS, lambda path: path.write_text("<html>")),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_another_kind_is_refused_and_left(name: str, tmp_path: Path) -> None:
    kind, make = FOREIGN[name]
    path = tmp_path / "file"
    make(path)
    before = path.read_bytes()
    for call in (partial(write, path, "notes: 1", kind=kind), partial(check_target, path, kind)):
        with pytest.raises(ModelError) as error:
            call(error=ModelError)
        assert str(error.value) == f"{path}: already exists and is not {kind.name}; name another place."
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["file"]


def test_a_file_of_the_same_kind_an_empty_and_a_missing_one_are_replaced(tmp_path: Path) -> None:
    def checkpoint(path: Path) -> None:
        with path.open("wb") as file:
            torch.save({"epoch": 1}, file)

    cases: list[tuple[Kind, files.Content]] = [
        (NOTES, "notes: 1"),
        (RESULTS, '{"kind": "x", "version": 2}'),
        (WEIGHTS, files.tensors({"weight": torch.ones(2)}, WEIGHTS)),
        (CHECKPOINT, checkpoint),
    ]
    for number, (kind, content) in enumerate(cases):
        path = tmp_path / str(number)
        path.touch()
        for _ in range(3):
            check_target(path, kind)
            write(path, content, kind=kind)
            assert path.stat().st_size > 0
    assert torch.equal(load_file(tmp_path / "2")["weight"], torch.ones(2))
    assert torch.load(tmp_path / "3", weights_only=True) == {"epoch": 1}


def test_tensors_that_share_memory_are_each_written_and_bytes_are_the_same_every_time() -> None:
    whole = torch.arange(6.0).reshape(2, 3)
    state = {"whole": whole, "part": whole[1], "turned": whole.T, "half": whole.bfloat16(), "count": torch.tensor(3)}
    data = files.tensors(state, WEIGHTS)
    assert data == files.tensors(state, WEIGHTS)


def test_tables_have_a_heading_and_replace_only_those_that_have_it(tmp_path: Path) -> None:
    path = files.write_csv(tmp_path / "curves.csv", ["epoch", "loss"], [[1, 0.5]])
    files.write_csv(path, ["epoch", "loss"], [[1, 0.5], [2, 0.25]])
    assert path.read_bytes() == b"epoch,loss\r\n1,0.5\r\n2,0.25\r\n"
    with pytest.raises(ConfigError, match=r"curves\.csv: already exists and is not a table of epoch,accuracy; name"):
        files.write_csv(path, ["epoch", "accuracy"], [])


def script(code: str) -> list[str]:
    kind = "from transpike import files; kind = files.marked('notes', 'notes:')"
    return [sys.executable, "-c", f"{kind}; w = lambda path: files.write(path, 'notes: 1\\n', kind=kind); {code}"]


def test_standard_output_is_written_in_place_and_in_order(tmp_path: Path) -> None:
    code = "print('before'); [w(p) for p in ('/dev/stdout', '/dev/fd/1', '/proc/self/fd/1')]; print('after')"
    expected = "before\nnotes: 1\nnotes: 1\nnotes: 1\nafter\n"
    assert subprocess.run(script(code), capture_output=True, text=True, check=True).stdout == expected
    out = tmp_path / "out.txt"
    with out.open("w") as file:
        file.write("shell's\n")
        file.flush()
        subprocess.run(script(code), stdout=file, check=True)
    assert out.read_text() == "shell's\n" + expected and os.listdir(tmp_path) == ["out.txt"]


def test_a_named_pipe_stays_one_and_its_reader_gets_all(tmp_path: Path) -> None:
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: [got.append(pipe.read_bytes()) for _ in range(2)])
    reader.start()
    check_target(pipe, NOTES)
    write(pipe, "notes: 1", kind=NOTES)
    while len(got) < 1:
        time.sleep(0.01)
    write(pipe, lambda path: path.write_text("notes: 2"), kind=NOTES)
    reader.join()
    assert got == [b"notes: 1", b"notes: 2"] and stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_pipe_without_a_reader_is_said_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr("transpike.files.writing.WAIT", 0.1)
    with pytest.raises(ConfigError, match="it is a pipe, and no program reads from it"):
        write(tmp_path / "pipe", "notes: 1", kind=NOTES)


def test_devices_are_written_and_a_full_one_is_one_sentence() -> None:
    write("/dev/null", "notes: 1", kind=NOTES)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    with pytest.raises(ConfigError) as error:
        write("/dev/full", "notes: 1", kind=NOTES)
    assert str(error.value) == (
        "cannot write /dev/full: no space is left on its disk. Free some, or name a place on another disk."
    )


def test_a_library_that_hides_a_full_disk_is_asked_again(tmp_path: Path) -> None:
    def save(path: Path) -> None:
        torch.save({"weight": torch.ones(2**16)}, path)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
        with pytest.raises(ConfigError, match=r"big: it would be larger than a file may be there\. Raise the limit"):
            write(tmp_path / "big", save, kind=NOTES)
        assert os.listdir(tmp_path) == []

    assert ended(fork(limited)) == 0

    def broken(path: Path) -> None:
        raise RuntimeError("not the disk's fault")

    with pytest.raises(RuntimeError, match="not the disk's fault"):
        write(tmp_path / "big", broken, kind=NOTES)
    assert os.listdir(tmp_path) == []


def impossible(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    (tmp_path / "file").write_text("")
    return {
        "folder": (tmp_path, "it is a folder. Name a file in it."),
        "below a file": (tmp_path / "file" / "x", "a part of its path is a file, not a folder. Name another place."),
        "long": (tmp_path / ("x" * 300), "its name is too long. Name a shorter one."),
        "long folder": (tmp_path / ("x" * 300) / "x", "its name is too long. Name a shorter one."),
        "null": (tmp_path / "a\0b", "no file can have such a name (embedded null byte). Name another one."),
        "no letter": (tmp_path / "a\ud800b", "no file can have such a name ("),
    }


@pytest.mark.parametrize("name", ["folder", "below a file", "long", "long folder", "null", "no letter"])
def test_an_impossible_place_is_one_sentence_before_the_work_and_after(name: str, tmp_path: Path) -> None:
    path, why = impossible(tmp_path)[name]
    for call in (lambda: check_target(path, NOTES), lambda: write(path, "notes: 1", kind=NOTES)):
        with pytest.raises(ConfigError, match=r"^cannot write ") as error:
            call()
        assert why in str(error.value) and "\n" not in str(error.value)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["x" * 255, "θ" * 127, "x" * 230, "a.b.c", "-x", "a b"])
def test_any_name_that_a_file_may_have_is_written(name: str, tmp_path: Path) -> None:
    path, other = tmp_path / name, tmp_path / (name[:-1] + "y")
    assert killed_at(150, lambda: write(other, lambda p: os.kill(os.getpid(), signal.SIGKILL), kind=NOTES))
    for text in ("notes: 1", "notes: 2"):
        write(path, text, kind=NOTES)
        assert path.read_text() == text
    assert len(os.listdir(tmp_path)) == 2  # another file's leaving stays
    write(other, "notes: 3", kind=NOTES)
    assert sorted(os.listdir(tmp_path)) == sorted([path.name, other.name])


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EROFS, "it lies on a read-only disk. Name a place on another one."),
        (errno.EACCES, "permission denied. Change its permissions, or name another place."),
        (errno.EDQUOT, "your quota on its disk is used up. Free some of it, or name a place on another disk."),
        (errno.EIO, "Input/output error."),
    ],
)
def test_what_the_system_says_is_one_sentence(
    number: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reason(OSError(number, os.strerror(number))) == said

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    path = write(tmp_path / "notes.txt", "notes: 1", kind=NOTES)
    for call in ("open", "fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, refuse)
            with pytest.raises(TranspikeError) as error:
                write(path, "notes: 2", kind=NOTES)
        assert str(error.value) == f"cannot write {path}: {said}"
        assert path.read_text() == "notes: 1" and os.listdir(tmp_path) == ["notes.txt"]


def test_text_that_utf8_has_no_letters_for_is_escaped(tmp_path: Path) -> None:
    path = files.write_json(tmp_path / "run.json", {"kind": "a\udcffb", "version": 1}, kind=RESULTS)
    assert json.loads(path.read_text()) == {"kind": "a\udcffb", "version": 1}


def test_errors_of_others_stay_what_they_are(tmp_path: Path) -> None:
    def raising(error: Exception) -> Callable[[Path], object]:
        def call(path: Path) -> None:
            raise error

        return call

    for error in (DataError("no"), ValueError("a bug")):
        with pytest.raises(type(error)) as raised:
            write(tmp_path / "x", raising(error), kind=NOTES)
        assert raised.value is error
    assert os.listdir(tmp_path) == []
