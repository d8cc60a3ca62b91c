"""Results as plain data, for tests that look at many of their fields."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from transpike.files import plain
from transpike.results import read_result


def read(folder: Path) -> Any:
    """What a run's folder says in results.json, with the fields that are left out there; and the folder."""
    return plain(asdict(read_result(folder)) | {"folder": str(folder)})
