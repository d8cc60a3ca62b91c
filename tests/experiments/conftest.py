"""Small recordings of events."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """N-MNIST's layout: of each digit two recordings to train with, one to test: 12 ON events at a pixel of its own."""
    root = tmp_path_factory.mktemp("events")
    for part, count in (("Train", 2), ("Test", 1)):
        for digit in range(10):
            folder = root / "NMNIST" / part / str(digit)
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number:05}.bin").write_bytes(
                    b"".join(bytes([3 * digit, 5, 0x80, 0, us]) for us in range(12))
                )
    return root
