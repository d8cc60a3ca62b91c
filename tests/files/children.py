"""Processes that are killed at a chosen point."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import transpike.files

HOME = str(Path(transpike.files.__file__).parent)


def fork(work: Callable[[], object]) -> int:
    """Run something in a child, which then ends; gives its number."""
    if child := os.fork():
        return child
    try:
        work()
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def ended(child: int) -> int:
    """Wait for a child; gives its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def stopped_at(line: int, work: Callable[[], object], stop: Callable[[], object]) -> None:
    """Run something that is stopped before the n-th line of `transpike.files`."""
    left = line

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(HOME):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                stop()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)


def killed_at(line: int, work: Callable[[], object]) -> bool:
    """Run something in a child that is killed before the n-th line of `transpike.files`; false if it ended before."""
    code = ended(fork(lambda: stopped_at(line, work, lambda: os.kill(os.getpid(), signal.SIGKILL))))
    assert code in (0, -signal.SIGKILL)
    return code != 0


def interrupted_at(line: int, work: Callable[[], object]) -> bool:
    """Run something in a child that Ctrl-C ends before the n-th line of `transpike.files`; false if it ended before."""

    def stop() -> None:
        raise KeyboardInterrupt

    code = ended(fork(lambda: stopped_at(line, work, stop)))
    assert code in (0, 1)
    return code != 0
