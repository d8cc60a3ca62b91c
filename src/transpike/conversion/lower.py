"""From PyTorch's operators (as torch.export sees them) to the converter's operations.

Every operator has one lowering, whether the model reached it as a module, a function or a method. Arithmetic on
parameters alone (weight standardisation, a scaled buffer) is done here, once. What has no lowering is collected, so
that one error can name every such place. What no output needs (a running maximum, a histogram) is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from operator import getitem
from typing import cast

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.node import map_arg

from transpike.coding.function import OPERATORS as FUNCTIONS
from transpike.coding.function import Argument, Constant, Function, Operand, argument
from transpike.conversion.effects import constants, needed, outputs
from transpike.conversion.lowering import UNSUPPORTED, Lowering, Value, base_name, flat
from transpike.conversion.op import Op
from transpike.conversion.operators import OPERATORS
from transpike.conversion.operators.shapes import RESHAPES
from transpike.conversion.program import image
from transpike.conversion.refusals import Problem, why

__all__ = ["Lowered", "lower"]

_IDENTITY = frozenset(
    ["alias", "clone", "contiguous", "detach", "lift_fresh", "lift_fresh_copy", "type_as", "_assert_tensor_metadata"]
)
_NUMBERS = (int, float, bool, torch.SymInt, torch.SymFloat, torch.SymBool)
_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)


@dataclass(frozen=True)
class Lowered:
    """An exported program as operations.

    Attributes:
        ops: what the outputs need, in an order in which it can run.
        outputs: their names.
        problems: every place without a spiking form.
        hooked: where the operations stand that a hook on a layer performs.
    """

    ops: tuple[Op, ...]
    outputs: tuple[str, ...]
    problems: list[Problem]
    hooked: Mapping[str, str]


def lower(program: ExportedProgram) -> Lowered:
    """The operations that ``program`` performs, and what of it cannot be converted."""
    start, held, results, live = image(program), constants(program), outputs(program), needed(program)
    shape = start.meta["val"].shape
    lowering = Lowering(str(shape[0]), {"input": Op("input", "input", (), tuple(shape[1:]))}, {start: "input"})
    for node in program.graph.nodes:
        if node.op == "placeholder" and node is not start:
            lowering.env[node] = held[node.name]
        elif node.op == "call_function" and node in live:
            value = node.meta.get("val")
            sized = value is None or isinstance(value, _NUMBERS)
            lowering.env[node] = _number(lowering, node) if sized else _lower(lowering, node)
    values = [lowering.env[n] for n in results if isinstance(n, Node)]
    names = tuple(name for name in values if isinstance(name, str))
    if len(names) < len(results):
        problem = Problem(
            "the model's output", "every output must be a tensor computed from the image; drop the others"
        )
        lowering.problems.append(problem)
    return Lowered(_finish(lowering, names), names, lowering.problems, lowering.hooked)


def _number(to: Lowering, node: Node) -> Value:
    """A number of constants alone (a threshold kept in a buffer) is known; others are so for the example only."""
    value: Value = node.meta.get("val")
    args, kwargs = _inputs(to, node)
    known = not any(isinstance(item, (str, *_SYMBOLIC)) for item in flat([*args, *kwargs.values()]))
    return _evaluated(node, args, kwargs) if known and isinstance(value, _SYMBOLIC) else value


def _lower(to: Lowering, node: Node) -> Value:
    """What ``node`` becomes: operations are emitted, problems noted."""
    if node.target is getitem:
        source, index = node.args
        parts = to.env[source]  # type: ignore[index]
        return parts[index] if isinstance(parts, (list, tuple)) else parts  # type: ignore[index]
    if not isinstance(node.target, OpOverload):
        return to.refused(node, [], f"{base_name(node)} has no spiking form; take its body out of that region")
    arguments = _arguments(to, node)
    values = [item for item in flat(list(arguments.values())) if isinstance(item, str) and item in to.ops]
    base = base_name(node)
    if not values:
        return _constant(to, node)
    if base in _IDENTITY or (base.endswith("dropout") and not arguments.get("train")):
        return values[0]
    if base in ("to", "_to_copy") and node.meta["val"].is_floating_point():
        return values[0]
    if to.astray(values) and base in OPERATORS:
        return to.stand_in(node, values)
    if (
        base not in RESHAPES
        and base not in ("slice", "expand")
        and any(isinstance(item, _SYMBOLIC) for item in flat(list(arguments.values())))
    ):
        return to.refused(node, values, f"{base} with a number that depends on the batch or its values; use a constant")
    result = UNSUPPORTED
    if base in OPERATORS:
        result = OPERATORS[base](to, node, **_renamed(arguments))
    return _decoded(to, node, arguments, values) if result is UNSUPPORTED else result


def _arguments(to: Lowering, node: Node) -> dict[str, Value]:
    """All arguments of the operator by name, defaults filled in, nodes replaced by what they became."""
    assert isinstance(node.target, OpOverload)
    args, kwargs = _inputs(to, node)
    schema = node.target._schema.arguments
    present = dict(zip((a.name for a in schema), args, strict=False)) | kwargs
    return {a.name: present.get(a.name, a.default_value if a.has_default_value() else None) for a in schema}


def _inputs(to: Lowering, node: Node) -> tuple[tuple[Value, ...], dict[str, Value]]:
    inputs = map_arg((node.args, node.kwargs), lambda source: to.env[source])
    return cast(tuple[tuple[Value, ...], dict[str, Value]], inputs)


def _constant(to: Lowering, node: Node) -> Value:
    """Arithmetic on parameters and buffers alone is done once, now."""
    args, kwargs = _inputs(to, node)
    if any(isinstance(item, _SYMBOLIC) for item in flat([*args, *kwargs.values()])):
        to.problem(node, f"{base_name(node)} makes a constant of the batch's size; let it broadcast instead")
        return torch.zeros([n if isinstance(n, int) else 1 for n in node.meta["val"].shape])
    return _evaluated(node, args, kwargs)


def _evaluated(node: Node, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
    assert callable(node.target)
    result: Value = node.target(*args, **kwargs)
    return result


def _decoded(to: Lowering, node: Node, arguments: dict[str, Value], values: list[str]) -> Value:
    """A function that only decoded values can take; where it stands is judged when the graph is whole."""
    name, base = to.full_name(node), base_name(node)
    if name not in FUNCTIONS or not isinstance(node.meta["val"], Tensor):
        return to.refused(node, values, why(base))
    axes, ndim = arguments.get("dim"), len(to.ops[values[0]].shape) + 1
    if any(axis % ndim == 0 for axis in flat(axes) if isinstance(axis, int)):
        return to.refused(node, values, f"{base} over the batch axis; treat each sample alike")
    tensors: dict[str, Tensor] = {}
    inputs: list[str] = []

    def place(value: Value) -> Argument:
        if isinstance(value, Tensor):
            tensors[name := str(len(tensors))] = value
            return Constant(name)
        if isinstance(value, str) and value in to.ops:
            inputs.append(value)
            return Operand(len(inputs) - 1)
        return None if isinstance(value, torch.dtype) else argument(value)

    assert isinstance(node.target, OpOverload)
    placed = {key: place(value) for key, value in arguments.items()}
    named = {a.name for a in node.target._schema.arguments if a.kwarg_only}
    args = [value for key, value in placed.items() if key not in named]
    kwargs = {key: value for key, value in placed.items() if key in named}
    function = Function.of(name, *args, operands=len(inputs), **kwargs)
    return to.emit(node, "call", inputs, function=function, tensors=tensors)


def _finish(to: Lowering, outputs: tuple[str, ...]) -> tuple[Op, ...]:
    """The operations the outputs need, tensors detached from the user's module."""
    needed = {"input", *outputs}
    for op in reversed(list(to.ops.values())):
        if op.name in needed:
            needed.update(op.inputs)
    return tuple(
        replace(op, tensors={k: t.detach().clone() for k, t in op.tensors.items()})
        for op in to.ops.values()
        if op.name in needed
    )


def _renamed(arguments: dict[str, Value]) -> dict[str, Value]:
    """The first argument, which operators call ``input`` or ``self``, under one name."""
    return {{"self": "input"}.get(key, key): value for key, value in arguments.items()}
