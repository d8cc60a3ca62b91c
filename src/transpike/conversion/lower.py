"""From PyTorch's operators (as torch.export sees them) to the converter's operations.

Every operator has one lowering, whether the model reached it as a module, a function or a method. Arithmetic on
parameters alone (weight standardisation, a scaled buffer) is done here, once. What has no lowering is collected, so
that one error can name every such place.
"""

from __future__ import annotations

import operator as python_operator
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from transpike.coding.function import OPERATORS as OPERATORS_OF_FUNCTIONS
from transpike.coding.function import Argument, Constant, Function, Operand, argument
from transpike.conversion.op import Op
from transpike.conversion.operators import OPERATORS
from transpike.conversion.operators.shapes import RESHAPES
from transpike.conversion.refusals import why

__all__ = ["Lowering", "finish"]

_IDENTITY = frozenset(
    ["alias", "clone", "contiguous", "detach", "lift_fresh", "lift_fresh_copy", "type_as", "_assert_tensor_metadata"]
)
_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)


@dataclass
class Lowering:
    """Walks the nodes of an exported graph.

    Attributes:
        batch: the symbol that torch.export gave the batch axis.
        ops: the operations made so far.
        env: what a node became: the name of an operation, a constant tensor, a number, or a list of these (the parts of
            a split).
        problems: every place without a spiking form.
    """

    batch: str
    ops: dict[str, Op] = field(default_factory=dict)
    env: dict[Node, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    _astray: set[str] = field(default_factory=set)

    def lower(self, node: Node) -> Any:
        """What ``node`` becomes: operations are emitted, problems noted."""
        if node.target is python_operator.getitem:
            source: Any
            index: Any
            source, index = node.args
            parts = self.env[source]
            return parts[index] if isinstance(parts, (list, tuple)) else parts
        if not isinstance(node.target, torch._ops.OpOverload):
            return self.refused(node, [], f"{node.target} has no spiking form; take its body out of that region")
        arguments = self._arguments(node)
        values = [a for a in _flat(arguments.values()) if isinstance(a, str) and a in self.ops]
        base = _base(node)
        if not values:
            return self._constant(node)
        if base not in RESHAPES and base not in ("slice", "expand") and _batch_dependent(arguments):
            return self.refused(
                node, values, f"{base} with a number that depends on the batch or its values; use a constant"
            )
        if base in _IDENTITY or (base.endswith("dropout") and not arguments.get("train")):
            return values[0]
        if base in ("to", "_to_copy") and node.meta["val"].is_floating_point():
            return values[0]
        result = NotImplemented
        if base in OPERATORS:
            result = OPERATORS[base](self, node, **_renamed(arguments))
        return self._decoded(node, arguments, values) if result is NotImplemented else result

    # -- what lowerings use --------------------------------------------------------------------------------------------

    def emit(
        self, node: Node, target: str, inputs: Sequence[str], *, value: Tensor | None = None, **fields: Any
    ) -> str:
        """Add an operation for ``node`` under a name that leads back to the model's source."""
        result: Tensor = node.meta["val"] if value is None else value
        name = stem = _name(node)
        count = 1
        while name in self.ops:
            count += 1
            name = f"{stem}_{count}"
        if not self.counts_samples(result):
            if not self._astray.intersection(inputs) and target != "refused":
                self.problem(
                    node,
                    f"{_base(node)} moves, merges or mixes the batch axis; keep it first and treat each sample alike: "
                    f"found {tuple(result.shape)}",
                )
            self._astray.add(name)
        shape = tuple(n if isinstance(n, int) else -1 for n in result.shape[1:])
        self.ops[name] = Op(name, target, tuple(inputs), shape, **fields)
        return name

    def problem(self, node: Node, reason: str) -> None:
        """Note that ``node`` cannot be converted, and why."""
        self.problems.append(f"{_path(node) or 'the forward of the model'}: {reason}")

    def refused(self, node: Node, values: list[str], reason: str) -> Any:
        """Note the problem and stand in for the result, so that all later places are found too."""
        self.problem(node, reason)
        result = node.meta["val"]
        if isinstance(result, Tensor):
            return self.emit(node, "refused", values)
        return [self.emit(node, "refused", values, value=v) if isinstance(v, Tensor) else None for v in result]

    def counts_samples(self, value: Tensor) -> bool:
        """Whether the first axis of ``value``, and no other, counts samples."""
        fixed = all(isinstance(n, int) for n in value.shape[1:])
        return value.ndim > 0 and str(value.shape[0]) == self.batch and fixed

    @staticmethod
    def full_name(node: Node) -> str:
        """The operator's name and overload, as in ``avg_pool2d.default``."""
        return str(node.target).removeprefix("aten.")

    # -- other than by the table ---------------------------------------------------------------------------------------

    def _arguments(self, node: Node) -> dict[str, Any]:
        """All arguments of the operator by name, defaults filled in, nodes replaced by what they became."""
        schema = node.target._schema.arguments  # type: ignore[union-attr]
        given = dict(zip((a.name for a in schema), node.args, strict=False)) | dict(node.kwargs)
        named = {a.name: given.get(a.name, a.default_value if a.has_default_value() else None) for a in schema}
        return {k: map_arg(v, lambda n: self.env[n]) for k, v in named.items()}

    def _constant(self, node: Node) -> Any:
        """Arithmetic on parameters and buffers alone is done once, now."""
        args = map_arg(node.args, lambda n: self.env[n])
        kwargs = map_arg(node.kwargs, lambda n: self.env[n])
        if _batch_dependent({"args": args, **kwargs}):
            self.problem(node, f"{_base(node)} makes a constant of the batch's size; let it broadcast instead")
            return torch.zeros([n if isinstance(n, int) else 1 for n in node.meta["val"].shape])
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def _decoded(self, node: Node, arguments: dict[str, Any], values: list[str]) -> Any:
        """A function that only decoded values can take; where it stands is judged when the graph is whole."""
        name, result = self.full_name(node), node.meta["val"]
        if name not in OPERATORS_OF_FUNCTIONS or not isinstance(result, Tensor):
            return self.refused(node, values, why(_base(node)))
        axes, ndim = arguments.get("dim"), len(self.ops[values[0]].shape) + 1
        if any(axis % ndim == 0 for axis in ([axes] if isinstance(axes, int) else axes or [])):
            return self.refused(node, values, f"{_base(node)} over the batch axis: each sample must be treated alike")
        tensors: dict[str, Tensor] = {}
        inputs: list[str] = []

        def place(value: object) -> Argument:
            if isinstance(value, Tensor):
                tensors[name := str(len(tensors))] = value
                return Constant(name)
            if isinstance(value, str) and value in self.ops:
                inputs.append(value)
                return Operand(len(inputs) - 1)
            return None if isinstance(value, torch.dtype) else argument(value)

        placed = {key: place(value) for key, value in arguments.items()}
        named = {a.name for a in node.target._schema.arguments if a.kwarg_only}  # type: ignore[union-attr]
        args = [value for key, value in placed.items() if key not in named]
        kwargs = {key: value for key, value in placed.items() if key in named}
        function = Function.of(name, *args, operands=len(inputs), **kwargs)
        return self.emit(node, "call", inputs, function=function, tensors=tensors)


def finish(lowering: Lowering, outputs: tuple[str, ...]) -> tuple[Op, ...]:
    """The operations the outputs need, tensors detached from the user's module."""
    needed = {"input", *outputs}
    for op in reversed(list(lowering.ops.values())):
        if op.name in needed:
            needed.update(op.inputs)
    return tuple(
        replace(op, tensors={k: t.detach().clone() for k, t in op.tensors.items()})
        for op in lowering.ops.values()
        if op.name in needed
    )


def _batch_dependent(arguments: dict[str, Any]) -> bool:
    return any(isinstance(value, _SYMBOLIC) for value in _flat(arguments.values()))


def _base(node: Node) -> str:
    """The operator's bare name: ``add_.Tensor`` is ``add``."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return str(node.target)
    return node.target._schema.name.split("::")[1].rstrip("_")


def _path(node: Node) -> str:
    """The path of the module in whose forward the operator stands."""
    stack = node.meta.get("nn_module_stack") or {}
    path: str = list(stack.values())[-1][0] if stack else ""
    return "" if path.startswith("_empty") else path


def _name(node: Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    path = _path(node)
    kind = str(list(stack.values())[-1][1]) if stack else ""
    return path if path and "torch.nn.modules" in kind else f"{path}.{_base(node)}".lstrip(".")


def _renamed(arguments: dict[str, Any]) -> dict[str, Any]:
    """The first argument, which operators call ``input`` or ``self``, under one name."""
    return {{"self": "input"}.get(key, key): value for key, value in arguments.items()}


def _flat(values: Any) -> list[Any]:
    return [v for value in values for v in (_flat(value) if isinstance(value, (list, tuple)) else [value])]
