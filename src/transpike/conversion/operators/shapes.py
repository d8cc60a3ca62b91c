"""Lowers regular moves of values (reshape, permute, cat, stack, slices) and resampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import Node

from transpike.conversion.form import Form
from transpike.conversion.lowering import UNSUPPORTED, Input, Lowering, Value
from transpike.conversion.operators.arithmetic import affine
from transpike.conversion.operators.moves import move

__all__ = ["OPERATORS", "image", "pad", "permuted", "reshaped", "restored"]


def reshape(to: Lowering, node: Node, input: str, *_: Value, **__: Value) -> Value:
    value = node.meta["val"]
    counted = to.counted(value)
    form = to.forms[input].reshaped(*counted, value.shape) if counted else None
    return to.mixed(node, [input]) if form is None else reshaped(to, node, input, form)


def reshaped(to: Lowering, node: Node, x: str, form: Form) -> str:
    """Emit ``x`` in another form with as many values."""
    if form == to.forms[x]:
        return x
    return to.emit(node, "reshape", [x], value=form, args={"shape": list(form.shape)})


def permute(to: Lowering, node: Node, input: str, dims: list[int]) -> Value:
    return permuted(to, node, input, dims)


def permuted(to: Lowering, node: Node, x: str, dims: Sequence[int]) -> str:
    """Emit ``x`` with the model's own axes in another order."""
    form = to.forms[x]
    order = [d % form.ndim for d in dims]
    axes = [form.dim(d) for d in order]
    own_axes = [axis for axis in axes if axis is not None]
    shape = tuple(form.shape[axis - 1] for axis in own_axes)
    moved = Form(shape, order.index(form.axis), form.outer, form.inner)
    if form.copies > 1:  # the copies are an axis of the graph too
        own_axes = [form.axis + 1 if axis is None else axis for axis in axes]
        moved = Form(tuple(form.shape[axis - 1] for axis in own_axes), moved.axis, form.outer, form.inner)
    return to.emit(node, "permute", [x], value=moved, args={"dims": [0, *own_axes]})


def transpose(to: Lowering, node: Node, input: str, *pair: int, **named: int) -> str:
    dims = list(range(to.forms[input].ndim))
    first, second = pair or named.values() or (0, 1)
    if len(dims) > 1:
        dims[first], dims[second] = dims[second], dims[first]
    return permuted(to, node, input, dims)


def matrix_transpose(to: Lowering, node: Node, input: str) -> str:
    return transpose(to, node, input, -2, -1)


def movedim(to: Lowering, node: Node, input: str, source: int | list[int], destination: int | list[int]) -> str:
    ndim = to.forms[input].ndim
    sources, targets = (
        [d % ndim for d in ([dims] if isinstance(dims, int) else dims)] for dims in (source, destination)
    )
    order = [d for d in range(ndim) if d not in sources]
    for target, own in sorted(zip(targets, sources, strict=True)):
        order.insert(target, own)
    return permuted(to, node, input, order)


def cat(to: Lowering, node: Node, tensors: Sequence[Input], dim: int = 0) -> Value:
    return _join(to, node, "cat", tensors, dim)


def stack(to: Lowering, node: Node, tensors: Sequence[Input], dim: int = 0) -> Value:
    return _join(to, node, "stack", tensors, dim)


def _join(to: Lowering, node: Node, kind: str, tensors: Sequence[Input], dim: int) -> Value:
    names = [t for t in tensors if isinstance(t, str)]
    form = to.form(node.meta["val"], names)
    placed = {(to.forms[name].axis, to.forms[name].outer, to.forms[name].inner) for name in names}
    axis = form.dim(dim) if form else None
    if axis is None or len(placed) > 1:
        return to.mixed(node, names)
    if len(names) < len(tensors):
        return move(to, node)
    return to.emit(node, kind, names, value=form, args={"dim": axis})


def slice_(to: Lowering, node: Node, input: str, dim: int, start: int | None, end: int | None, step: int) -> Value:
    return cut(to, node, node.meta["val"], input, dim, start or 0, end, step)


def narrow(to: Lowering, node: Node, input: str, dim: int, start: int, length: int) -> Value:
    return cut(to, node, node.meta["val"], input, dim, start, start + length, 1)


def cut(
    to: Lowering, node: Node, value: Tensor, x: str, dim: int, start: int, end: int | None, step: int
) -> Value:  # the arguments of aten.slice
    if to.same(value, x):
        return x
    axis = to.forms[x].dim(dim)
    if axis is None:
        return to.mixed(node, [x])
    if any(isinstance(bound, torch.SymInt) for bound in (start, end)):
        return to.refused(node, [x], "slice with a number that depends on the batch or its values; use a constant")
    end = 2**31 if end is None else min(end, 2**31)
    return to.emit(node, "slice", [x], value=value, args={"dim": axis, "start": start, "end": end, "step": step})


def select(to: Lowering, node: Node, input: str, dim: int, index: int) -> Value:
    return _selected(to, node, node.meta["val"], input, dim, index)


def _selected(to: Lowering, node: Node, value: Tensor, x: str, dim: int, index: int) -> Value:
    axis = to.forms[x].dim(dim)
    if axis is None:
        return to.mixed(node, [x])
    return to.emit(node, "select", [x], value=value, args={"dim": axis, "index": index})


def split(to: Lowering, node: Node, input: str, *, dim: int = 0, **_: Value) -> Value:
    if to.forms[input].dim(dim) is None:
        return to.mixed(node, [input])
    parts, start = [], 0
    for value in node.meta["val"]:
        end = start + value.shape[dim]
        parts.append(cut(to, node, value, input, dim, start, end, 1))
        start = end
    return parts


def unbind(to: Lowering, node: Node, input: str, dim: int = 0) -> Value:
    if to.forms[input].dim(dim) is None:
        return to.mixed(node, [input])
    return [_selected(to, node, value, input, dim, k) for k, value in enumerate(node.meta["val"])]


def slice_scatter(
    to: Lowering, node: Node, input: Input, src: Input, dim: int, start: int | None, end: int | None, step: int
) -> Value:
    """Emit ``input`` with a part replaced. This is the result of writing in place into a slice."""
    if isinstance(src, str) and to.same(node.meta["val"], src):
        return src
    if not (isinstance(input, str) and isinstance(src, str)) or step != 1 or to.forms[input].dim(dim) is None:
        return move(to, node)
    axis = to.forms[input].dim(dim)
    assert axis is not None
    size = to.ops[input].shape[axis - 1]
    start, end, _ = slice(start, end).indices(size)
    parts: list[Value] = [src]
    if start:
        parts.insert(0, _part(to, node, input, dim, 0, start))
    if end < size:
        parts.append(_part(to, node, input, dim, end, size))
    return to.emit(node, "cat", [part for part in parts if isinstance(part, str)], args={"dim": axis})


def _part(to: Lowering, node: Node, x: str, dim: int, start: int, end: int) -> Value:
    whole = node.meta["val"]
    return cut(to, node, whole.narrow(dim, start, end - start), x, dim, start, end, 1)


def copy(to: Lowering, node: Node, input: Input, src: Input, **_: Value) -> Value:
    if isinstance(src, str) and to.same(node.meta["val"], src):
        return src
    return UNSUPPORTED


# -- resampling -------------------------------------------------------------------------------------------------------


def image(to: Lowering, node: Node, x: str) -> str | None:
    """Emit ``x`` as images [N, channels, \\*] with copies of samples as channels. None if samples are not first."""
    form = to.forms[x]
    if form.axis or form.ndim < 3 or form.outer > 1:
        return None
    shape = form.shape if form.copies == 1 else (form.shape[0] * form.shape[1], *form.shape[2:])
    return reshaped(to, node, x, Form(shape))


def restored(to: Lowering, node: Node, x: str, y: str) -> str:
    """Emit ``y``, the result for the `image` of ``x``, with copies merged with the samples again."""
    form = to.forms[x]
    shape = (*form.shape[: 1 + (form.copies > 1)], *to.forms[y].shape[1:])
    return reshaped(to, node, y, Form(shape, 0, 1, form.copies))


def pad(to: Lowering, node: Node, x: str, pads: list[int]) -> str:
    """Emit zeros on the sides, as ``torch.nn.functional.pad`` does."""
    form, sizes = to.forms[x], list(to.ops[x].shape)
    for k in range(len(pads) // 2):
        sizes[-1 - k] += pads[2 * k] + pads[2 * k + 1]
    args = {"operator": "constant_pad_nd.default", "args": [pads, 0.0]}
    return to.emit(node, "resample", [x], value=Form(tuple(sizes), form.axis, form.outer, form.inner), args=args)


def padding(to: Lowering, node: Node, input: str, pad: list[int], mode: str = "constant", value: float = 0) -> Value:
    form = to.forms[input]
    if form.axis + len(pad) // 2 >= form.ndim or (mode != "constant" and form != Form(form.shape)):
        return to.mixed(node, [input]) if value else move(to, node)
    padded = resample(to, node, input, pad=pad, mode=mode, value=0.0)
    if not value or not isinstance(padded, str):
        return padded
    shift = F.pad(torch.zeros(form.own(1), device=node.meta["val"].device), pad, value=value)
    return affine(to, node, padded, shift=shift)


def resample(to: Lowering, node: Node, input: str, **how: Value) -> Value:
    pads = to.full_name(node) in ("pad.default", "constant_pad_nd.default")
    if to.full_name(node) == "constant_pad_nd.default":
        del how["mode"]
    source = input if pads else image(to, node, input)
    if source is None:
        return to.mixed(node, [input])
    args = {"operator": to.full_name(node), "args": list(how.values())}
    if source == input:
        return to.emit(node, "resample", [input], args=args)
    form, value = to.forms[source], node.meta["val"]
    y = to.emit(node, "resample", [source], value=Form((form.shape[0], *value.shape[2:])), args=args)
    return restored(to, node, input, y)


RESHAPES = ["view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "squeeze", "unsqueeze", "_unsafe_view"]
RESAMPLES = [
    *(f"{kind}{n}d" for kind in ("avg_pool", "adaptive_avg_pool", "_adaptive_avg_pool") for n in (1, 2, 3)),
    *(f"upsample_{kind}" for kind in ("linear1d", "bilinear2d", "trilinear3d", "bicubic2d")),
    *(f"{kind}{n}d" for kind in ("upsample_nearest", "_upsample_nearest_exact") for n in (1, 2, 3)),
]
OPERATORS: dict[str, Callable[..., Value]] = {
    **dict.fromkeys([*RESHAPES, "view_copy"], reshape),
    **dict.fromkeys(RESAMPLES, resample),
    **dict.fromkeys(["pad", "constant_pad_nd"], padding),
    "permute": permute,
    **dict.fromkeys(["transpose", "swapaxes", "swapdims", "t", "numpy_T"], transpose),
    **dict.fromkeys(["mT", "matrix_H", "adjoint"], matrix_transpose),
    **dict.fromkeys(["movedim", "moveaxis"], movedim),
    **dict.fromkeys(["cat", "concat", "concatenate"], cat),
    "stack": stack,
    "slice": slice_,
    "narrow": narrow,
    "select": select,
    **dict.fromkeys(["split", "split_with_sizes", "chunk", "tensor_split"], split),
    "unbind": unbind,
    "slice_scatter": slice_scatter,
    "copy": copy,
}
