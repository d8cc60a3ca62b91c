"""Piecewise linear functions and maxima: what neurons compute."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor
from torch.fx import Node

from transpike.coding.function import Argument, Constant, Function, Operand, argument
from transpike.conversion.lowering import UNSUPPORTED, Lowering, Value

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
    slope = weight.view(-1, *(1,) * (len(to.ops[input].shape) - 1))
    return _call(to, node, input, Function.of("_prelu_kernel.default", X, Constant("slope")), slope=slope)


def clamp(to: Lowering, node: Node, input: str, min: object = None, max: object = None) -> Value:
    bounds: list[Argument] = []
    for bound in (min, max):
        if bound is not None and not isinstance(bound, (int, float)):
            return UNSUPPORTED
        bounds.append(None if bound is None or math.isinf(bound) else float(bound))
    low, high = bounds
    rectified = Function.of("relu.default", X) if low == 0 else Function()
    low = None if low == 0 else low
    clipped = Function() if low is None and high is None else Function.of("clamp.default", X, low, high)
    return _call(to, node, input, rectified.then(clipped))


def hardtanh(to: Lowering, node: Node, input: str, min_val: float, max_val: float) -> Value:
    return clamp(to, node, input, min_val, max_val)


def max_pool(to: Lowering, node: Node, input: str, **how: object) -> Value:
    return _maximum(to, node, input, to.full_name(node).replace("_with_indices", ""), list(how.values()))


def amax(to: Lowering, node: Node, input: str, dim: list[int], keepdim: bool) -> Value:
    return _maximum(to, node, input, "amax.default", [list(dim), keepdim])


def max_(to: Lowering, node: Node, input: str, dim: int | None = None, keepdim: bool = False, **_: object) -> Value:
    if dim is None:
        return UNSUPPORTED
    return _maximum(to, node, input, "amax.default", [[dim], keepdim])


def _maximum(to: Lowering, node: Node, x: str, operator: str, args: list[object]) -> Value:
    function = Function.of(operator, X, *map(argument, args))
    if isinstance(node.meta["val"], Tensor):
        return _call(to, node, x, function)
    if any(reader.args[1] == 1 and reader.users for reader in node.users):
        return to.refused(
            node, [x], "a maximum whose indices are used (unpooling) has no spiking form; interpolate instead"
        )
    return [_call(to, node, x, function), None]


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
}
