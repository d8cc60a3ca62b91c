"""The encoder and the neuron of docs/format.md in NumPy, step by step. They equal the package's kernels bit for bit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from transpike.errors import ModelError
from transpike.export.bundle import Array, Bundle, Node, whole_numbers
from transpike.export.operators import evaluate, unsupported

__all__ = ["Digits", "Encoder", "Neurons"]

FEW = 8  # up to so many levels are compared one by one
ROUNDING = 5e-7
"""The relative change of a float32 value if its terms are added in another order: eight units of its last bit."""


@dataclass(frozen=True)
class Digits:
    """Rounds a value to a digit: the largest whose threshold its magnitude reaches, with the value's sign.

    Example:
        >>> rule = Digits(levels=(1, 2, 4), signed=True, start=0.5, scale=2.0, dtype=np.dtype("float32"))
        >>> rule(np.array([0.9, 1.0, -3.1, 100.0], np.float32)).tolist()
        [0.0, 1.0, -2.0, 4.0]
    """

    levels: tuple[int, ...]
    signed: bool
    start: float
    scale: float
    dtype: np.dtype[Any]

    @property
    def thresholds(self) -> list[Any]:
        below = (0, *self.levels[:-1])
        pairs = zip(below, self.levels, strict=True)
        return [self.dtype.type((b - self.start * (b - a)) * self.scale) for a, b in pairs]

    @property
    def _dense(self) -> bool:
        return len(self.levels) > FEW and self.levels[-1] == len(self.levels)

    def __call__(self, value: Array) -> Array:
        size = np.where(value > 0, value, value * self.dtype.type(-1.0 if self.signed else 0.0))
        if self._dense and self.dtype.kind == "i":
            digit = np.minimum((size + int(self.start * self.scale)) // int(self.scale), self.levels[-1])
        elif self._dense:
            scaled = size * self.dtype.type(1 / self.scale) + self.dtype.type(self.start)
            digit = np.floor(np.minimum(scaled, self.dtype.type(self.levels[-1])))
        else:
            digit = np.zeros_like(value)
            below = 0
            for level, threshold in zip(self.levels, self.thresholds, strict=True):
                digit += self.dtype.type(level - below) * (size >= threshold)
                below = level
        return np.where(value > 0, digit, 0 - digit)

    def nearest(self, value: Array) -> Array:
        """Return the distance of each value from the nearest threshold, in units of theta."""
        size = np.abs(value) if self.signed else value
        if self._dense:
            scaled = np.clip(size / self.scale + self.start, 0.5, self.levels[-1] + 0.5)
            return np.abs(scaled - np.round(scaled))
        return np.min([np.abs(size - threshold) for threshold in self.thresholds], axis=0) / self.scale


class Encoder:
    """Encodes the input. The membrane starts at x / beta^T. Each step amplifies it and fires the nearest digit."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._x: Array = np.zeros(0)
        self._relative = bundle.input.tensors.get("relative")
        wide = np.dtype(np.float32) if self._relative is None else self._relative.dtype
        levels = tuple(digit for digit in bundle.encoded or () if digit > 0)
        self._digits = Digits(levels, True, 0.5, 1.0, wide)

    def start(self, image: Array) -> None:
        """Begin with an image [1, \\*] in real units."""
        x: Array = image.astype(np.float32)
        x = x if self._relative is None else x / self._relative
        x = x / x.dtype.type(self._bundle.input.unit)
        self._x = x if self._bundle.encoded is None else x * x.dtype.type(self._beta**-self._bundle.steps)

    @property
    def _beta(self) -> float:
        return self._bundle.ratio or 1.0

    def __call__(self, step: int) -> tuple[Array, Array | None]:
        """Return the train at a step, and each value's distance from a threshold (None for an analog current)."""
        if self._bundle.encoded is None:
            return (self._x * self._x.dtype.type(self._bundle.entry[step])).astype(self._bundle.dtype), None
        state = self._x * self._x.dtype.type(self._beta)
        digit = self._digits(state)
        self._x = state - digit
        kind = np.dtype(np.int64) if self._bundle.whole else self._bundle.dtype
        return digit.astype(kind), self._digits.nearest(state)


class Neurons:
    """A layer of tracking neurons.

    Attributes:
        size: the number of state values that a step updates.
        rounding: the distance from its threshold, in units of theta, below which the rounding of a value alone may
            change the last step's decision. One for each neuron.

    Raises:
        ModelError: The runner lacks the neurons of the scheme, or an operator of the layer's function.
    """

    def __init__(self, node: Node, bundle: Bundle) -> None:
        if node.rule is None:
            raise ModelError(
                f"{node.name}: the NumPy runner does not have the neurons of {bundle.scheme}; convert with css, burst, "
                "fs, multithreshold or the default rate"
            )
        if missing := unsupported(node):
            raise ModelError(
                f"{node.name}: the NumPy runner does not have the operator {missing[0]!r}. Export the network to ONNX, "
                "which may have it."
            )
        rule, self.node = node.rule, node
        self._steps, self._wait = bundle.steps, node.wait
        # The state is in whole numbers if the function is a maximum or ReLU, otherwise in real ones.
        self.whole = bundle.whole and _plain(node)
        self._grown = int(node.args["exponent"]) if bundle.whole else 0
        pairs = list(zip(node.gains or (1.0,) * len(node.inputs), node.inputs, strict=True))
        # The factors that bring each current to units of theta, or to the unit of the whole numbers.
        self._factors: list[Any] = [bundle.dtype.type(gain) for gain, _ in pairs]
        if self.whole:
            self._factors = [whole_numbers(g, self._grown - bundle.exponent(n), of=node.name) for g, n in pairs]
        elif bundle.whole:
            self._factors = [gain * 2.0 ** -bundle.exponent(name) for gain, name in pairs]
        self._sends = np.dtype(np.int64) if bundle.whole else bundle.dtype
        self._dtype = np.dtype(np.int64) if self.whole else bundle.dtype
        self._beta = self._dtype.type(rule["beta"])
        scale = float(rule["beta"]) ** node.wait * (2.0**self._grown if self.whole else 1.0)
        self._rounds = ROUNDING / scale if bundle.dtype == np.float32 else 0.0
        self._scale, unit = self._dtype.type(scale), node.unit * float(rule["last"])
        levels = tuple(int(level) for level in rule["levels"])
        self._digits = Digits(levels, bool(rule["signed"]), float(rule["start"]), scale, self._dtype)
        worth = [float(rule["beta"]) ** (t - self._steps + 1) for t in range(self._steps + node.wait)]
        self._tracked, tail = node.tail is not None, node.tail or {"slope": 1.0}
        self._head = node.calls[: tail.get("calls", len(node.calls))]
        slope, low, high = tail["slope"], tail.get("low"), tail.get("high")
        low, high = -math.inf if low is None else low, math.inf if high is None else high
        self._slope = self._dtype.type(slope)
        self._low = [bundle.dtype.type(low / unit * w) for w in worth]
        self._high = [bundle.dtype.type(high / unit * w) for w in worth]
        self._units = [bundle.dtype.type(w / unit) for w in worth]
        self._reals = [bundle.dtype.type(unit * float(rule["beta"]) ** p) for p in reversed(range(self._steps))]
        self._held: list[Array] = []
        self._sent: Array = np.zeros((1, *node.shape), self._dtype)
        self._value: Array = self._sent
        self.size = 0
        self.rounding: Any = 0.0

    def start(self) -> None:
        """Reset the state for a new image."""
        self._held, self._sent = [], np.zeros((1, *self.node.shape), self._dtype)

    def __call__(self, step: int, currents: Sequence[Array]) -> tuple[Array | None, Array | None]:
        """Return the digits at a step of the layer's own clock, and the distances from thresholds.

        Both are None while the layer only listens.

        Args:
            step: the step since the layer's input began.
            currents: one for each operand, in units of theta. They are read in the first T steps only.
        """
        if step < self._steps:
            pairs = zip(currents, self._factors, strict=True)
            currents = [z.astype(self._dtype, copy=False) * factor for z, factor in pairs]
            before = self._held or [np.zeros_like(z) for z in currents]
            self._held = [h * self._beta + z for h, z in zip(before, currents, strict=True)]
            self.size = sum(h.size for h in self._held)
        elif self._tracked:
            self._held = [self._held[0] * self._beta]
        value = self._bounded(self._target(step), step)
        self._sent = self._sent * self._beta
        if step < self._wait:
            return None, None
        missing = value - self._sent
        self.rounding = np.abs(value) * self._rounds
        digit = self._digits(missing)
        self._sent = self._sent + digit * self._scale
        return digit.astype(self._sends, copy=False), self._digits.nearest(missing)

    def _target(self, step: int) -> Array:
        """Return the value that is tracked, at the scale of the step."""
        if self._tracked and not self._head:
            return self._held[0]
        if self._tracked:
            found = evaluate(self._head, self._held, self.node.tensors)
            return found if self.whole else np.nan_to_num(found, nan=0.0, posinf=np.inf, neginf=-np.inf)
        if step < self._steps:
            real = [h * self._reals[step] for h in self._held]
            with np.errstate(all="ignore"):
                self._value = evaluate(self._head, real, self.node.tensors).astype(self._dtype, copy=False)
        return np.nan_to_num(self._value * self._units[step], nan=0.0, posinf=np.inf, neginf=-np.inf)

    def _bounded(self, held: Array, step: int) -> Array:
        value = np.where(held > 0, held, held * self._slope)
        if self.whole:
            return value
        return np.minimum(np.maximum(value, self._low[step]), self._high[step])


def _plain(node: Node) -> bool:
    """Whether a layer's function keeps whole numbers whole: it has maxima, then ReLU or the identity."""
    tail = node.tail or {"calls": 0, "slope": None}
    maxima = all(
        "max" in call["operator"] or call["operator"] == "relu.default" for call in node.calls[: tail["calls"]]
    )
    return maxima and tail["slope"] in (0, 1) and tail.get("low") is None and tail.get("high") is None
