"""Sums and differences of activations, arithmetic with constants, BatchNorm, means."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.fx import Node

from transpike.conversion.lowering import UNSUPPORTED, Input, Known, Lowering, Value, first_tensor

__all__ = ["OPERATORS"]


def add(to: Lowering, node: Node, input: Input, other: Input, *, alpha: float = 1) -> Value:
    if isinstance(other, str):
        if isinstance(input, str):
            return to.emit(node, "add", [input, other], gains=(1.0, float(alpha)))
        return _affine(to, node, other, shift=input, scale=alpha)
    assert isinstance(input, str)
    return _affine(to, node, input, shift=other * alpha)


def sub(to: Lowering, node: Node, input: Input, other: Input, *, alpha: float = 1) -> Value:
    return add(to, node, input, other, alpha=-alpha)


def rsub(to: Lowering, node: Node, input: Input, other: Input, alpha: float = 1) -> Value:
    return add(to, node, other, input, alpha=-alpha)


def neg(to: Lowering, node: Node, input: str) -> Value:
    return _affine(to, node, input, scale=-1.0)


def mul(to: Lowering, node: Node, input: Input, other: Input) -> Value:
    if isinstance(input, str):
        return UNSUPPORTED if isinstance(other, str) else _affine(to, node, input, scale=other)
    assert isinstance(other, str)
    return _affine(to, node, other, scale=input)


def div(to: Lowering, node: Node, input: Input, other: Input, *, rounding_mode: str | None = None) -> Value:
    if not isinstance(input, str) or isinstance(other, str) or rounding_mode:
        return UNSUPPORTED
    return _affine(to, node, input, scale=1 / other)


def _affine(to: Lowering, node: Node, x: str, **constants: Known) -> str:
    result = first_tensor(node)
    if tuple(result.shape[1:]) != to.ops[x].shape:
        to.problem(
            node, f"a constant that widens the activation to {tuple(result.shape)}; repeat the activation instead"
        )
        return x
    tensors: dict[str, Tensor] = {}
    for key, value in constants.items():
        tensor = torch.as_tensor(value, dtype=result.dtype, device=result.device)
        if tensor.ndim == result.ndim:
            if tensor.shape[0] != 1:
                to.problem(node, "a constant with a batch axis of its own; each sample must be treated alike")
            tensor = tensor[0]
        if key != "scale" or tensor.numel() > 1 or tensor.item() != 1:
            tensors[key] = tensor
    return to.emit(node, "affine", [x], tensors=tensors)


def batch_norm(
    to: Lowering,
    node: Node,
    input: str,
    weight: Input | None,
    bias: Input | None,
    running_mean: Input | None,
    running_var: Input | None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn_enabled: bool = False,
) -> Value:
    if isinstance(weight, str) or isinstance(bias, str):
        return UNSUPPORTED
    if not isinstance(running_mean, Tensor) or not isinstance(running_var, Tensor) or training:
        to.problem(
            node, "BatchNorm without running statistics depends on the batch; train with track_running_stats=True"
        )
        return input
    scale = (running_var.double() + eps).rsqrt() * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - running_mean * scale
    trailing = (1,) * (len(to.ops[input].shape) - 1)
    tensors = {"scale": scale.view(-1, *trailing), "shift": shift.view(-1, *trailing)}
    return to.emit(node, "affine", [input], tensors={k: t.to(running_mean.dtype) for k, t in tensors.items()})


def decomposed_batch_norm(
    to: Lowering,
    node: Node,
    input: str,
    weight: Input | None,
    bias: Input | None,
    running_mean: Input | None,
    running_var: Input | None,
    momentum: float,
    eps: float,
) -> Value:
    return [batch_norm(to, node, input, weight, bias, running_mean, running_var, eps=eps), None, None]


def mean(
    to: Lowering, node: Node, input: str, dim: int | Sequence[int] | None = None, keepdim: bool = False, **_: Value
) -> Value:
    return _reduce(to, node, "mean", input, dim, keepdim)


def sum_(
    to: Lowering, node: Node, input: str, dim: int | Sequence[int] | None = None, keepdim: bool = False, **_: Value
) -> Value:
    return _reduce(to, node, "sum", input, dim, keepdim)


def _reduce(to: Lowering, node: Node, kind: str, x: str, dim: int | Sequence[int] | None, keepdim: bool) -> str:
    ndim = len(to.ops[x].shape) + 1
    dims = [dim] if isinstance(dim, int) else dim or range(ndim)
    return to.emit(node, kind, [x], args={"dim": [d % ndim for d in dims], "keepdim": keepdim})


OPERATORS: dict[str, Callable[..., Value]] = {
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
