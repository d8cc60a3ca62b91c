from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from . import small_distill


@pytest.fixture(scope="session")
def killed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds `fit` and `distill`: what is left of a training and of a distillation killed in their third epochs."""
    home = tmp_path_factory.mktemp("killed")
    paths = os.pathsep.join([str(root), str(root / "src"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, small_distill.__file__, str(home)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return home
