"""The outputs that the reference runner decodes for each image, and when an image's answer is sure enough to stop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from transpike.errors import ConfigError, ModelError
from transpike.export import linear
from transpike.export.bundle import Array, Bundle, Node
from transpike.export.operators import evaluate, unsupported

__all__ = ["Answers"]


class Answers:
    """The outputs of images that follow each other through one network.

    Args:
        bundle: the network.
        images: the number of images.
        arrived: the step, counted from an image's arrival, at which the slowest decoded operation begins.
        agreement: as in `transpike.export.runner.run`.

    Attributes:
        values: decoded values and the outputs from them, for each image, by name.
        steps: the number of the output's steps that each image ran.
        over: which images have stopped before the last step.

    Raises:
        ConfigError: There is an agreement without a rule, or the rule has too few images for it.
        ModelError: NumPy does not have an operator of the outputs.
    """

    def __init__(self, bundle: Bundle, images: int, *, arrived: int, agreement: float | None) -> None:
        self._bundle, self._arrived = bundle, arrived
        self._threshold = None if agreement is None else _threshold(bundle, agreement)
        self._tail = [node for node in bundle.nodes if node.name not in bundle.spiking]
        for node in self._tail:
            if node.kind == "call" and (missing := unsupported(node)):
                raise ModelError(
                    f"{node.name}: the NumPy runner does not have the operator {missing[0]!r}. Export the network to "
                    "ONNX, which may have it."
                )
        self._after = {n.name: linear.make(n, bundle) for n in self._tail if n.kind != "call"}
        self._sums: dict[str, Array] = {}
        self._heard = dict.fromkeys(bundle.readouts, 0)  # the steps of these sums so far
        self._before: Array | None = None  # the first output one step earlier
        self.values: list[dict[str, Array]] = [{} for _ in range(images)]
        self.steps, self.over = np.full(images, bundle.steps), np.zeros(images, bool)

    def add(self, node: Node, step: int, image: int, found: Array | None) -> bool:
        """Accumulate a decoded value; return whether it is complete. A layer that accumulates also waits."""
        bundle, wait = self._bundle, node.wait if node.fires else 0
        index = step - wait
        dtype: Any = np.int64 if bundle.whole else bundle.dtype.type
        if found is not None and 0 <= index < bundle.steps:
            before = self._sums.get(node.name)
            if bundle.ratio is None:
                weighed = found * dtype(bundle.weights[index])
                self._sums[node.name] = weighed if index == 0 or before is None else before + weighed
            else:
                fresh = index == 0 or before is None
                self._sums[node.name] = found if fresh else before * dtype(bundle.ratio) + found
            self._heard[node.name] = index + 1
        if step != bundle.steps - 1 + (wait if node.fires else bundle.wait):
            return False
        self.values[image][node.name] = self._value(node)
        return True

    def stops(self, image: int, clock: int) -> bool:
        """Whether an image's answer is sure, so many steps after its arrival. Then nothing more is computed for it."""
        stop, weights, step = self._bundle.stop, self._bundle.weights, clock - self._arrived + 1
        if stop is None or self._threshold is None or self.over[image] or not stop.first <= step < len(weights):
            return False
        complete = self.values[image]
        some = {n.name: self._value(n) for n in self._bundle.nodes if n.name in self._bundle.readouts - complete.keys()}
        outputs = self._finished(complete | some)
        now = outputs[self._bundle.outputs[0]].astype(np.float32).ravel()
        sure = stop.sure(now, self._before if step > stop.first else None, sum(weights[step:]) / sum(weights))
        self._before = now
        if sure > self._threshold:
            self.values[image], self.steps[image], self.over[image] = outputs, step, True
        return bool(self.over[image])

    def outputs(self) -> Any:
        """Return the outputs of all images, in the form in which the network returns them."""
        whole = [self.values[k] if over else self._finished(self.values[k]) for k, over in enumerate(self.over)]
        joined = {name: np.concatenate([values[name] for values in whole]) for name in self._bundle.outputs}
        return self._bundle.pack(joined)

    def _value(self, node: Node) -> Array:
        """Return the accumulated value, divided by the share of a constant that has arrived."""
        bundle, steps = self._bundle, self._heard[node.name]
        value, dtype, left = self._sums[node.name], bundle.dtype.type, bundle.steps - steps
        if bundle.whole:
            value = value.astype(dtype) * 2.0 ** -bundle.exponent(node.name)
        if bundle.ratio is not None:
            value = value * dtype(bundle.ratio**left) if left else value
            value = value * dtype(bundle.weights[-1]) if bundle.weights[-1] != 1 else value
        value = value * dtype(node.unit)
        arrived_share = sum(weight * share for weight, share in zip(bundle.weights[:steps], bundle.entry, strict=False))
        return value / dtype(arrived_share) if left else value

    def _finished(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """Return the results of the operations on decoded values."""
        results = dict(values)
        for node in self._tail:
            inputs = [results[name] for name in node.inputs]
            if node.kind == "call":
                results[node.name] = evaluate(node.calls, inputs, node.tensors).reshape(1, *node.shape)
            else:
                results[node.name], _ = self._after[node.name](0, inputs)
        return results


def _threshold(bundle: Bundle, agreement: float) -> float:
    if bundle.stop is None:
        raise ConfigError(
            f"agreement={agreement}: the network was saved without a stop rule; snn.calibrate_stop(images) before "
            "snn.save(folder)"
        )
    return bundle.stop.threshold(agreement)
