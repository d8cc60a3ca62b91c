"""Out of the framework: a saved network in other simulators, runtimes and chips.

The names load on first use: `run` needs NumPy and SciPy alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transpike.export.onnx_step import onnx, torch_program
    from transpike.export.runner import CLOSE, Run, run

_HOMES = {
    "CLOSE": "transpike.export.runner",
    "Run": "transpike.export.runner",
    "onnx": "transpike.export.onnx_step",
    "run": "transpike.export.runner",
    "torch_program": "transpike.export.onnx_step",
}

__all__ = ["CLOSE", "Run", "onnx", "run", "torch_program"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'transpike.export' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value
