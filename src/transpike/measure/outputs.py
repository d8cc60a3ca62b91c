"""The differences between two networks' outputs: each output, the decoded values before it, and the task's measure."""

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
    """Return measures by name, from a user's input: a name of `METRICS`, a function, or functions by name.

    A text ``module:function`` names the user's own function, in a module that is installed or lies in the working
    folder.

    Raises:
        ConfigError: The input has another form.

    Example:
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
            sys.path.append(os.getcwd())  # last, because installed modules have priority
        try:
            metric = getattr(importlib.import_module(module), name)
        except Exception as error:  # the user's module may raise anything
            why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise ConfigError(f"metric: {given[:60]!r} cannot be imported: {why}") from error
        if callable(metric):
            return metric  # type: ignore[no-any-return]
    guess = near(given, METRICS) if isinstance(given, str) else ""
    raise ConfigError(
        f"metric: {str(given)[:60]!r} is not a known metric.{guess} There are: {', '.join(METRICS)}; module:function; "
        "or, from Python, a function of outputs and targets"
    )


def scored(metric: Metric, outputs: Any, targets: Any, images: int) -> float:
    """Return the sum of a measure over some images.

    Raises:
        DataError: The measure returns neither a number nor one number for each image.
    """
    try:
        scores = torch.as_tensor(metric(outputs, targets)).double().cpu()
    except DataError:
        raise
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
        why = " ".join(str(error).split())[:200]
        name = getattr(metric, "__name__", "metric")
        raise DataError(f"metric: {name} does not take these outputs and targets: {why}") from error
    if scores.numel() == 1:
        return float(scores) * images
    if scores.shape != (images,):
        raise DataError(
            f"metric: expected one number, or one for each image, not {list(scores.shape)} for {images} images"
        )
    return float(scores.sum())


class Scores:
    """Measures of both networks, summed over images.

    Data sets of classes have labels, whatever a network's task is. A measure that does not accept class indices only
    compares the two networks' outputs.
    """

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        self.metrics = metrics
        self._unlabelled: set[str] = set()
        self._sums = torch.zeros(3, len(metrics), dtype=torch.float64)  # SNN against ANN; against labels ANN and SNN

    def update(self, ann: Any, snn: Any, targets: Any | None) -> None:
        """Add both networks' outputs for some images."""
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
        """Return means: of the SNN against the ANN, then of the ANN and of the SNN against labels."""
        sums = (total(self._sums) if total and self.metrics else self._sums) / images
        beside, ann, snn = ({name: float(row[k]) for k, name in enumerate(self.metrics)} for row in sums)
        labels = [name for name in self.metrics if labelled and name not in self._unlabelled]
        return beside, {name: ann[name] for name in labels}, {name: snn[name] for name in labels}


class OutputErrors:
    """The relative error of every output minus its mean over images, and of decoded values before further operations.

    A softmax or an index of the largest at the end hides errors that the values before it show.
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
        """Add both networks' values for some images, by operation."""
        for name in self.names:
            want, actual = (x[name].double().reshape(len(x[name]), -1).cpu() for x in (ann, snn))
            sums = [(actual - want).square().sum(), want.square().sum(), want.sum(0)]
            self._sums[name] = [a + b for a, b in zip(self._sums.get(name, [torch.zeros(())] * 3), sums, strict=True)]

    def result(self, images: float, total: Callable[[Tensor], Tensor] | None) -> dict[str, float]:
        """Return the errors by the outputs' names. From an output that never varies, no mean is subtracted."""
        errors = {}
        for name, sums in self._sums.items():
            error, whole, mean = [total(x) for x in sums] if total else sums
            varying = float(whole - mean.square().sum() / images)
            norm = varying if varying > 1e-12 * float(whole) else float(whole)
            if norm > 0:
                errors[self.names[name]] = float((error / norm).sqrt())
        return errors
