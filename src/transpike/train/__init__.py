"""Training: `fit` and `evaluate` any classifier with `TrainOptions`. Lightning is imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from transpike.train.options import Machine, Optim, Recipe, TrainOptions

if TYPE_CHECKING:
    from transpike.train.classify import Classifier
    from transpike.train.fitted import Evaluation, Fitted, Loaders
    from transpike.train.loop import evaluate, fit

__all__ = [
    "Classifier",
    "Evaluation",
    "Fitted",
    "Loaders",
    "Machine",
    "Optim",
    "Recipe",
    "TrainOptions",
    "evaluate",
    "fit",
]

_HEAVY = {
    "Classifier": "classify",
    "Evaluation": "fitted",
    "Fitted": "fitted",
    "Loaders": "fitted",
    "evaluate": "loop",
    "fit": "loop",
}


def __getattr__(name: str) -> Any:
    if name not in _HEAVY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HEAVY[name]}"), name)
