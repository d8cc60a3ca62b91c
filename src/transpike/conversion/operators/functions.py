"""Lowers any function of values to a call: elementwise, over axes, or over the last axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Node

from transpike.coding.function import Argument, Constant, Function, Operand, argument
from transpike.coding.operators import DIMENSIONS, ELEMENTWISE, TRAILING
from transpike.conversion.form import Form
from transpike.conversion.lowering import UNSUPPORTED, Lowering, Value, flat

__all__ = ["call", "called", "elementwise"]


def called(to: Lowering, node: Node, arguments: Mapping[str, Value], values: Sequence[str]) -> Value:
    """Emit ``node`` as a call of its own operator, if a function may contain this operator."""
    name, result = to.full_name(node), node.meta["val"]
    if not isinstance(result, Tensor) or not isinstance(node.target, OpOverload):
        return UNSUPPORTED
    named = {a.name for a in node.target._schema.arguments if a.kwarg_only}
    args = {key: value for key, value in arguments.items() if key not in named}
    kwargs = {key: value for key, value in arguments.items() if key in named}
    if name in ELEMENTWISE:
        return elementwise(to, node, name, list(args.values()), kwargs)
    form, whole = to.forms[values[0]], to.form(result, values)
    if name in DIMENSIONS and len(values) == 1:
        axes = args.get("dim", kwargs.get("dim"))
        own = [axis for axis in flat(axes) if isinstance(axis, int)] or list(range(form.ndim))
        dims = form.dims(own)
        if dims is None or whole is None:
            return to.mixed(node, values)
        translated = dims[0] if isinstance(axes, int) else dims
        args, kwargs = ({**part, "dim": translated} if "dim" in part else part for part in (args, kwargs))
    elif name in TRAILING and len(values) == 1:
        shape = args["normalized_shape"]
        assert isinstance(shape, (list, tuple))
        if form.axis >= form.ndim - len(shape) or whole is None:
            return to.mixed(node, values)
    else:
        return UNSUPPORTED
    return call(to, node, name, list(args.values()), kwargs)


def elementwise(
    to: Lowering, node: Node, name: str, args: Sequence[Value], kwargs: Mapping[str, Value] | None = None
) -> Value:
    """Emit a call of ``name`` on activations and constants that broadcast against each other."""
    names = [value for value in args if isinstance(value, str) and value in to.ops]
    form = to.form(node.meta["val"], names)
    if form is None:
        return to.mixed(node, names)
    placed: list[Value] = []
    for value in args:
        if isinstance(value, str) and value in to.ops:
            value = to.aligned(node, value, form)
        elif isinstance(value, Tensor):
            value = to.fitted(value, form)
            if value is None:
                to.problem(node, "a constant with a batch axis of its own; each sample must be treated alike")
                return names[0]
        else:
            placed.append(value)
            continue
        if value is None:
            return to.mixed(node, names)
        placed.append(value)
    return call(to, node, name, placed, kwargs or {}, form=form)


def call(
    to: Lowering,
    node: Node,
    name: str,
    args: Sequence[Value],
    kwargs: Mapping[str, Value] | None = None,
    *,
    form: Form | None = None,
    part: str = "",
) -> str:
    """Emit an operation of kind ``call``: one operator applied to the graph's values."""
    tensors: dict[str, Tensor] = {}
    inputs: list[str] = []

    def place(value: Value) -> Argument:
        if isinstance(value, Tensor):
            tensors[key := str(len(tensors))] = value
            return Constant(key)
        if isinstance(value, str) and value in to.ops:
            if value not in inputs:
                inputs.append(value)
            return Operand(inputs.index(value))
        return None if isinstance(value, torch.dtype) else argument(value)

    placed = [place(value) for value in args]
    named = {key: place(value) for key, value in (kwargs or {}).items()}
    function = Function.of(name, *placed, operands=len(inputs), **named)
    return to.emit(node, "call", inputs, value=form, part=part, function=function, tensors=tensors)
