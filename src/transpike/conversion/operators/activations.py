"""Lowers piecewise linear functions and maxima, which neurons compute."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor
from torch.fx import Node

from transpike.coding.function import Argument, Constant, Function, Operand, argument
from transpike.conversion.form import Form
from transpike.conversion.lowering import UNSUPPORTED, Input, Lowering, Value, first_tensor
from transpike.conversion.operators.functions import elementwise
from transpike.conversion.operators.shapes import image, restored

__all__ = ["OPERATORS"]

X = Operand(0)


def _call(to: Lowering, node: Node, x: str, function: Function, **tensors: Tensor) -> str:
    return to.emit(node, "call", [x], function=function, tensors=tensors)


def relu(to: Lowering, node: Node, input: str) -> Value:
    return _call(to, node, input, Function.of("relu.default", X))


def relu6(to: Lowering, node: Node, input: str) -> Value:
    return clamp(to, node, input, 0, 6)


def leaky_relu(to: Lowering, node: Node, input: str, negative_slope: float) -> Value:
    return _call(to, node, input, Function.of("leaky_relu.default", X, float(negative_slope)))


def prelu(to: Lowering, node: Node, input: str, weight: Tensor | str) -> Value:
    if isinstance(weight, str):
        return UNSUPPORTED
    if weight.numel() == 1:
        return leaky_relu(to, node, input, weight.item())
    form = to.forms[input]
    slope = to.fitted(weight.view(1, -1, *(1,) * (form.ndim - 2)), form) if form.axis != 1 else None
    if slope is None:
        return to.mixed(node, [input])
    return _call(to, node, input, Function.of("_prelu_kernel.default", X, Constant("slope")), slope=slope)


def rrelu(
    to: Lowering, node: Node, input: str, lower: float, upper: float, training: bool = False, **_: Value
) -> Value:
    return UNSUPPORTED if training else leaky_relu(to, node, input, (lower + upper) / 2)


def threshold(to: Lowering, node: Node, input: str, threshold: float, value: float) -> Value:
    return relu(to, node, input) if threshold == value == 0 else UNSUPPORTED


def clamp(to: Lowering, node: Node, input: Input, min: Value = None, max: Value = None) -> Value:
    bounds: list[Argument] = []
    for bound in (min, max):
        number = _number(bound)
        if number is None and bound is not None:
            return elementwise(to, node, "clamp.Tensor", [input, min, max])
        bounds.append(None if number is None or math.isinf(number) else number)
    if not isinstance(input, str):
        return UNSUPPORTED
    low, high = bounds
    rectified = Function.of("relu.default", X) if low == 0 else Function()
    low = None if low == 0 else low
    clipped = Function() if low is None and high is None else Function.of("clamp.default", X, low, high)
    return _call(to, node, input, rectified.then(clipped))


def _number(bound: Value) -> float | None:
    """Return a bound that is one number. A bound of a trained clip may be a tensor with one value."""
    if isinstance(bound, Tensor) and bound.numel() == 1:
        return float(bound)
    return float(bound) if isinstance(bound, (int, float)) else None


def maximum(to: Lowering, node: Node, input: Input, other: Input) -> Value:
    return _bounded(to, node, input, other, "min")


def minimum(to: Lowering, node: Node, input: Input, other: Input) -> Value:
    return _bounded(to, node, input, other, "max")


def _bounded(to: Lowering, node: Node, a: Input, b: Input, side: str) -> Value:
    """Return the larger or the smaller of two values. This is a clip if one of them is a number."""
    x, bound = (a, b) if isinstance(a, str) else (b, a)
    if isinstance(x, str) and not isinstance(bound, str) and _number(bound) is not None:
        return clamp(to, node, x, min=bound) if side == "min" else clamp(to, node, x, max=bound)
    return elementwise(to, node, "maximum.default" if side == "min" else "minimum.default", [a, b])


def hardtanh(to: Lowering, node: Node, input: str, min_val: float, max_val: float) -> Value:
    return clamp(to, node, input, min_val, max_val)


def max_pool(to: Lowering, node: Node, input: str, **how: Value) -> Value:
    source = image(to, node, input)
    if source is None:
        return to.mixed(node, [input])
    name = to.full_name(node).replace("_with_indices", "")
    return _maximum(to, node, input, source, Function.of(name, X, *map(argument, how.values())))


def amax(to: Lowering, node: Node, input: str, dim: Sequence[int], keepdim: bool) -> Value:
    dims = to.forms[input].dims(list(dim) or range(to.forms[input].ndim))
    if dims is None:
        return to.mixed(node, [input])
    return _maximum(to, node, input, input, Function.of("amax.default", X, argument(dims), keepdim))


def max_(
    to: Lowering, node: Node, input: Input, other: Input = "", dim: int | None = None, keepdim: bool = False, **_: Value
) -> Value:
    if isinstance(other, Tensor) or other != "" or not isinstance(input, str):
        return maximum(to, node, input, other)
    return amax(to, node, input, [] if dim is None else [dim], keepdim)


def min_(
    to: Lowering, node: Node, input: Input, other: Input = "", dim: int | None = None, keepdim: bool = False, **_: Value
) -> Value:
    if isinstance(other, Tensor) or other != "":
        return minimum(to, node, input, other)
    return UNSUPPORTED


def _maximum(to: Lowering, node: Node, x: str, source: str, function: Function) -> Value:
    several = not isinstance(node.meta["val"], Tensor)
    if several and any(reader.args[1] == 1 and reader.users for reader in node.users):
        return to.refused(
            node, [x], "a maximum whose indices are used (unpooling) has no spiking form; interpolate instead"
        )
    if source == x:
        result = _call(to, node, x, function)
    else:
        form, value = to.forms[source], first_tensor(node)
        y = to.emit(node, "call", [source], value=Form((form.shape[0], *value.shape[2:])), function=function)
        result = restored(to, node, x, y)
    return [result, None] if several else result


POOLS = [f"{kind}{n}d" for kind in ("max_pool", "adaptive_max_pool") for n in (1, 2, 3)]
OPERATORS: dict[str, Callable[..., Value]] = {
    "relu": relu,
    "relu6": relu6,
    "leaky_relu": leaky_relu,
    "prelu": prelu,
    "_prelu_kernel": prelu,
    "clamp": clamp,
    "clip": clamp,
    "clamp_min": clamp,
    "clamp_max": clamp,
    "hardtanh": hardtanh,
    **dict.fromkeys([*POOLS, "max_pool2d_with_indices", "max_pool3d_with_indices"], max_pool),
    "amax": amax,
    "max": max_,
    "min": min_,
    "maximum": maximum,
    "minimum": minimum,
    "rrelu": rrelu,
    "threshold": threshold,
}
