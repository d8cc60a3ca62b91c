"""Translates PyTorch's operators (in a torch.export program) to the converter's operations.

Every operator has one translation (its lowering), whether the model used it as a module, a function or a method.
Arithmetic on parameters alone (weight standardisation, a scaled buffer) is computed here, once. Operators without a
lowering are collected, so that one error can name all places. Operations that no output needs (a running maximum, a
histogram) are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from operator import getitem
from typing import cast

import torch
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.node import map_arg

from transpike.coding.function import Function, Operand
from transpike.conversion.effects import constants, needed, outputs
from transpike.conversion.form import Form
from transpike.conversion.lowering import UNSUPPORTED, Lowering, Value, base_name, first_tensor, flat
from transpike.conversion.op import Op
from transpike.conversion.operators import OPERATORS, SIZED
from transpike.conversion.operators.functions import called
from transpike.conversion.program import image
from transpike.conversion.refusals import Problem, why

__all__ = ["Lowered", "lower"]

_IDENTITY = frozenset(
    ["alias", "clone", "contiguous", "detach", "lift_fresh", "lift_fresh_copy", "type_as", "_assert_tensor_metadata"]
)
_RECURRENT = frozenset(["lstm", "gru", "rnn_tanh", "rnn_relu"])
_UNROLLED = 32
_LONG = f" has no spiking form, of more than {_UNROLLED}; convert what comes before it: until= names the last module"
_NUMBERS = (int, float, bool, torch.SymInt, torch.SymFloat, torch.SymBool)
_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)


@dataclass(frozen=True)
class Lowered:
    """An exported program as operations.

    Attributes:
        ops: the operations that the outputs need, in an order in which they can run.
        outputs: the names of the outputs.
        problems: every place without a spiking form.
        unknown: operators without a lowering, which PyTorch may be able to decompose into others.
        hooked: where the operations stand that run inside a hook of a layer.
    """

    ops: tuple[Op, ...]
    outputs: tuple[str, ...]
    problems: list[Problem]
    unknown: Set[OpOverload]
    hooked: Mapping[str, str]


def lower(program: ExportedProgram) -> Lowered:
    """Return the operations that ``program`` performs, and its parts that cannot be converted."""
    start, tensors, results, live = image(program), constants(program), outputs(program), needed(program)
    shape = start.meta["val"].shape
    to = Lowering(shape[0], {"input": Op("input", "input", (), tuple(shape[1:]))}, {"input": Form(tuple(shape[1:]))})
    to.env[start] = "input"
    for node in program.graph.nodes:
        if node.op == "placeholder" and node is not start:
            to.env[node] = tensors[node.name]
        elif node.op == "call_function" and node in live:
            value = node.meta.get("val")
            sized = value is None or isinstance(value, _NUMBERS)
            to.env[node] = _number(to, node) if sized else _lower(to, node)
    values = [to.env[n] for n in results if isinstance(n, Node)]
    names = tuple(name for name in values if isinstance(name, str))
    if len(names) < len(results):
        problem = Problem(
            "the model's output", "every output must be a tensor computed from the image; drop the others"
        )
        to.problems.append(problem)
    for name in names:
        if to.forms[name] != Form(to.forms[name].shape) and not to.astray([name]):
            reason = "its batch axis must come first, with nothing merged into it; reshape it at the end"
            to.problems.append(Problem("the model's output", reason))
    return Lowered(_finish(to, names), names, to.problems, to.unknown, to.hooked)


def _number(to: Lowering, node: Node) -> Value:
    """Return a number, evaluated if it depends on constants alone. Others hold for the example only."""
    value: Value = node.meta.get("val")
    args, kwargs = _inputs(to, node)
    known = not any(isinstance(item, (str, *_SYMBOLIC)) for item in flat([*args, *kwargs.values()]))
    return _evaluated(node, args, kwargs) if known and isinstance(value, _SYMBOLIC) else value


def _lower(to: Lowering, node: Node) -> Value:
    """Lower ``node``: emit its operations and note problems."""
    if node.target is getitem:
        source, index = node.args
        parts = to.env[source]  # type: ignore[index]
        return parts[index] if isinstance(parts, (list, tuple)) else parts  # type: ignore[index]
    if not isinstance(node.target, OpOverload):
        return to.refused(node, [], f"{base_name(node)} has no spiking form; take its body out of that region")
    arguments = _arguments(to, node)
    values = [item for item in flat(list(arguments.values())) if isinstance(item, str) and item in to.ops]
    base = base_name(node)
    if base in _RECURRENT and (steps := _repeated(arguments, node)) > _UNROLLED:
        return to.refused(node, values, f"a recurrent cell ({base}) of {steps} steps{_LONG}")
    if not values:
        return _constant(to, node)
    if base in _IDENTITY or (base.endswith("dropout") and not arguments.get("train")):
        return _as_float(to, node, values[0])
    if base in ("to", "_to_copy") and (node.meta["val"].is_floating_point() or _same_type(node)):
        return _as_float(to, node, values[0])
    if to.astray(values):
        return to.stand_in(node, values)
    if base not in SIZED and any(isinstance(item, _SYMBOLIC) for item in flat(list(arguments.values()))):
        return to.refused(node, values, f"{base} with a number that depends on the batch or its values; use a constant")
    result, known = UNSUPPORTED, node.target.namespace == "aten"
    if base in OPERATORS and known:
        result = OPERATORS[base](to, node, **_renamed(arguments))
    if result is UNSUPPORTED and known:
        result = called(to, node, arguments, values)
    if result is not UNSUPPORTED:
        return result
    to.unknown.add(node.target)
    return to.refused(node, values, why(base))


def _repeated(arguments: Mapping[str, Value], node: Node) -> int:
    """Return the number of steps of a recurrent cell, or 0 if it varies."""
    sequence = node.all_input_nodes[0].meta["val"].shape
    axis = int(bool(arguments.get("batch_first")))
    return sequence[axis] if len(sequence) == 3 and isinstance(sequence[axis], int) else 0


def _same_type(node: Node) -> bool:
    """Whether the result of ``node`` has the dtype of its first input."""
    return bool(node.all_input_nodes[0].meta["val"].dtype == node.meta["val"].dtype)


def _as_float(to: Lowering, node: Node, x: str) -> str:
    """Return ``x``, with true and false as one and zero."""
    source = next((n.meta["val"] for n in node.all_input_nodes if to.env[n] == x), None)
    if source is None or source.is_floating_point() or not first_tensor(node).is_floating_point():
        return x
    return to.emit(node, "call", [x], function=Function.of("mul.Scalar", Operand(0), 1.0))


def _arguments(to: Lowering, node: Node) -> dict[str, Value]:
    """Return all arguments of the operator by name, with defaults, and with nodes replaced by their results."""
    assert isinstance(node.target, OpOverload)
    args, kwargs = _inputs(to, node)
    schema = node.target._schema.arguments
    present = dict(zip((a.name for a in schema), args, strict=False)) | kwargs
    return {a.name: present.get(a.name, a.default_value if a.has_default_value() else None) for a in schema}


def _inputs(to: Lowering, node: Node) -> tuple[tuple[Value, ...], dict[str, Value]]:
    inputs = map_arg((node.args, node.kwargs), lambda source: to.env[source])
    return cast(tuple[tuple[Value, ...], dict[str, Value]], inputs)


def _constant(to: Lowering, node: Node) -> Value:
    """Compute arithmetic on parameters and buffers alone, once. If the number of samples matters, it is for one."""
    args, kwargs = _inputs(to, node)

    def size(value: Value) -> Value:
        if isinstance(value, (list, tuple)):
            return [size(item) for item in value]
        return to.size(value, 1) if isinstance(value, torch.SymInt) else value

    try:
        return _evaluated(node, tuple(map(size, args)), {key: size(value) for key, value in kwargs.items()})
    except (TypeError, RuntimeError):
        to.problem(node, f"{base_name(node)} makes a constant that depends on the batch; let it broadcast instead")
        return torch.zeros([n if isinstance(n, int) else 1 for n in first_tensor(node).shape])


def _evaluated(node: Node, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
    assert callable(node.target)
    result: Value = node.target(*args, **kwargs)
    return result


def _finish(to: Lowering, outputs: tuple[str, ...]) -> tuple[Op, ...]:
    """Return the operations that the outputs need, with tensors detached from the user's module."""
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
    """Return the arguments with one name for the first, which operators call ``input`` or ``self``."""
    return {{"self": "input"}.get(key, key): value for key, value in arguments.items()}
