from __future__ import annotations

from typing import Any

import pytest

from .samples import make_conversion, make_training


@pytest.fixture
def conversion() -> dict[str, Any]:
    return make_conversion()


@pytest.fixture
def training() -> dict[str, Any]:
    return make_training()
