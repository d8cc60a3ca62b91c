"""Sums and differences of activations, arithmetic with constants, BatchNorm, means."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Node

if TYPE_CHECKING:
    from transpike.conversion.lower import Lowering

__all__ = ["OPERATORS"]


def add(to: Lowering, node: Node, input: Any, other: Any, *, alpha: float = 1) -> Any:
    if isinstance(input, str) and isinstance(other, str):
        return to.emit(node, "add", [input, other], gains=(1.0, float(alpha)))
    if isinstance(input, str):
        return _affine(to, node, input, shift=other * alpha)
    return _affine(to, node, other, shift=input, scale=alpha)


def sub(to: Lowering, node: Node, input: Any, other: Any, *, alpha: float = 1) -> Any:
    return add(to, node, input, other, alpha=-alpha)


def rsub(to: Lowering, node: Node, input: Any, other: Any, alpha: float = 1) -> Any:
    return add(to, node, other, input, alpha=-alpha)


def neg(to: Lowering, node: Node, input: str) -> Any:
    return _affine(to, node, input, scale=-1.0)


def mul(to: Lowering, node: Node, input: Any, other: Any) -> Any:
    if isinstance(input, str) and isinstance(other, str):
        return NotImplemented
    x, constant = (input, other) if isinstance(input, str) else (other, input)
    return _affine(to, node, x, scale=constant)


def div(to: Lowering, node: Node, input: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    if isinstance(other, str) or rounding_mode:
        return NotImplemented
    return _affine(to, node, input, scale=1 / other)


def _affine(to: Lowering, node: Node, x: str, **tensors: Any) -> str:
    result: Tensor = node.meta["val"]
    if tuple(result.shape[1:]) != to.ops[x].shape:
        to.problem(
            node, f"a constant that widens the activation to {tuple(result.shape)}; repeat the activation instead"
        )
        return x
    kept = {}
    for key, value in tensors.items():
        tensor = torch.as_tensor(value, dtype=result.dtype, device=result.device)
        if tensor.ndim == result.ndim:
            if tensor.shape[0] != 1:
                to.problem(node, "a constant with a batch axis of its own: each sample must be treated alike")
            tensor = tensor[0]
        if key != "scale" or tensor.numel() > 1 or tensor.item() != 1:
            kept[key] = tensor
    return to.emit(node, "affine", [x], tensors=kept)


def batch_norm(
    to: Lowering, node: Node, input: str, weight: Any, bias: Any, running_mean: Any, running_var: Any, **how: Any
) -> Any:
    if any(isinstance(t, str) for t in (weight, bias, running_mean, running_var)):
        return NotImplemented
    if running_mean is None or how.get("training"):
        to.problem(
            node, "BatchNorm without running statistics depends on the batch; train with track_running_stats=True"
        )
        return input
    scale = (running_var.double() + how["eps"]).rsqrt() * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - running_mean * scale
    trailing = (1,) * (len(to.ops[input].shape) - 1)
    tensors = {"scale": scale.view(-1, *trailing), "shift": shift.view(-1, *trailing)}
    return to.emit(node, "affine", [input], tensors={k: t.to(running_mean.dtype) for k, t in tensors.items()})


def decomposed_batch_norm(to: Lowering, node: Node, input: str, **rest: Any) -> Any:
    return [batch_norm(to, node, input, **rest), None, None]


def mean(to: Lowering, node: Node, input: str, dim: Any = None, keepdim: bool = False, **_: Any) -> Any:
    return _reduce(to, node, "mean", input, dim, keepdim)


def sum_(to: Lowering, node: Node, input: str, dim: Any = None, keepdim: bool = False, **_: Any) -> Any:
    return _reduce(to, node, "sum", input, dim, keepdim)


def _reduce(to: Lowering, node: Node, kind: str, x: str, dim: Any, keepdim: bool) -> str:
    ndim = len(to.ops[x].shape) + 1
    dims = [dim] if isinstance(dim, int) else dim or range(ndim)
    return to.emit(node, kind, [x], args={"dim": [d % ndim for d in dims], "keepdim": keepdim})


OPERATORS: dict[str, Callable[..., Any]] = {
    "add": add,
    "sub": sub,
    "subtract": sub,
    "rsub": rsub,
    "neg": neg,
    "mul": mul,
    "multiply": mul,
    "div": div,
    "divide": div,
    "batch_norm": batch_norm,
    "_native_batch_norm_legit_no_training": decomposed_batch_norm,
    "mean": mean,
    "sum": sum_,
}
