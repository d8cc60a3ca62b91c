"""What every test shares: a fixed seed, one thread for torch, and browser tests only where there is a browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)
    # How long an example takes says nothing on a machine that others use.
    settings.register_profile("unhurried", deadline=None)
    settings.load_profile("unhurried")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if any(map(shutil.which, BROWSERS)):
        return
    browser = [item for item in items if item.get_closest_marker("browser")]
    config.hook.pytest_deselected(items=browser)
    items[:] = [item for item in items if item not in browser]


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Each test draws the same random numbers, alone or in company, and leaves no default changed."""
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def browser() -> str:
    """The path of an installed Chromium."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert found, "tests that need a browser are marked `browser` and deselected where none is installed"
    return found


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT
