"""Lowers sums and differences of activations, arithmetic with constants, BatchNorm and means."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.fx import Node

from transpike.conversion.form import Form
from transpike.conversion.lowering import UNSUPPORTED, Input, Known, Lowering, Value, first_tensor
from transpike.conversion.operators.functions import elementwise
from transpike.conversion.operators.moves import expanded
from transpike.conversion.refusals import why

__all__ = ["OPERATORS", "affine", "batch_norm", "combined", "mean"]


def add(to: Lowering, node: Node, input: Input, other: Input, *, alpha: float = 1) -> Value:
    if isinstance(other, str):
        if isinstance(input, str):
            return combined(to, node, input, other, alpha=alpha)
        return affine(to, node, other, shift=input, scale=alpha)
    return affine(to, node, _activation(input), shift=other * alpha)


def sub(to: Lowering, node: Node, input: Input, other: Input, *, alpha: float = 1) -> Value:
    return add(to, node, input, other, alpha=-alpha)


def rsub(to: Lowering, node: Node, input: Input, other: Input, alpha: float = 1) -> Value:
    return add(to, node, other, input, alpha=-alpha)


def neg(to: Lowering, node: Node, input: str) -> Value:
    return affine(to, node, input, scale=-1.0)


def mul(to: Lowering, node: Node, input: Input, other: Input) -> Value:
    if isinstance(input, str):
        return UNSUPPORTED if isinstance(other, str) else affine(to, node, input, scale=other)
    return affine(to, node, _activation(other), scale=input)


def div(to: Lowering, node: Node, input: Input, other: Input, *, rounding_mode: str | None = None) -> Value:
    if rounding_mode:
        return to.refused(node, [x for x in (input, other) if isinstance(x, str)], why("round"))
    if not isinstance(input, str) and isinstance(other, str):  # a constant over an activation
        value = torch.as_tensor(input, dtype=first_tensor(node).dtype, device=first_tensor(node).device)
        return elementwise(to, node, "div.Tensor", [value, other])
    return UNSUPPORTED if isinstance(other, str) else affine(to, node, _activation(input), scale=1 / other)


def _activation(x: Input) -> str:
    assert isinstance(x, str)
    return x


def addcmul(to: Lowering, node: Node, input: Input, tensor1: Input, tensor2: Input, *, value: float = 1) -> Value:
    """Lower ``addcmul``, which is linear if one of the factors is a constant."""
    constant, x = (tensor1, tensor2) if isinstance(tensor2, str) else (tensor2, tensor1)
    if isinstance(constant, str) or not isinstance(x, str):
        return UNSUPPORTED
    scaled = affine(to, node, x, scale=constant * value)
    if not isinstance(scaled, str):
        return scaled
    return combined(to, node, input, scaled) if isinstance(input, str) else affine(to, node, scaled, shift=input)


def combined(to: Lowering, node: Node, a: str, b: str, *, alpha: float = 1, form: Form | None = None) -> Value:
    """Emit ``a + alpha b``, broadcast."""
    form = form or to.form(first_tensor(node), [a, b])
    if form is None:
        return to.mixed(node, [a, b])
    first, second = to.aligned(node, a, form), to.aligned(node, b, form)
    if first is None or second is None:
        return to.mixed(node, [a, b])
    return to.emit(node, "add", [first, second], value=form, gains=(1.0, float(alpha)))


def affine(
    to: Lowering,
    node: Node,
    x: str,
    *,
    scale: Known | None = None,
    shift: Known | None = None,
    form: Form | None = None,
) -> Value:
    """Emit ``x * scale + shift``. If a constant is wider than ``x``, ``x`` is repeated."""
    result = first_tensor(node)
    form = form or to.form(result, [x])
    source = to.aligned(node, x, form) if form else None
    if form is None or source is None:
        return to.mixed(node, [x])
    tensors: dict[str, Tensor] = {}
    for key, value in (("scale", scale), ("shift", shift)):
        if value is None:
            continue
        tensor = to.fitted(torch.as_tensor(value, dtype=result.dtype, device=result.device), form)
        if tensor is None:
            to.problem(node, "a constant with a batch axis of its own; each sample must be treated alike")
            return x
        if key != "scale" or tensor.numel() > 1 or tensor.item() != 1:
            tensors[key] = tensor
    source = expanded(to, node, source, form)
    return to.emit(node, "affine", [source], value=form, tensors=tensors)


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
    """Emit an affine step with the statistics of training."""
    if isinstance(weight, str) or isinstance(bias, str):
        return UNSUPPORTED
    if not isinstance(running_mean, Tensor) or not isinstance(running_var, Tensor) or training:
        to.problem(
            node, "BatchNorm without running statistics depends on the batch; train with track_running_stats=True"
        )
        return input
    scale = (running_var.double() + eps).rsqrt() * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - running_mean * scale
    form = to.forms[input]
    if form.axis == 1:
        return to.mixed(node, [input])
    tensors = {}
    for key, constant in {"scale": scale, "shift": shift}.items():
        tensor = to.fitted(constant.view(1, -1, *(1,) * (form.ndim - 2)), form)
        assert tensor is not None
        tensors[key] = tensor.to(running_mean.dtype)
    return to.emit(node, "affine", [input], value=form, tensors=tensors)


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
    """Emit the average over axes of a sample."""
    return _reduce(to, node, "mean", input, dim, keepdim)


def sum_(
    to: Lowering, node: Node, input: str, dim: int | Sequence[int] | None = None, keepdim: bool = False, **_: Value
) -> Value:
    return _reduce(to, node, "sum", input, dim, keepdim)


def _reduce(to: Lowering, node: Node, kind: str, x: str, dim: int | Sequence[int] | None, keepdim: bool) -> Value:
    form = to.forms[x]
    own = [dim] if isinstance(dim, int) else dim or range(form.ndim)
    dims = form.dims(list(own))
    if dims is None:
        return to.mixed(node, [x])
    return to.emit(node, kind, [x], args={"dim": dims, "keepdim": keepdim})


OPERATORS: dict[str, Callable[..., Value]] = {
    "add": add,
    "sub": sub,
    "rsub": rsub,
    "neg": neg,
    "mul": mul,
    "div": div,
    "addcmul": addcmul,
    "batch_norm": batch_norm,
    "_native_batch_norm_legit_no_training": decomposed_batch_norm,
    "mean": mean,
    "sum": sum_,
}
