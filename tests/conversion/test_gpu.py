"""Conversion of networks on a GPU, on a machine that has none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_no_step_of_conversion_mixes_devices() -> None:
    """A process of its own, in which PyTorch believes that CUDA has been started."""
    command = [sys.executable, "-m", "tests.conversion.converted_on_gpu"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.endswith("converted\n"), done.stderr[-3000:]
