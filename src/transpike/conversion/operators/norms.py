"""Lowers norms by statistics of each sample, softmax, and similar functions that PyTorch has under several names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.fx import Node

from transpike.conversion.form import Form
from transpike.conversion.lowering import Input, Lowering, Value
from transpike.conversion.operators.arithmetic import affine, batch_norm, mean
from transpike.conversion.operators.functions import call, called
from transpike.conversion.operators.shapes import image, restored

__all__ = ["OPERATORS"]


def native_layer_norm(
    to: Lowering,
    node: Node,
    input: str,
    normalized_shape: list[int],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Value:
    form = to.forms[input]
    if form.axis >= form.ndim - len(normalized_shape):
        return to.mixed(node, [input])
    args: list[Value] = [input, normalized_shape, weight, bias, eps]
    return [call(to, node, "layer_norm.default", args, form=form), None, None]


def group_norm(
    to: Lowering,
    node: Node,
    input: str,
    num_groups: int,
    weight: Input | None = None,
    bias: Input | None = None,
    eps: float = 1e-5,
    **_: Value,
) -> Value:
    """Emit a group norm. Copies that are merged with the samples are groups of their own."""
    form = to.forms[input]
    if form == Form(form.shape):
        return call(to, node, "group_norm.default", [input, num_groups, weight, bias, eps], form=form)
    source = image(to, node, input)
    if source is None:
        return to.mixed(node, [input])
    args: list[Value] = [source, num_groups * form.copies, None, None, eps]
    y = restored(to, node, input, call(to, node, "group_norm.default", args, form=to.forms[source], part="norm"))
    trailing = (1,) * (form.ndim - 2)
    scale, shift = (c.view(-1, *trailing) if isinstance(c, Tensor) else None for c in (weight, bias))
    return affine(to, node, y, scale=scale, shift=shift)


def native_group_norm(
    to: Lowering,
    node: Node,
    input: str,
    weight: Input | None,
    bias: Input | None,
    N: Value,
    C: int,
    HxW: int,
    group: int,
    eps: float,
) -> Value:
    return [group_norm(to, node, input, group, weight, bias, eps), None, None]


def instance_norm(
    to: Lowering,
    node: Node,
    input: str,
    weight: Input | None,
    bias: Input | None,
    running_mean: Input | None,
    running_var: Input | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = False,
) -> Value:
    if not use_input_stats:
        return batch_norm(to, node, input, weight, bias, running_mean, running_var, eps=eps)
    return group_norm(to, node, input, node.meta["val"].shape[1], weight, bias, eps)


def _softmax(to: Lowering, node: Node, input: str, dim: int, half_to_float: bool = False) -> Value:
    return _along(to, node, "softmax.int", input, dim)


def _log_softmax(to: Lowering, node: Node, input: str, dim: int, half_to_float: bool = False) -> Value:
    return _along(to, node, "log_softmax.int", input, dim)


def _along(to: Lowering, node: Node, name: str, x: str, dim: int) -> Value:
    axis = to.forms[x].dim(dim)
    return to.mixed(node, [x]) if axis is None else call(to, node, name, [x, axis])


def variance(to: Lowering, node: Node, input: str, dim: Value = None, **how: Value) -> Value:
    return spread(to, node, "var.correction", input, dim, **how)


def deviation(to: Lowering, node: Node, input: str, dim: Value = None, **how: Value) -> Value:
    return spread(to, node, "std.correction", input, dim, **how)


def variance_and_mean(to: Lowering, node: Node, input: str, dim: Value = None, **how: Value) -> Value:
    return _with_mean(to, node, "var.correction", input, dim, how)


def deviation_and_mean(to: Lowering, node: Node, input: str, dim: Value = None, **how: Value) -> Value:
    return _with_mean(to, node, "std.correction", input, dim, how)


def _with_mean(to: Lowering, node: Node, name: str, x: str, dim: Value, how: dict[str, Value]) -> Value:
    first = spread(to, node, name, x, dim, **how)
    return [first, mean(to, node, x, cast("list[int] | None", dim), bool(how.get("keepdim")))]


def spread(to: Lowering, node: Node, name: str, x: str, dim: Value, **how: Value) -> Value:
    dims = [dim] if isinstance(dim, int) else dim
    form = to.forms[x]
    axes = form.dims(dims) if isinstance(dims, Sequence) else None  # type: ignore[arg-type]
    if axes is None:
        return to.mixed(node, [x])
    correction = how.get("correction", int(bool(how.get("unbiased", True))))
    correction = 1 if correction is None else correction
    return call(to, node, name, [x, axes], {"correction": correction, "keepdim": bool(how.get("keepdim"))})


def rms_norm(to: Lowering, node: Node, input: str, normalized_shape: list[int], weight: Value, eps: Value) -> Value:
    eps = torch.finfo(node.meta["val"].dtype).eps if eps is None else eps
    arguments: dict[str, Value] = {"input": input, "normalized_shape": normalized_shape, "weight": weight, "eps": eps}
    return called(to, node, arguments, [input])


OPERATORS: dict[str, Callable[..., Value]] = {
    "native_layer_norm": native_layer_norm,
    "group_norm": group_norm,
    "native_group_norm": native_group_norm,
    "instance_norm": instance_norm,
    "_softmax": _softmax,
    "_safe_softmax": lambda to, node, input, dim, dtype=None: _softmax(to, node, input, dim),
    "_log_softmax": _log_softmax,
    "var": variance,
    "std": deviation,
    "var_mean": variance_and_mean,
    "std_mean": deviation_and_mean,
    "rms_norm": rms_norm,
}
