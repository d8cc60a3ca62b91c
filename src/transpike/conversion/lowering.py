"""What the lowering of an operator works with: the operations made so far, and how to add one or to refuse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor
from torch.fx import Node

from transpike.coding.function import Function
from transpike.conversion.hooks import blamed
from transpike.conversion.op import Op
from transpike.conversion.refusals import Problem

__all__ = ["UNSUPPORTED", "Input", "Known", "Lowering", "Value", "base_name", "first_tensor", "flat"]

Known: TypeAlias = Tensor | float
Input: TypeAlias = str | Known
"""The name of an operation, which stands for its activation, or a constant."""
Value: TypeAlias = (
    Input | torch.SymInt | torch.SymFloat | torch.SymBool | torch.dtype | torch.device | Sequence["Value"] | None
)
"""What an argument of an operator, or a node of the exported graph, becomes."""
UNSUPPORTED: Value = NotImplemented
"""What the lowering of an operator returns where its arguments have no spiking form."""


@dataclass
class Lowering:
    """The state of a walk over the nodes of an exported graph.

    Attributes:
        batch: the symbol that torch.export gave the batch axis.
        ops: the operations made so far.
        env: what a node became: the name of an operation, a constant tensor, a number, or a list of these (the parts of
            a split).
        problems: every place without a spiking form.
        hooked: where the operations stand that a hook on a layer performs.
    """

    batch: str
    ops: dict[str, Op] = field(default_factory=dict)
    env: dict[Node, Value] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    hooked: dict[str, str] = field(default_factory=dict)
    _astray: set[str] = field(default_factory=set)

    def emit(
        self,
        node: Node,
        kind: str,
        inputs: Sequence[str],
        *,
        value: Tensor | None = None,
        args: Mapping[str, object] | None = None,
        tensors: Mapping[str, Tensor] | None = None,
        gains: tuple[float, ...] = (),
        function: Function = Function(),  # noqa: B008 (a frozen value)
    ) -> str:
        """Add an operation for ``node`` under a name that leads back to the model's source.

        ``value`` has the shape of the result; where it is missing, the result is the first tensor that ``node`` gives.
        """
        result = first_tensor(node) if value is None else value
        name = stem = _name(node)
        count = 1
        while name in self.ops:
            count += 1
            name = f"{stem}_{count}"
        if not self.counts_samples(result):
            if not self._astray.intersection(inputs) and kind != "refused":
                self.problem(node, _batch_axis(node))
            self._astray.add(name)
        shape = tuple(n if isinstance(n, int) else -1 for n in result.shape[1:])
        self.ops[name] = Op(name, kind, tuple(inputs), shape, args or {}, tensors or {}, gains, function)
        if hook := _hook(node):
            self.hooked[name] = f"{_path(node)}{hook}"
        return name

    def problem(self, node: Node, reason: str) -> None:
        """Note that ``node`` cannot be converted, and why: ``reason; remedy``."""
        place = _path(node) or "the forward of the model"
        self.problems.append(Problem(f"{place}{_hook(node)}", reason))

    def refused(self, node: Node, values: Sequence[str], reason: str) -> Value:
        """Note the problem and stand in for the result, so that all later places are found too."""
        result = node.meta["val"]
        stray = isinstance(result, Tensor) and not self.counts_samples(result)
        if not self.astray(values):
            self.problem(node, _batch_axis(node) if stray else reason)
        return self.stand_in(node, values)

    def stand_in(self, node: Node, values: Sequence[str]) -> Value:
        """Operations of the shapes that ``node`` gives, which compute nothing: a problem has been noted already."""
        result = node.meta["val"]
        if isinstance(result, Tensor):
            return self.emit(node, "refused", values)
        return [self.emit(node, "refused", values, value=v) if isinstance(v, Tensor) else None for v in result]

    def astray(self, names: Sequence[str]) -> bool:
        """Whether one of the operations ``names`` lost the batch axis, which is a problem noted there."""
        return bool(self._astray.intersection(names))

    def counts_samples(self, value: Tensor) -> bool:
        """Whether the first axis of ``value``, and no other, counts samples."""
        fixed = all(isinstance(n, int) for n in value.shape[1:])
        return value.ndim > 0 and str(value.shape[0]) == self.batch and fixed

    @staticmethod
    def full_name(node: Node) -> str:
        """The operator's name and overload, as in ``avg_pool2d.default``."""
        return str(node.target).removeprefix("aten.")


def first_tensor(node: Node) -> Tensor:
    """The shape of what ``node`` gives; of several results, of the first."""
    value = node.meta["val"]
    result: Tensor = value[0] if isinstance(value, (list, tuple)) else value
    return result


def base_name(node: Node) -> str:
    """The operator's bare name: ``add_.Tensor`` is ``add``."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return str(getattr(node.target, "__name__", node.target))
    return node.target._schema.name.split("::")[1].rstrip("_")


def flat(values: object) -> list[object]:
    """The items of lists in lists in order."""
    if not isinstance(values, (list, tuple)):
        return [values]
    return [item for value in values for item in flat(value)]


def _batch_axis(node: Node) -> str:
    return f"{base_name(node)} moves, merges or mixes the batch axis; keep it first and treat each sample alike"


def _path(node: Node) -> str:
    """The path of the module in whose forward the operator stands."""
    stack = node.meta.get("nn_module_stack") or {}
    path: str = list(stack.values())[-1][0] if stack else ""
    return "" if path.startswith("_empty") else path


def _hook(node: Node) -> str:
    """What tells that ``node`` stands in a hook of its module, and in which; nothing if it does not."""
    hook = blamed(node.meta.get("stack_trace") or "")
    return f" (its hook {hook})" if hook else ""


def _name(node: Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    path = _path(node)
    kind = str(list(stack.values())[-1][1]) if stack else ""
    return path if path and "torch.nn.modules" in kind else f"{path}.{base_name(node)}".lstrip(".")
