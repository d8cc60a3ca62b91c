"""A few of the kills that `tests/kills.py` tries; the longer runs by hand are in docs/results/deployment.md."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_a_killed_command_goes_on_as_if_unbroken(root: Path, tmp_path: Path) -> None:
    options = ["--operations", "--kills", "3", "--seed", "0", "--verbs", "train", "convert", "report"]
    ended = subprocess.run(
        [sys.executable, str(root / "tests" / "kills.py"), *options],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    kills, faults = map(int, ended.stdout.splitlines()[-1].removeprefix("all").split())
    assert (kills >= 3, faults) == (True, 0)
