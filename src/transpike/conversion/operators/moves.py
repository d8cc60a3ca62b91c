"""Lowers operators that only move or repeat a sample's values, or put constants between them: as an index.

The index is found by running the operator on numbers that name the source of each value. This is done for two samples
at once, so that an operator which mixes samples is noticed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from transpike.conversion.form import Form
from transpike.conversion.lowering import UNSUPPORTED, Lowering, Value, flat

__all__ = ["MOVES", "OPERATORS", "expanded", "move"]

MOVES = (
    *("roll", "flip", "fliplr", "flipud", "rot90", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle"),
    *("native_channel_shuffle", "repeat", "tile", "repeat_interleave", "index", "index_select", "gather"),
    *("take_along_dim", "unfold", "unfold_copy", "im2col", "as_strided", "expand", "expand_as", "broadcast_to"),
    *("diagonal", "diag_embed", "select_scatter", "index_put", "index_copy", "tril", "triu", "hstack", "vstack"),
    *("dstack", "column_stack", "atleast_3d"),
    *(f"{kind}_pad{n}d" for kind in ("reflection", "replication") for n in (1, 2, 3)),
)


def move(to: Lowering, node: Node, **_: Value) -> Value:
    """Emit ``node`` as one gathering by index, plus a constant if the operator puts constants."""
    names = [to.env[source] for source in node.all_input_nodes]
    inputs = list(dict.fromkeys(name for name in names if isinstance(name, str)))
    value = node.meta["val"]
    counted = to.counted(value) if isinstance(value, Tensor) else None
    if counted is None:
        return to.mixed(node, inputs) if isinstance(value, Tensor) else UNSUPPORTED
    like = to.form(value, inputs)
    sizes = {name: math.prod(to.ops[name].shape) for name in inputs}
    total = sum(sizes.values())
    codes, start = {}, 1
    for name, size in sizes.items():
        code = torch.arange(start, start + size, dtype=torch.float64).view(to.ops[name].shape)
        codes[name] = to.forms[name].back(torch.stack([code, code + total]))
        start += size
    blank = {name: torch.zeros(to.forms[name].own(2), dtype=torch.float64) for name in inputs}
    try:
        moved = _run(to, node, codes, constants=False)
        constant = _run(to, node, blank, constants=True)
    except (RuntimeError, TypeError, IndexError, NotImplementedError):
        return UNSUPPORTED
    for form in [like] if like else Form.merged(*counted, value.shape):  # the operator itself merges copies
        (first, second), (shift, other) = form.front(moved), form.front(constant)
        alike = torch.equal(first + total * (first > 0), second) and torch.equal(shift, other)
        if alike and bool((first <= total).all()):
            return _gathered(to, node, inputs, form, first.long(), shift, _recipe(to, node, inputs, form))
    return to.mixed(node, inputs)


def _run(to: Lowering, node: Node, values: dict[str, Tensor], *, constants: bool) -> Tensor:
    """Run the operator on ``values`` for two samples. Its floating-point constants are zeros unless ``constants``."""

    def value(source: Node) -> Any:
        env_value = to.env[source]
        if isinstance(env_value, str):
            return values[env_value]
        if isinstance(env_value, torch.SymInt):
            return to.size(env_value, 2)
        if not isinstance(env_value, Tensor):
            return env_value
        env_value = _twice(to, source, env_value)
        if not env_value.is_floating_point():
            return env_value.cpu()
        return env_value.double().cpu() if constants else torch.zeros(env_value.shape, dtype=torch.float64)

    args, kwargs = map_arg((node.args, node.kwargs), value)
    assert callable(node.target)
    result: Tensor = node.target(*args, **kwargs)
    return result.double()


def _twice(to: Lowering, source: Node, constant: Tensor) -> Tensor:
    """Return a constant for two samples from the constant for one."""
    counted = to.counted(source.meta["val"])
    if counted is None:
        return constant
    axis, copies = counted
    form = Form(
        (*constant.shape[:axis], *((copies,) if copies > 1 else ()), *constant.shape[axis + 1 :]), axis, 1, copies
    )
    return form.back(form.front(constant).expand(2, *form.shape))


def _recipe(to: Lowering, node: Node, inputs: list[str], form: Form) -> dict[str, object]:
    """Return how to compute the index at another image size: the operator, if it moves one sample's values alone."""
    plain = len(inputs) == 1 and to.forms[inputs[0]] == Form(to.forms[inputs[0]].shape) and form == Form(form.shape)
    source, *args = node.args or (None,)
    only_numbers = not node.kwargs and all(isinstance(value, (int, float)) for value in flat(args))
    if not (plain and only_numbers and isinstance(source, Node) and to.env[source] == inputs[0]):
        return {}
    return {"move": [Lowering.full_name(node), [list(a) if isinstance(a, (list, tuple)) else a for a in args]]}


def _gathered(
    to: Lowering, node: Node, inputs: list[str], form: Form, index: Tensor, shift: Tensor, recipe: dict[str, object]
) -> Value:
    x = inputs[0]
    if len(inputs) > 1:
        sizes = [math.prod(to.ops[name].shape) for name in inputs]
        flat = [to.emit(node, "reshape", [n], value=Form((k,)), part="reshape", args={"shape": [k]})
                for n, k in zip(inputs, sizes, strict=True)]  # fmt: skip
        x = to.emit(node, "cat", flat, value=Form((sum(sizes),)), part="cat", args={"dim": 1})
    size, zeros = math.prod(to.ops[x].shape), bool((index == 0).any())
    if not zeros and index.numel() == size and torch.equal(index.flatten(), torch.arange(1, size + 1)):
        result = (
            x if form == to.forms[x] else to.emit(node, "reshape", [x], value=form, args={"shape": list(form.shape)})
        )
    else:
        device = node.meta["val"].device
        tensors = {"index": (index.flatten() if zeros else index.flatten() - 1).to(device)}
        result = to.emit(
            node, "gather", [x], value=form, args={"size": size, "zeros": zeros, **recipe}, tensors=tensors
        )
    if bool((shift == 0).all()):
        return result
    constant = shift.to(node.meta["val"])
    return to.emit(node, "affine", [result], value=form, part="constant", tensors={"shift": constant})


def expanded(to: Lowering, node: Node, x: str, form: Form) -> str:
    """Emit ``x`` repeated along axes of one, up to ``form``."""
    source = to.ops[x].shape
    if source == form.shape:
        return x
    index = torch.arange(math.prod(source)).view(source).expand(form.shape)
    tensors = {"index": index.flatten().to(node.meta["val"].device)}
    args: dict[str, object] = {"size": math.prod(source), "zeros": False}
    args["move"] = ["expand.default", [[-1, *form.shape]]]
    return to.emit(node, "gather", [x], value=form, part="expand", args=args, tensors=tensors)


def constant_like(to: Lowering, node: Node, **_: Value) -> Value:
    """Return a constant with an activation's shape, for one sample."""

    def value(source: Node) -> Any:
        env_value = to.env[source]
        if isinstance(env_value, str):
            return torch.zeros(
                to.forms[env_value].own(1), dtype=source.meta["val"].dtype, device=source.meta["val"].device
            )
        return to.size(env_value, 1) if isinstance(env_value, torch.SymInt) else env_value

    args, kwargs = map_arg((node.args, node.kwargs), value)
    assert callable(node.target)
    result: Value = node.target(*args, **kwargs)
    return result


OPERATORS: dict[str, Callable[..., Value]] = {
    **dict.fromkeys(MOVES, move),
    **dict.fromkeys((f"new_{name}" for name in ("zeros", "ones", "full", "empty")), constant_like),
    **dict.fromkeys((f"{name}_like" for name in ("zeros", "ones", "full", "empty")), constant_like),
}
