"""Killed at every few lines, in a process that has not imported PyTorch: there a fork costs a seventh.

Each function is a test of test_changes or test_writing, which run it by `alone`.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from itertools import count
from pathlib import Path
from unittest.mock import patch

from tests.files.children import interrupted_at, killed_at

from transpike.files import Change, claim, json_kind, marked, reading, release, write

HALF = json_kind("half of a pair", half=str)
NOTES = marked("notes of a test", "notes:")
PAIR = ("a.json", "b.json")
HOME = Path(__file__).parents[2]


def alone(test: Callable[..., None], *arguments: object) -> None:
    """Run a function of this module in a process of its own."""
    paths = os.pathsep.join([str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", __name__, json.dumps([test.__name__, *arguments], default=str)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def without_waiting() -> AbstractContextManager[object]:
    """What a killed process has written is there, whether it is on the disk yet or not."""
    return patch("os.fsync", lambda _: None)


def refuse(number: int) -> Callable[..., None]:
    def call(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


def write_pair(folder: Path, half: str) -> None:
    with Change(folder) as change:
        for name in PAIR:
            change.write(name, json.dumps({"half": half}), kind=HALF)


def read_pair(folder: Path) -> list[str | None]:
    with reading(folder) as place:
        return [json.loads(place(name).read_text())["half"] if place(name).exists() else None for name in PAIR]


def killed_change(home: str, old: str | None, step: int) -> None:
    seen = set()
    for line in count(1, step):
        folder = Path(home, str(line))
        folder.mkdir()
        if old:
            write_pair(folder, old)
        alive = not killed_at(line, partial(write_pair, folder, "new"))
        read_only = refuse(errno.EROFS)
        with patch("os.replace", read_only), patch("os.unlink", read_only):
            before = read_pair(folder)
        first, second = read_pair(folder)
        assert first == second and first in (old, "new") and before == [first, second], (line, before, first, second)
        seen.add(first)
        write_pair(folder, "next")
        assert sorted(os.listdir(folder)) == list(PAIR) and read_pair(folder) == ["next", "next"], line
        if alive:
            break
    assert seen == {old, "new"} and line > 200, (seen, line)


def interrupted_change(home: str) -> None:
    folder, seen = Path(home), set()
    write_pair(folder, "old")
    for line in count(1, 3):
        if not interrupted_at(line, partial(write_pair, folder, f"new {line}")):
            break
        first, second = read_pair(folder)
        assert first == second, (line, first, second)
        seen.add(first)
        write_pair(folder, "next")
        assert sorted(os.listdir(folder)) == list(PAIR) and read_pair(folder) == ["next", "next"], line
    assert {"next"} < seen and line > 200, (seen, line)


def killed_claim(home: str) -> None:
    for line in count(1):
        folder = Path(home, str(line))
        if not killed_at(line, partial(claim, folder, "run.json", "first")):
            break
        begun = folder / "run.json"
        assert not begun.exists() or begun.read_text() == "first", line
        release(claim(folder, "run.json", "second"))
        assert os.listdir(folder) == ["run.json"] and begun.read_text() == "second", line
    assert line > 40, line


def killed_write(home: str, by_function: bool) -> None:
    path, seen = Path(home, "notes.txt"), set()
    for line in count(1, 3):
        path.write_text("notes: old")
        content = (lambda place: place.write_text("notes: new")) if by_function else "notes: new"
        alive = not killed_at(line, partial(write, path, content, kind=NOTES))
        seen.add(path.read_text())
        write(path, "notes: next", kind=NOTES)
        assert os.listdir(home) == ["notes.txt"] and path.read_text() == "notes: next", line
        if alive:
            break
    assert seen == {"notes: old", "notes: new"}, seen


if __name__ == "__main__":
    name, *arguments = json.loads(sys.argv[1])
    assert "torch" not in sys.modules
    with without_waiting():
        globals()[name](*arguments)
