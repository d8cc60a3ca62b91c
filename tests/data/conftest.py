from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import spikingjelly


@pytest.fixture(scope="module")
def jelly() -> Iterator[Any]:
    """SpikingJelly's own event sets, without the rest of their package, which needs a torchaudio that fits torch."""
    package = ModuleType("spikingjelly.datasets")
    package.__path__ = [f"{spikingjelly.__path__[0]}/datasets"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, package.__name__, package)
        for name in ("utils", "n_mnist", "cifar10_dvs", "dvs128_gesture"):
            setattr(package, name, importlib.import_module(f"{package.__name__}.{name}"))
        yield package
