"""The code for GPUs, on a machine that has none."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest


@pytest.mark.skipif(find_spec("triton") is None, reason="no Triton for this platform")
def test_the_kernels_compile_for_an_h100(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("compiled_for_gpus.py"))]
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout.startswith("compiled "), done.stderr
