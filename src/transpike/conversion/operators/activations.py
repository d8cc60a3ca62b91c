"""Piecewise linear functions and maxima: what neurons compute."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.fx import Node

if TYPE_CHECKING:
    from transpike.conversion.lowering import Lowering

__all__ = ["OPERATORS"]


def _activation(
    to: Lowering,
    node: Node,
    x: str,
    *,
    slope: Any = 1.0,
    bounds: tuple[Any, Any] = (None, None),
    pool: dict[str, Any] | None = None,
) -> Any:
    if any(isinstance(bound, (str, Tensor)) for bound in bounds):
        return NotImplemented
    low, high = (None if b is None or math.isinf(b) else float(b) for b in bounds)
    tensors = {"slope": slope} if isinstance(slope, Tensor) else {}
    args = {"slope": 1.0 if tensors else float(slope), "low": low, "high": high, "pool": pool}
    value = node.meta["val"]
    return to.emit(
        node, "activation", [x], value=value if isinstance(value, Tensor) else value[0], args=args, tensors=tensors
    )


def relu(to: Lowering, node: Node, input: str) -> Any:
    return _activation(to, node, input, slope=0.0)


def relu6(to: Lowering, node: Node, input: str) -> Any:
    return clamp(to, node, input, 0, 6)


def leaky_relu(to: Lowering, node: Node, input: str, negative_slope: float) -> Any:
    return _activation(to, node, input, slope=negative_slope)


def prelu(to: Lowering, node: Node, input: str, weight: Any) -> Any:
    if isinstance(weight, str):
        return NotImplemented
    trailing = (1,) * (len(to.ops[input].shape) - 1)
    return _activation(to, node, input, slope=weight.item() if weight.numel() == 1 else weight.view(-1, *trailing))


def clamp(to: Lowering, node: Node, input: str, min: Any = None, max: Any = None) -> Any:
    if isinstance(min, (int, float)) and min == 0:
        return _activation(to, node, input, slope=0.0, bounds=(None, max))
    return _activation(to, node, input, bounds=(min, max))


def hardtanh(to: Lowering, node: Node, input: str, min_val: float, max_val: float) -> Any:
    return clamp(to, node, input, min_val, max_val)


def max_pool(to: Lowering, node: Node, input: str, **how: Any) -> Any:
    pool = {"operator": to.full_name(node).replace("_with_indices", ""), "args": list(how.values())}
    return _maximum(to, node, input, pool)


def amax(to: Lowering, node: Node, input: str, dim: list[int], keepdim: bool) -> Any:
    return _maximum(to, node, input, {"operator": "amax.default", "args": [list(dim), keepdim]})


def max_(to: Lowering, node: Node, input: str, dim: int | None = None, keepdim: bool = False, **_: Any) -> Any:
    if dim is None:
        return NotImplemented
    return _maximum(to, node, input, {"operator": "amax.default", "args": [[dim], keepdim]})


def _maximum(to: Lowering, node: Node, x: str, pool: dict[str, Any]) -> Any:
    if isinstance(node.meta["val"], Tensor):
        return _activation(to, node, x, pool=pool)
    if any(reader.args[1] == 1 and reader.users for reader in node.users):
        return to.refused(
            node, [x], "a maximum whose indices are used (unpooling) has no spiking form; interpolate instead"
        )
    return [_activation(to, node, x, pool=pool), None]


POOLS = [f"{kind}{n}d" for kind in ("max_pool", "adaptive_max_pool") for n in (1, 2, 3)]
OPERATORS: dict[str, Callable[..., Any]] = {
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
