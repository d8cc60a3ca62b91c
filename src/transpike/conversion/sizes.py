"""One conversion for images of any size: finds the numbers of a graph that depend on it, and computes other graphs.

A graph contains shapes and other numbers for the size at which it was traced. The network is traced at a second size,
on shapes alone. A number that differs there is written as a rule: a product of axes of an earlier operation. The graph
that these rules give at the second size must equal the traced one in every number. Otherwise the size is fixed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from transpike.coding.function import Function
from transpike.conversion.graph import Graph
from transpike.conversion.kinds import apply, title
from transpike.conversion.op import Follow, Op
from transpike.conversion.operators.moves import MOVES
from transpike.errors import ConversionError

__all__ = ["at", "sized"]

_MOST, _STEPS = 32, (2, 4, 8, 16)
"""If sizes cannot differ by any number, they may differ by multiples of one of these: the smallest that works."""
LARGEST = 2**30
"""The largest number of values of one image in all operations together. A larger one is surely a mistake."""


class _Fixed(Exception):
    """Raised for something that cannot follow the size of the image."""


def sized(graph: Graph, traced: Callable[[tuple[int, ...]], Graph]) -> Graph:
    """Return ``graph`` with rules for the numbers that depend on the size of the image, if it can have another size.

    Args:
        graph: a graph with its neurons.
        traced: returns the same graph for images of another shape. It raises ConversionError if there is none.
    """
    if len(graph.input.shape) == 1 and any(op.kind == "linear" for op in graph.consumers.get(graph.input.name, ())):
        return replace(graph, fixed="its first layer is linear")
    result = _stepped(graph, traced, 1)
    if isinstance(result, Graph):
        return result
    result = _stepped(graph, traced, _MOST)
    if isinstance(result, str):
        return replace(graph, fixed=result)
    less = (_stepped(graph, traced, step) for step in _STEPS)
    return next((each for each in less if isinstance(each, Graph)), result)


def _stepped(graph: Graph, traced: Callable[[tuple[int, ...]], Graph], step: int) -> Graph | str:
    """Return ``graph`` with rules for sizes that differ by multiples of ``step``, or the reason why it has none."""
    shape = graph.input.shape
    first = _channels(shape)
    if step == 1:  # one more than a multiple, because halving rounds up and down differently at every level
        sizes = [n // 32 * 32 + 33 + 32 * k for k, n in enumerate(shape[first:])]
    else:
        sizes = [n + step * (2 * k + 1) for k, n in enumerate(shape[first:])]
    try:
        other = traced((*shape[:first], *sizes))
        result = replace(_following(graph, other), step=step)
        return _difference(at(result, other.input.shape), other) or result
    except (ConversionError, _Fixed) as error:
        _, model, reason = str(error).partition("\n")[0].rpartition("torch.export says: ")
        return f"the model itself does not run at another size ({reason[:200].rstrip('.')})" if model else reason[:200]


def _channels(shape: Sequence[int]) -> int:
    """Return the number of axes of a sample before those of its size."""
    return min(1, len(shape) - 1)


def at(graph: Graph, shape: Sequence[int]) -> Graph:
    """Return ``graph`` for images of another shape.

    Raises:
        ConversionError: It cannot have this size, or its operations at another size are not known.
    """
    shape, own = tuple(shape), graph.input.shape
    if shape == own:
        return graph
    fixed = [axis for axis in range(len(own)) if axis < _channels(own) or not graph.step]
    ready = len(shape) == len(own) and all(
        n == m for k, (n, m) in enumerate(zip(shape, own, strict=True)) if k in fixed
    )
    if not ready or any((n - m) % (graph.step or 1) for n, m in zip(shape, own, strict=True)) or min(shape) < 1:
        raise ConversionError(_refusal(graph, shape))
    ops: dict[str, Op] = {}
    values: dict[str, Tensor] = {}
    total = 0
    for op in graph:
        try:
            new = _at(graph, op, ops, shape)
            inputs = [values[name] for name in op.inputs] or [torch.empty(2, *shape, device="meta")]
            own_tensors = {key: tensor.to("meta") for key, tensor in new.tensors.items()}
            value = apply(new, own_tensors, *(x.to(_dtype(op, x)) for x in inputs))
        except (RuntimeError, ValueError, IndexError, KeyError, TypeError, _Fixed) as error:
            reason = str(error).partition("\n")[0][:200]
            raise ConversionError(
                f"images of shape {list(shape)} do not go through {op.name} ({title(op)}): {reason}"
            ) from None
        ops[op.name], values[op.name] = replace(new, shape=tuple(value.shape[1:])), value
        total += value[0].numel()
        if total > LARGEST:
            raise ConversionError(f"images of shape {list(shape)} make {total:,} values or more. Use smaller images.")
    return replace(graph, ops=tuple(ops.values()))


def _dtype(op: Op, x: Tensor) -> torch.dtype:
    dtypes = [tensor.dtype for tensor in op.tensors.values() if tensor.is_floating_point()]
    return dtypes[0] if dtypes and x.is_floating_point() else x.dtype


def _refusal(graph: Graph, shape: Sequence[int]) -> str:
    expected = ", ".join(map(str, graph.input.shape))
    message = f"the network expects images [N, {expected}] as in calibration, not [N, {', '.join(map(str, shape))}]"
    if graph.step > 1:
        return f"{message}, or with sides that differ from these by multiples of {graph.step}"
    return f"{message}; its size is fixed: {graph.fixed}" if graph.fixed else message


# -- rules for another size -------------------------------------------------------------------------------------------


def _plain(op: Op) -> dict[str, Any]:
    """Return the numbers of an operation as lists, which may be changed."""
    return {"args": _lists(op.args), "function": op.function.written()}


def _lists(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


def _at(graph: Graph, op: Op, made: Mapping[str, Op], shape: Sequence[int]) -> Op:
    """Return one operation at another size. Its own shape is not updated; `_gathered` needs it to be right."""
    if op.kind == "input":
        return replace(op, shape=tuple(shape))
    if op.follows:
        plain = _plain(op)
        for follow in op.follows:
            number = follow.factor * math.prod(_source(graph, follow.name, made).shape[follow.first : follow.last])
            _put(plain, follow.path, number)
        function = Function.read(plain["function"]) if op.kind == "call" else op.function
        op = replace(op, args=plain["args"], function=function)
    if op.kind != "gather" or made[op.inputs[0]].shape == graph[op.inputs[0]].shape:
        return op
    return _moved(op, made[op.inputs[0]].shape)


def _source(graph: Graph, name: str, made: Mapping[str, Op]) -> Op:
    """Return the operation of this name, or the one of which it became part."""
    while name not in made and name in graph.joined:
        name = graph.joined[name]
    return made[name]


def _moved(op: Op, shape: tuple[int, ...]) -> Op:
    """Return a move by index with its index computed anew."""
    if "move" not in op.args:
        raise _Fixed(f"{op.name} moves values by fixed positions, which are right for one image size only")
    name, args = op.args["move"]
    if str(name).partition(".")[0] not in MOVES:
        raise _Fixed(f"{op.name}: {name!r} is not a move")
    move = getattr(getattr(torch.ops.aten, str(name).partition(".")[0]), str(name).partition(".")[2])
    if move(torch.empty(1, *shape, device="meta"), *args).numel() > LARGEST:
        raise _Fixed(f"{op.name} makes too many values")
    size = math.prod(shape)
    places = move(torch.arange(1, size + 1, dtype=torch.float64).view(1, *shape), *args)[0]
    index, device = places.flatten().long(), op.tensors["index"].device
    tensors = {**op.tensors, "index": (index if op.args["zeros"] else index - 1).to(device)}
    return replace(op, shape=tuple(places.shape), args={**op.args, "size": size}, tensors=tensors)


def _following(graph: Graph, other: Graph) -> Graph:
    """Return ``graph`` with a rule for each number that differs in ``other``."""
    if [(op.name, op.kind, op.inputs) for op in graph] != [(op.name, op.kind, op.inputs) for op in other]:
        raise _Fixed("the network has other operations at another image size")
    ops: list[Op] = []
    for op, twin in zip(graph, other, strict=True):
        pairs = list(_changed(_plain(op), _plain(twin), ()))
        earlier = [*op.inputs, *(name.name for name in reversed(ops) if name.name not in op.inputs)]
        follows = [
            _follow(op.name, path, n, m, [(graph[name], other[name]) for name in earlier], len(op.inputs))
            for path, n, m in pairs
        ]
        ops.append(replace(op, follows=tuple(follows)))
    return replace(graph, ops=tuple(ops))


def _changed(a: Any, b: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], int, int]]:
    """Yield the numbers that differ, with their paths."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        for key in a:
            yield from _changed(a[key], b[key], (*path, key))
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        for k, pair in enumerate(zip(a, b, strict=True)):
            yield from _changed(*pair, (*path, k))
    elif a != b:
        if type(a) is not int or type(b) is not int:
            raise _Fixed(f"it computes with {a} at one image size and with {b} at another")
        yield path, a, b


def _follow(
    name: str, path: tuple[str | int, ...], n: int, m: int, earlier: Sequence[tuple[Op, Op]], inputs: int
) -> Follow:
    """Return the rule for a number that is ``n`` at one size and ``m`` at another, by sizes of earlier results."""
    for factors in (False, True):
        for k, (op, twin) in enumerate(earlier[:inputs] if factors else earlier):
            for first in range(len(op.shape)):
                for last in range(first + 1, len(op.shape) + 1) if k < inputs else (first + 1,):
                    a, b = (math.prod(each.shape[first:last]) for each in (op, twin))
                    factor = n // a if a else 0
                    if a != b and (factors or factor == 1) and factor * a == n and factor * b == m:
                        return Follow(path, op.name, first, last, factor)
    raise _Fixed(
        f"{name} has a number that is {n} at one image size and {m} at another, and that does not follow from the size"
    )


def _put(plain: Any, path: Sequence[str | int], number: int) -> None:
    container = plain
    for key in path[:-1]:
        container = container[key]
    container[path[-1]] = number


def _difference(found: Graph, traced: Graph) -> str | None:
    """Return where the graph from the rules differs from the traced one, or None."""
    for op, twin in zip(found, traced, strict=True):
        alike = op.shape == twin.shape and list(_changed(_plain(op), _plain(twin), ())) == []
        if not alike or op.tensors.keys() != twin.tensors.keys():
            return f"{op.name} differs at another size"
        for key, tensor in op.tensors.items():
            if not torch.equal(tensor, twin.tensors[key]):
                return f"the {key} of {op.name} differs at another size"
    return None
