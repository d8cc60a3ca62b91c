"""Operators with weights: linear maps and convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.fx import Node

from transpike.conversion.operators.shapes import pad

if TYPE_CHECKING:
    from transpike.conversion.lower import Lowering

__all__ = ["OPERATORS"]


def linear(to: Lowering, node: Node, input: Any, weight: Any, bias: Any = None) -> Any:
    if isinstance(input, Tensor) or isinstance(weight, str) or isinstance(bias, str):
        return NotImplemented
    return to.emit(node, "linear", [input], tensors=_given(weight=weight, bias=bias))


def matmul(to: Lowering, node: Node, input: Any, other: Any) -> Any:
    if isinstance(input, Tensor) or isinstance(other, str) or other.ndim != 2:
        return NotImplemented
    return to.emit(node, "linear", [input], tensors={"weight": other.T})


def mm(to: Lowering, node: Node, input: Any, mat2: Any) -> Any:
    return matmul(to, node, input, mat2)


def addmm(to: Lowering, node: Node, input: Any, mat1: Any, mat2: Any, *, beta: float, alpha: float) -> Any:
    if isinstance(input, str) or isinstance(mat1, Tensor) or isinstance(mat2, str):
        return NotImplemented
    bias = (input * beta).expand(mat2.shape[1])
    return to.emit(node, "linear", [mat1], tensors={"weight": mat2.T * alpha, "bias": bias})


def conv(to: Lowering, node: Node, input: Any, weight: Any, bias: Any, **how: Any) -> Any:
    """A convolution, transposed if it has an ``output_padding``."""
    if isinstance(input, Tensor) or isinstance(weight, str) or isinstance(bias, str):
        return NotImplemented
    n = weight.ndim - 2
    if len(to.ops[input].shape) != n + 1:
        to.problem(node, "a convolution without a batch axis; pass it images [N, channels, *]")
        return input
    padding, dilation = how["padding"], _tuple(how["dilation"], n)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        padding = [p // 2 for p in total]
        if any(p % 2 for p in total):
            input = pad(to, node, input, [side for p in reversed(total) for side in (p // 2, p - p // 2)])
            padding = 0
    args = {
        "stride": _tuple(how["stride"], n),
        "padding": _tuple(0 if padding == "valid" else padding, n),
        "dilation": dilation,
        "transposed": "output_padding" in how,
        "output_padding": _tuple(how.get("output_padding", 0), n),
        "groups": how["groups"],
    }
    return to.emit(node, "convolution", [input], args=args, tensors=_given(weight=weight, bias=bias))


def convolution(to: Lowering, node: Node, input: Any, weight: Any, bias: Any, *, transposed: bool, **how: Any) -> Any:
    if not transposed:
        how.pop("output_padding")
    return conv(to, node, input, weight, bias, **how)


def _tuple(value: int | list[int], n: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * n if len(values) == 1 else values


def _given(**tensors: Tensor | None) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in tensors.items() if tensor is not None}


OPERATORS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys([f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)], conv),
    "convolution": convolution,
    "linear": linear,
    "matmul": matmul,
    "mm": mm,
    "addmm": addmm,
}
