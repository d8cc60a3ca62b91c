"""Operators that move values about: reshape, permute, cat, stack, slices, padding and resampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.fx import Node

from transpike.conversion.lowering import UNSUPPORTED, Input, Lowering, Value

__all__ = ["OPERATORS", "pad"]


def reshape(to: Lowering, node: Node, input: str, *_: Value, **__: Value) -> str:
    shape = list(node.meta["val"].shape[1:])
    same = shape == list(to.ops[input].shape) and to.counts_samples(node.meta["val"])
    return input if same else to.emit(node, "reshape", [input], args={"shape": shape})


def expand(to: Lowering, node: Node, input: str, **_: Value) -> Value:
    return input if tuple(node.meta["val"].shape[1:]) == to.ops[input].shape else UNSUPPORTED


def permute(to: Lowering, node: Node, input: str, dims: list[int]) -> str:
    return to.emit(node, "permute", [input], args={"dims": [d % len(dims) for d in dims]})


def transpose(to: Lowering, node: Node, input: str, *pair: int, **named: int) -> str:
    first, second = pair or named.values()
    dims = list(range(node.meta["val"].ndim))
    dims[first], dims[second] = dims[second], dims[first]
    return permute(to, node, input, dims)


def cat(to: Lowering, node: Node, tensors: Sequence[Input], dim: int = 0) -> str:
    return _join(to, node, "cat", tensors, dim)


def stack(to: Lowering, node: Node, tensors: Sequence[Input], dim: int = 0) -> str:
    return _join(to, node, "stack", tensors, dim)


def _join(to: Lowering, node: Node, kind: str, tensors: Sequence[Input], dim: int) -> str:
    names = [t for t in tensors if isinstance(t, str)]
    if len(names) < len(tensors):
        to.problem(node, f"{kind} of an activation with a constant; add the constant to a padded activation instead")
    return to.emit(node, kind, names, args={"dim": dim % node.meta["val"].ndim})


def slice_(to: Lowering, node: Node, input: str, dim: int, start: int | None, end: int | None, step: int) -> str:
    return cut(to, node, node.meta["val"], input, dim, start or 0, end, step)


def narrow(to: Lowering, node: Node, input: str, dim: int, start: int, length: int) -> str:
    return cut(to, node, node.meta["val"], input, dim, start, start + length, 1)


def cut(
    to: Lowering, node: Node, value: Tensor, x: str, dim: int, start: int, end: int | None, step: int
) -> str:  # the arguments of aten.slice
    dim %= value.ndim
    if tuple(value.shape[1:]) == to.ops[x].shape and (dim or to.counts_samples(value)):
        return x
    end = 2**31 if end is None else min(end, 2**31)
    return to.emit(node, "slice", [x], value=value, args={"dim": dim, "start": start, "end": end, "step": step})


def select(to: Lowering, node: Node, input: str, dim: int, index: int) -> str:
    dim %= len(to.ops[input].shape) + 1
    return to.emit(node, "select", [input], args={"dim": dim, "index": index})


def split(to: Lowering, node: Node, input: str, *, dim: int, **_: Value) -> list[str]:
    parts, start = [], 0
    for value in node.meta["val"]:
        end = start + value.shape[dim]
        parts.append(cut(to, node, value, input, dim, start, end, 1))
        start = end
    return parts


def unbind(to: Lowering, node: Node, input: str, dim: int) -> list[str]:
    dim %= len(to.ops[input].shape) + 1
    values = enumerate(node.meta["val"])
    return [to.emit(node, "select", [input], value=v, args={"dim": dim, "index": k}) for k, v in values]


def slice_scatter(
    to: Lowering, node: Node, input: Input, src: Input, dim: int, start: int | None, end: int | None, step: int
) -> Value:
    """``input`` with a part replaced, which is what writing in place into a slice comes to."""
    if not (isinstance(input, str) and isinstance(src, str)):
        return UNSUPPORTED
    whole, part = to.ops[input].shape, to.ops[src].shape
    if whole == part:
        return src
    if dim == 0 or step != 1:
        return UNSUPPORTED
    size = whole[dim - 1]
    start, end, _ = slice(start, end).indices(size)
    parts = [src]
    if start:
        parts.insert(0, _part(to, node, input, dim, 0, start))
    if end < size:
        parts.append(_part(to, node, input, dim, end, size))
    return to.emit(node, "cat", parts, args={"dim": dim})


def _part(to: Lowering, node: Node, x: str, dim: int, start: int, end: int) -> str:
    whole = node.meta["val"]
    return cut(to, node, whole.narrow(dim, start, end - start), x, dim, start, end, 1)


def select_scatter(to: Lowering, node: Node, input: Input, src: Input, dim: int, index: int) -> Value:
    whole: Tensor = node.meta["val"]
    dim %= whole.ndim
    if dim == 0 or not isinstance(src, str):
        return UNSUPPORTED
    index %= whole.shape[dim]
    row = whole.narrow(dim, index, 1)
    src = to.emit(node, "reshape", [src], value=row, args={"shape": list(row.shape[1:])})
    return slice_scatter(to, node, input, src, dim, index, index + 1, 1)


def copy(to: Lowering, node: Node, input: Input, src: Input, **_: Value) -> Value:
    if isinstance(src, str) and tuple(node.meta["val"].shape[1:]) == to.ops[src].shape:
        return src
    return UNSUPPORTED


def pad(to: Lowering, node: Node, x: str, pads: list[int]) -> str:
    """Zeros on the sides, as ``torch.nn.functional.pad``."""
    sizes = list(to.ops[x].shape)
    for k in range(len(pads) // 2):
        sizes[-1 - k] += pads[2 * k] + pads[2 * k + 1]
    padded = node.meta["val"].new_empty(node.meta["val"].shape[0], *sizes)
    args = {"operator": "constant_pad_nd.default", "args": [pads, 0.0]}
    return to.emit(node, "resample", [x], value=padded, args=args)


def resample(to: Lowering, node: Node, input: str, **how: Value) -> str:
    if how.get("mode", "constant") == "constant" and how.get("value"):
        to.problem(node, f"padding with {how['value']}; use zeros, or the reflect, replicate, circular modes")
    return to.emit(node, "resample", [input], args={"operator": to.full_name(node), "args": list(how.values())})


RESHAPES = ["view", "view_as", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "_unsafe_view", "view_copy"]
RESAMPLES = [
    *(f"{kind}{n}d" for kind in ("avg_pool", "adaptive_avg_pool", "_adaptive_avg_pool") for n in (1, 2, 3)),
    *(f"upsample_{kind}" for kind in ("linear1d", "bilinear2d", "trilinear3d", "bicubic2d")),
    *(f"{kind}{n}d" for kind in ("upsample_nearest", "_upsample_nearest_exact") for n in (1, 2, 3)),
    *("pad", "constant_pad_nd"),
]
OPERATORS: dict[str, Callable[..., Value]] = {
    **dict.fromkeys(RESHAPES, reshape),
    **dict.fromkeys(RESAMPLES, resample),
    "expand": expand,
    "permute": permute,
    "transpose": transpose,
    "swapaxes": transpose,
    "cat": cat,
    "concat": cat,
    "concatenate": cat,
    "stack": stack,
    "slice": slice_,
    "narrow": narrow,
    "select": select,
    **dict.fromkeys(["split", "split_with_sizes", "chunk"], split),
    "unbind": unbind,
    "slice_scatter": slice_scatter,
    "select_scatter": select_scatter,
    "copy": copy,
}
