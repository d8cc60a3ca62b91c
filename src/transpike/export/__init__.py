"""Exports a saved network to other simulators, runtimes and chips.

The names load on first use, because `run` needs only NumPy and SciPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transpike.export.cores import Core, footprint
    from transpike.export.nir_graph import nir
    from transpike.export.nir_import import import_nir
    from transpike.export.onnx_step import onnx, torch_program
    from transpike.export.runner import CLOSE, Run, run
    from transpike.export.whole import integers

_HOMES = {
    "CLOSE": "transpike.export.runner",
    "Core": "transpike.export.cores",
    "Run": "transpike.export.runner",
    "footprint": "transpike.export.cores",
    "import_nir": "transpike.export.nir_import",
    "integers": "transpike.export.whole",
    "nir": "transpike.export.nir_graph",
    "onnx": "transpike.export.onnx_step",
    "run": "transpike.export.runner",
    "torch_program": "transpike.export.onnx_step",
}

__all__ = ["CLOSE", "Core", "Run", "footprint", "import_nir", "integers", "nir", "onnx", "run", "torch_program"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'transpike.export' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value
