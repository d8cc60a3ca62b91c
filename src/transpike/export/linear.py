"""The linear operations between neurons, in NumPy, one step at a time. Operations with weights run event by event.

A convolution adds its events one after the other: place by place, and at each place channel by channel. Then it adds
its bias. Each sum is rounded to the data type of the network. PyTorch's kernels for CPUs with AVX-512 do the same, if
they read all inputs in one pass. Other sums are computed in double precision and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from transpike.errors import ModelError
from transpike.export.bundle import Array, Bundle, Node, whole_numbers

__all__ = ["Layer", "make"]

Layer = Callable[[int, Sequence[Array]], "tuple[Array, int]"]
"""A function of the step and the inputs [1, \\*]. It returns the result [1, \\*] and the number of added weights."""


def make(node: Node, bundle: Bundle) -> Layer:
    """Return the function for an operation that does not fire.

    Raises:
        ModelError: The runner lacks this kind of operation.
    """
    if node.kind in _WEIGHTED:
        return _WEIGHTED[node.kind](node, bundle)
    if node.kind == "product":
        return _Product(node, bundle)
    if node.kind == "resample":
        return _simple(node, bundle, _resample(node))
    if node.kind not in _MOVES:
        raise ModelError(f"{node.name}: the NumPy runner does not have operations of kind {node.kind!r}")
    return _simple(node, bundle, _MOVES[node.kind])


def _simple(node: Node, bundle: Bundle, run: Callable[..., Array]) -> Layer:
    factors = _factors(node, bundle)
    shift = node.tensors.get("shift")
    whole = bundle.whole and node.name in bundle.spiking
    if whole and shift is not None:
        shift = whole_numbers(shift, node.args["exponent"], of=node.name)

    def layer(step: int, inputs: Sequence[Array]) -> tuple[Array, int]:
        gained = [x if factor is None else x * factor for x, factor in zip(inputs, factors, strict=True)]
        found = run(node, *gained)
        if shift is not None:
            share = _share(bundle, step)
            found = found + (shift if share == 1 else shift * share)
        kind = np.dtype(np.int64) if whole else bundle.dtype
        return found.astype(kind, copy=False).reshape(1, *node.shape), 0

    return layer


def _factors(node: Node, bundle: Bundle) -> list[Any]:
    """Return the factor of each input: its gain. For whole numbers it also changes the exponent to the result's."""
    gains: list[Any] = list(_gains(node))
    if "scale" in node.tensors:
        gains = [gain * node.tensors["scale"] for gain in gains]
    if not bundle.whole or node.name not in bundle.spiking:
        return [None if np.all(g == 1) else np.asarray(g, bundle.dtype) for g in gains]
    count = 1
    if node.kind in ("mean", "resample"):
        count = max(1, bundle.by_name[node.inputs[0]].size // node.size)
    pairs = zip(gains, node.inputs, strict=True)
    return [whole_numbers(g / count, node.args["exponent"] - bundle.exponent(name), of=node.name) for g, name in pairs]


def _gains(node: Node) -> tuple[float, ...]:
    return node.gains or (1.0,) * len(node.inputs)


def _share(bundle: Bundle, step: int) -> float:
    """Return the factor of a saved constant at a step. A constant that enters in equal shares is saved as one share."""
    return 1.0 if len(set(bundle.entry)) == 1 else bundle.entry[step]


_MOVES: dict[str, Callable[..., Array]] = {
    "affine": lambda node, x: x,
    "add": lambda node, a, b: a + b,
    "cat": lambda node, *xs: np.concatenate(xs, node.args["dim"]),
    "stack": lambda node, *xs: np.stack(xs, node.args["dim"]),
    "slice": lambda node, x: x[
        (slice(None),) * (node.args["dim"] % x.ndim) + (slice(node.args["start"], node.args["end"], node.args["step"]),)
    ],
    "select": lambda node, x: np.take(x, node.args["index"], node.args["dim"]),
    "reshape": lambda node, x: x.reshape(1, *node.args["shape"]),
    "permute": lambda node, x: x.transpose(node.args["dims"]),
    "gather": lambda node, x: np.concatenate([np.zeros(int(node.args["zeros"])), x.ravel()])[node.tensors["index"]],
    "mean": lambda node, x: _average(x, tuple(node.args["dim"]), keepdims=node.args["keepdim"]),
    "sum": lambda node, x: _wide(x).sum(tuple(node.args["dim"]), keepdims=node.args["keepdim"]),
}


def _wide(x: Array) -> Array:
    return x if x.dtype.kind == "i" else x.astype(np.float64)


def _average(x: Array, axes: Any, *, keepdims: bool = True) -> Array:
    """Return the mean, but for whole numbers the sum: their factor contains the division."""
    return x.sum(axes, keepdims=keepdims) if x.dtype.kind == "i" else _wide(x).mean(axes, keepdims=keepdims)


def _resample(node: Node) -> Callable[..., Array]:
    """Return the function for an average over windows or for padding.

    Raises:
        ModelError: It is another operator, such as an interpolation.
    """
    name, args = str(node.args["operator"]), node.args["args"]
    if name.startswith("adaptive_avg_pool"):
        return lambda node, x: _adaptive(x, args[0])
    if name.startswith("avg_pool"):
        return lambda node, x: _averages(node, x, int(name[len("avg_pool")]), args)
    if name in ("pad.default", "constant_pad_nd.default") and not any(a for a in args[1:] if a != "constant"):
        pairs = [(a, b) for a, b in zip(args[0][::2], args[0][1::2], strict=True)][::-1]
        return lambda node, x: np.pad(x, [(0, 0)] * (x.ndim - len(pairs)) + pairs)
    raise ModelError(
        f"{node.name}: the NumPy runner does not have the operator {name!r}. Export the network to ONNX, "
        "which may have it."
    )


def _adaptive(x: Array, sizes: Sequence[int]) -> Array:
    """Average over n windows of an axis. Window i reaches from floor(i length / n) to ceil((i + 1) length / n)."""
    found = _wide(x)
    for axis, n in zip(range(x.ndim - len(sizes), x.ndim), sizes, strict=True):
        length = x.shape[axis]
        ends = [(i * length // n, -((-(i + 1) * length) // n)) for i in range(n)]
        parts = [_average(found.take(range(a, b), axis), axis) for a, b in ends]
        found = np.concatenate(parts, axis)
    return found


def _averages(node: Node, x: Array, dims: int, args: Sequence[Any]) -> Array:
    every: list[Any] = [*args, *([], 0, False, True, None)[len(args) - 1 :]]
    kernel, stride, padding, ceil, count, divisor = every
    if ceil or divisor or (not count and np.any(padding)):
        raise ModelError(
            f"{node.name}: the NumPy runner only averages over whole windows, including the zeros of the padding. Pool "
            "without ceil_mode and divisor_override, and with count_include_pad; or export the network to ONNX."
        )
    found = _wide(x)
    for k, axis in enumerate(range(x.ndim - dims, x.ndim)):
        size, pad = (v if isinstance(v, int) else v[k % len(v)] for v in (kernel, padding))
        hop = stride if isinstance(stride, int) else stride[k % len(stride)] if stride else size
        widths = [(0, 0)] * x.ndim
        widths[axis] = (pad, pad)
        found = np.pad(found, widths)
        starts = range(0, found.shape[axis] - size + 1, hop)
        found = np.concatenate([_average(found.take(range(s, s + size), axis), axis) for s in starts], axis)
    return found


# -- weighted ----------------------------------------------------------------------------------------------------------


class _Weighted:
    """An operation with weights: the current is the bias plus the weights of each event's synapses."""

    def __init__(self, node: Node, bundle: Bundle) -> None:
        self.node, self._bundle = node, bundle
        self._weight: Array = node.tensors["weight"].astype(np.float64) * _gains(node)[0]
        self._bias = node.tensors.get("bias")
        self._kind = bundle.dtype
        if bundle.whole:
            exponent, self._kind = int(node.args["exponent"]), np.dtype(np.int64)
            self._weight = whole_numbers(self._weight, exponent - bundle.exponent(node.inputs[0]), of=node.name)
            if self._bias is not None:
                self._bias = whole_numbers(self._bias, exponent, of=node.name)

    def __call__(self, step: int, inputs: Sequence[Array]) -> tuple[Array, int]:
        (x,) = inputs
        events = np.flatnonzero(x)
        current, additions = self.add(events, x.ravel()[events].astype(self._weight.dtype))
        if self._bias is not None:
            share = _share(self._bundle, step)
            current = current + self.spread(self._bias if share == 1 else self._bias * share)
        return current.reshape(1, *self.node.shape).astype(self._kind), additions

    def spread(self, bias: Array) -> Array:
        """Return the bias in a shape that broadcasts against the result of `add`."""
        return bias

    def add(self, events: Array, digits: Array) -> tuple[Array, int]:
        """Return the sum of the events' weights, and how many weights were added."""
        raise NotImplementedError


class _Linear(_Weighted):
    def add(self, events: Array, digits: Array) -> tuple[Array, int]:
        outputs, inputs = self._weight.shape
        rows = math.prod(self.node.shape[:-1])
        arrived = sparse.csr_array((digits, (events // inputs, events % inputs)), shape=(rows, inputs))
        return arrived @ self._weight.T, len(events) * outputs


class _Contraction(_Weighted):
    """Any other sum of products with weights. It is computed as a whole, so each event counts as one addition."""

    def __call__(self, step: int, inputs: Sequence[Array]) -> tuple[Array, int]:
        (x,) = inputs
        found = np.einsum(self.node.args["equation"], x.astype(self._weight.dtype), self._weight, optimize=True)
        return found.astype(self._kind).reshape(1, *self.node.shape), int(np.count_nonzero(x))


class _Convolution(_Weighted):
    """A convolution. Each event adds its weights to the outputs that it reaches through the taps of the kernel."""

    def __init__(self, node: Node, bundle: Bundle) -> None:
        super().__init__(node, bundle)
        args, weight = node.args, self._weight
        self._groups, transposed = int(args["groups"]), bool(args["transposed"])
        kernel, axes = weight.shape[2:], weight.ndim - 2
        self._copies = math.prod(node.shape[: len(node.shape) - axes - 1])
        self._outputs, self._out = node.shape[-axes - 1], node.shape[-axes:]
        source = next(other for other in bundle.nodes if other.name == node.inputs[0])
        self._inputs, self._in = source.shape[-axes - 1], source.shape[-axes:]
        tables = []
        for k in range(axes):
            stride, pad, dilation = (args[key][k] for key in ("stride", "padding", "dilation"))
            place, tap = np.indices((self._in[k], kernel[k]))
            reach = place * stride + tap * dilation - pad if transposed else place + pad - tap * dilation
            target = reach if transposed else np.where(reach % stride == 0, reach // stride, -1)
            tables.append(np.where((target >= 0) & (target < self._out[k]), target, -1))
        reached = np.zeros((*([1] * 2 * axes),), np.int64)  # [place of each axis, tap of each axis]
        valid = np.ones_like(reached, bool)
        for k, table in enumerate(tables):
            shape = [1] * 2 * axes
            shape[k], shape[axes + k] = table.shape
            reached = reached * self._out[k] + np.maximum(table, 0).reshape(shape)
            valid = valid & (table >= 0).reshape(shape)
        self._reached = np.where(valid, reached, -1).reshape(math.prod(self._in), math.prod(kernel))
        # [groups, taps, inputs of a group, outputs of a group]
        each = self._outputs // self._groups
        if transposed:
            weight = weight.reshape(self._groups, -1, each, math.prod(kernel)).transpose(0, 3, 1, 2)
        else:
            weight = weight.reshape(self._groups, each, -1, math.prod(kernel)).transpose(0, 3, 2, 1)
        self._taps = np.ascontiguousarray(weight, self._kind)

    def spread(self, bias: Array) -> Array:
        return bias.reshape(-1, *[1] * len(self._out))

    def add(self, events: Array, digits: Array) -> tuple[Array, int]:
        groups, taps, inputs, outputs = self._taps.shape
        places, area = len(self._reached), math.prod(self._out)
        channel, copy = events // places % self._inputs, events // (places * self._inputs)
        reached = self._reached[events % places]  # [events, taps]
        event, tap = np.nonzero(reached >= 0)
        group, channel = np.divmod(channel[event], inputs)
        row = (copy[event] * area + reached[event, tap]) * groups + group
        column = (group * taps + tap) * inputs + channel  # in the order in which they are added
        shape = (self._copies * area * groups, groups * taps * inputs)
        arrived = sparse.csr_array((digits[event].astype(self._kind), (row, column)), shape=shape)
        current = arrived @ self._taps.reshape(groups * taps * inputs, outputs)
        current = current.reshape(self._copies, area, groups * outputs).swapaxes(1, 2)
        return current.reshape(*self.node.shape), len(event) * outputs


_WEIGHTED: Mapping[str, Callable[[Node, Bundle], Layer]] = {
    "linear": _Linear,
    "contraction": _Contraction,
    "convolution": _Convolution,
}


class _Product:
    """A product of two trains. The current is the change of the product of both running estimates."""

    def __init__(self, node: Node, bundle: Bundle) -> None:
        self.node, self._bundle = node, bundle
        self._held: list[Array] = []
        self._before: Any = 0.0

    def __call__(self, step: int, inputs: Sequence[Array]) -> tuple[Array, int]:
        if step == 0:
            self._held, self._before = [np.zeros(x.shape) for x in inputs], 0.0
        worth = self._bundle.weights[step]
        pairs = zip(self._held, inputs, _gains(self.node), strict=True)
        self._held = [held + worth * gain * x.astype(np.float64) for held, x, gain in pairs]
        product = np.einsum(self.node.args["equation"], *self._held, optimize=True)
        current = (product - self._before) / worth if worth else np.zeros_like(product)
        self._before = product
        additions = int(sum(np.count_nonzero(x) for x in inputs))
        return current.astype(self._bundle.dtype).reshape(1, *self.node.shape), additions
