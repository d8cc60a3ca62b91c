"""transpike: converts a trained artificial neural network to a spiking one.

The names below suffice for most work. They load on first use, so ``import transpike`` is quick:

Example:
    >>> import transpike
    >>> transpike.CSS(steps=8).steps
    8
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transpike.coding.css import CSS
    from transpike.conversion.store import load
    from transpike.data import ImageSets, Loading, load_images
    from transpike.errors import ConfigError, ConversionError, DataError, GoalError, ModelError, TranspikeError
    from transpike.export.nir_import import import_nir
    from transpike.measure.choosing import convert
    from transpike.models import create_model

__version__ = version("transpike")

_HOMES = {
    "CSS": "transpike.coding.css",
    "ConfigError": "transpike.errors",
    "ConversionError": "transpike.errors",
    "DataError": "transpike.errors",
    "GoalError": "transpike.errors",
    "ImageSets": "transpike.data",
    "Loading": "transpike.data",
    "ModelError": "transpike.errors",
    "TranspikeError": "transpike.errors",
    "convert": "transpike.measure.choosing",
    "create_model": "transpike.models",
    "import_nir": "transpike.export.nir_import",
    "load": "transpike.conversion.store",
    "load_images": "transpike.data",
}

__all__ = [
    "CSS",
    "ConfigError",
    "ConversionError",
    "DataError",
    "GoalError",
    "ImageSets",
    "Loading",
    "ModelError",
    "TranspikeError",
    "__version__",
    "convert",
    "create_model",
    "import_nir",
    "load",
    "load_images",
]


_PACKAGES = ("coding", "conversion", "data", "distill", "export", "measure", "models", "neurons", "spectral", "train")
"""The names of ``transpike.coding`` and so on that need no import of their own."""


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"transpike.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'transpike' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_PACKAGES})
