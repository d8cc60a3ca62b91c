"""What two networks' outputs differ by: each output by itself, what is decoded before it, and by the task's measure."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from transpike.checks import near
from transpike.conversion import SpikingNetwork
from transpike.conversion.kinds import title
from transpike.errors import ConfigError, DataError
from transpike.metrics.tasks import METRICS, Metric

__all__ = ["OutputErrors", "Scores", "find_metric", "scored"]


def find_metric(given: object) -> dict[str, Metric]:
    """Measures by name, from what a user gives: a name of `METRICS`, a function, or functions by name.

    A text ``module:function`` names a function of the user's own, of a module that is installed or lies in the folder
    that is worked in.

    Raises:
        ConfigError: for anything else.

    >>> list(find_metric("iou"))
    ['iou']
    """
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return {str(name): metric for key, value in given.items() for name, metric in {key: _one(value)}.items()}
    return {getattr(given, "__name__", "metric") if callable(given) else str(given): _one(given)}


def _one(given: object) -> Metric:
    if callable(given):
        return given
    if isinstance(given, str) and given in METRICS:
        return METRICS[given]
    if isinstance(given, str) and ":" in given:
        module, _, name = given.partition(":")
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # last: what is installed goes first
        try:
            found = getattr(importlib.import_module(module), name)
        except Exception as error:  # whatever the user's module raises
            why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise ConfigError(f"metric: {given[:60]!r} cannot be imported: {why}") from error
        if callable(found):
            return found  # type: ignore[no-any-return]
    guess = near(given, METRICS) if isinstance(given, str) else ""
    raise ConfigError(
        f"metric: {str(given)[:60]!r} is none.{guess} There are: {', '.join(METRICS)}; module:function; or, from "
        "Python, a function of outputs and targets"
    )


def scored(metric: Metric, outputs: Any, targets: Any, images: int) -> float:
    """The sum of a measure over some images.

    Raises:
        DataError: if it gives no number, or as many as there are not images.
    """
    try:
        found = torch.as_tensor(metric(outputs, targets)).double().cpu()
    except DataError:
        raise
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
        why = " ".join(str(error).split())[:200]
        name = getattr(metric, "__name__", "metric")
        raise DataError(f"metric: {name} does not take these outputs and targets: {why}") from error
    if found.numel() == 1:
        return float(found) * images
    if found.shape != (images,):
        raise DataError(f"metric: expected a number, or one an image, not {list(found.shape)} for {images} images")
    return float(found.sum())


class Scores:
    """Measures of both networks, summed over images.

    Data of classes has labels whatever a network is for: a measure that does not take class indices is taken beside the
    other network's outputs alone.
    """

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        self.metrics = metrics
        self._unlabelled: set[str] = set()
        self._sums = torch.zeros(3, len(metrics), dtype=torch.float64)  # beside the ANN; beside labels, ANN and SNN

    def update(self, ann: Any, snn: Any, targets: Any | None) -> None:
        """Add what both networks say of some images."""
        images = len(torch.utils._pytree.tree_leaves(ann)[0])
        for k, (name, metric) in enumerate(self.metrics.items()):
            self._sums[0, k] += scored(metric, snn, ann, images)
            if targets is None or name in self._unlabelled:
                continue
            try:
                right = [scored(metric, outputs, targets, images) for outputs in (ann, snn)]
            except DataError:
                if not isinstance(targets, Tensor) or targets.is_floating_point() or targets.shape != (images,):
                    raise
                self._unlabelled.add(name)
            else:
                self._sums[1:, k] += torch.tensor(right, dtype=torch.float64)

    def result(
        self, images: float, total: Callable[[Tensor], Tensor] | None, labelled: bool
    ) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
        """Means: of the SNN beside the ANN, then of the ANN and of the SNN beside labels."""
        sums = (total(self._sums) if total and self.metrics else self._sums) / images
        beside, ann, snn = ({name: float(row[k]) for k, name in enumerate(self.metrics)} for row in sums)
        labels = [name for name in self.metrics if labelled and name not in self._unlabelled]
        return beside, {name: ann[name] for name in labels}, {name: snn[name] for name in labels}


class OutputErrors:
    """The relative error of every output, less its mean over images, and of what is decoded where more is done to that.

    A softmax or an index of the largest at the end hides errors, which show before it.
    """

    def __init__(self, snn: SpikingNetwork) -> None:
        graph = snn.graph
        keys = graph.container if isinstance(graph.container, list) else [str(k) for k in range(len(graph.outputs))]
        self.names = {
            name: "output" if len(keys) == 1 else str(key) for key, name in zip(keys, graph.outputs, strict=True)
        }
        behind = [title(op) for op in graph if op.name not in graph.spiking]
        for name in sorted(graph.readouts - set(graph.outputs)):
            self.names[name] = f"{name}, before {behind[0]}" if behind else name
        self._sums: dict[str, list[Tensor]] = {}

    def update(self, ann: Mapping[str, Tensor], snn: Mapping[str, Tensor]) -> None:
        """Add what both networks say of some images, by operation."""
        for name in self.names:
            want, got = (x[name].double().reshape(len(x[name]), -1).cpu() for x in (ann, snn))
            sums = [(got - want).square().sum(), want.square().sum(), want.sum(0)]
            self._sums[name] = [a + b for a, b in zip(self._sums.get(name, [torch.zeros(())] * 3), sums, strict=True)]

    def result(self, images: float, total: Callable[[Tensor], Tensor] | None) -> dict[str, float]:
        """By the outputs' names; an output that never varies is measured as it is."""
        found = {}
        for name, sums in self._sums.items():
            error, whole, mean = [total(x) for x in sums] if total else sums
            varying = float(whole - mean.square().sum() / images)
            norm = varying if varying > 1e-12 * float(whole) else float(whole)
            if norm > 0:
                found[self.names[name]] = float((error / norm).sqrt())
        return found
