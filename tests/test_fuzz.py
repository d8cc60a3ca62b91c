"""A fixed part of what `tests/fuzz.py` tries; the longer runs by hand are in docs/results/deployment.md."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

INPUTS = 26


def test_damaged_files_end_in_one_clear_error_or_in_success(root: Path, tmp_path: Path) -> None:
    options = ["--whole", "--inputs", str(INPUTS), "--seed", "0", "--failures", str(tmp_path / "failures")]
    ended = subprocess.run(
        [sys.executable, str(root / "tests" / "fuzz.py"), *options],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    row = next(line.split() for line in ended.stdout.splitlines() if line.startswith("all "))
    inputs, errors, successes, *faults = map(int, row[1:])
    assert inputs == INPUTS == errors + successes and not any(faults)
    assert errors > INPUTS // 2 and successes > INPUTS // 20
