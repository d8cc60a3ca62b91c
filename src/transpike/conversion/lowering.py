"""The state that the lowering of an operator works with: the operations so far, and how to add or refuse one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor
from torch.fx import Node

from transpike.coding.function import Function
from transpike.conversion.form import Form
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
"""The result of lowering an argument of an operator, or a node of the exported graph."""
UNSUPPORTED: Value = NotImplemented
"""The value that the lowering of an operator returns if its arguments have no spiking form."""
_SYNONYMS = {"true_divide": "div", "divide": "div", "multiply": "mul", "subtract": "sub"}


@dataclass
class Lowering:
    """The state of a walk over the nodes of an exported graph.

    Attributes:
        samples: the size that torch.export gave the axis of samples.
        ops: the operations so far.
        forms: for each operation, the relation between the model's own value and the graph's.
        env: the result of each node: the name of an operation, a constant tensor (for one sample, if the number of
            samples is part of its shape), a number, or a list of these (the parts of a split).
        problems: every place without a spiking form.
        unknown: operators without a lowering.
        hooked: where the operations stand that run inside a hook of a layer.
    """

    samples: torch.SymInt
    ops: dict[str, Op] = field(default_factory=dict)
    forms: dict[str, Form] = field(default_factory=dict)
    env: dict[Node, Value] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unknown: set[torch._ops.OpOverload] = field(default_factory=set)
    hooked: dict[str, str] = field(default_factory=dict)
    _astray: set[str] = field(default_factory=set)
    _counts: dict[str, int] = field(default_factory=dict)

    def emit(
        self,
        node: Node,
        kind: str,
        inputs: Sequence[str],
        *,
        value: Tensor | Form | None = None,
        part: str = "",
        args: Mapping[str, object] | None = None,
        tensors: Mapping[str, Tensor] | None = None,
        gains: tuple[float, ...] = (),
        function: Function = Function(),  # noqa: B008 (a frozen value)
    ) -> str:
        """Add an operation for ``node`` under a name that leads back to the model's source.

        ``value`` is the result's form, or has its shape. Without it, the result is the first tensor of ``node``.
        ``part`` names one of several operations for the same node.
        """
        result = first_tensor(node) if value is None else value
        form = result if isinstance(result, Form) else self.form(result, inputs)
        name = stem = f"{_name(node)}{'.' * bool(part)}{part}"
        while name in self.ops:
            self._counts[stem] = self._counts.get(stem, 1) + 1
            name = f"{stem}_{self._counts[stem]}"
        if form is None:
            assert isinstance(result, Tensor)
            if not self._astray.intersection(inputs) and kind != "refused":
                self.problem(node, _batch_axis(node))
            self._astray.add(name)
            form = Form(tuple(n if isinstance(n, int) else -1 for n in result.shape[1:]))
        self.forms[name] = form
        self.ops[name] = Op(name, kind, tuple(inputs), form.shape, args or {}, tensors or {}, gains, function)
        if hook := _hook(node):
            self.hooked[name] = f"{_path(node)}{hook}"
        return name

    # -- the axis of samples -------------------------------------------------------------------------------------------

    def size(self, n: int | torch.SymInt, samples: int) -> int:
        """Return a size in the model for so many samples.

        Raises:
            TypeError: The size depends on anything else.
        """
        return n if isinstance(n, int) else int(n.node.expr.subs(self.samples.node.expr, samples))

    def counted(self, value: Tensor) -> tuple[int, int] | None:
        """Return the axis of ``value`` that counts samples, and the copies of each. None unless it is one axis."""
        axes = [axis for axis, n in enumerate(value.shape) if not isinstance(n, int)]
        if len(axes) != 1:
            return None
        try:
            sizes = {samples: self.size(value.shape[axes[0]], samples) for samples in (2, 3, 7)}
        except TypeError:  # the size depends on values
            return None
        copies = sizes[2] // 2
        return (axes[0], copies) if all(n == copies * samples for samples, n in sizes.items()) else None

    def form(self, value: Tensor, inputs: Sequence[str]) -> Form | None:
        """Return the form of ``value``, computed from ``inputs``, or None if it has lost its samples."""
        counted = self.counted(value)
        if counted is None:
            return None
        forms = [self.forms[name].like(*counted, value.shape) for name in inputs if name not in self._astray]
        return next((form for form in forms if form), None)

    def same(self, value: Tensor, name: str) -> bool:
        """Whether ``value`` has the shape of the operation ``name``, with the samples in the same place."""
        counted, form = self.counted(value), self.forms[name]
        return counted == (form.axis, form.copies) and tuple(self.size(n, 2) for n in value.shape) == form.own(2)

    def aligned(self, node: Node, name: str, form: Form) -> str | None:
        """Return ``name`` with leading axes of one, so that it broadcasts against ``form``. None if it cannot."""
        own = self.forms[name]
        missing = form.ndim - own.ndim
        if own.axis + missing != form.axis or (own.outer, own.inner) != (form.outer, form.inner):
            return None
        if not missing:
            return name
        shape = (*(1,) * missing, *own.shape)
        wider = Form(shape, form.axis, form.outer, form.inner)
        return self.emit(node, "reshape", [name], value=wider, part="reshape", args={"shape": list(shape)})

    @staticmethod
    def fitted(constant: Tensor, form: Form) -> Tensor | None:
        """Return a constant that broadcasts against a sample of ``form`` as it did against the model's own value.

        Returns None if each sample has a constant of its own.
        """
        axis = form.axis - (form.ndim - constant.ndim)
        if axis < 0:
            return constant
        if constant.shape[axis] not in (1, form.copies):
            return None
        return constant.squeeze(axis) if form.copies == 1 else constant

    def problem(self, node: Node, reason: str) -> None:
        """Note that ``node`` cannot be converted, with ``reason; remedy``."""
        place = _path(node) or "the forward of the model"
        self.problems.append(Problem(f"{place}{_hook(node)}", reason))

    def refused(self, node: Node, values: Sequence[str], reason: str) -> Value:
        """Note the problem and return a placeholder for the result, so that all later problems are found too."""
        result = node.meta["val"]
        stray = isinstance(result, Tensor) and not self.counted(result)
        if not self.astray(values):
            self.problem(node, _batch_axis(node) if stray else reason)
        return self.stand_in(node, values)

    def mixed(self, node: Node, values: Sequence[str]) -> Value:
        """Do the same if ``node`` works along the axis of samples."""
        return self.refused(node, values, _batch_axis(node))

    def stand_in(self, node: Node, values: Sequence[str]) -> Value:
        """Return operations with the shapes of ``node`` that compute nothing, because a problem is already noted."""
        result = node.meta["val"]
        if isinstance(result, Tensor):
            return self.emit(node, "refused", values)
        return [self.emit(node, "refused", values, value=v) if isinstance(v, Tensor) else None for v in result]

    def astray(self, names: Sequence[str]) -> bool:
        """Whether one of the operations ``names`` lost the batch axis, where a problem is already noted."""
        return bool(self._astray.intersection(names))

    @staticmethod
    def full_name(node: Node) -> str:
        """Return the operator's name, like ``avg_pool2d.default``, with ``relu.default`` for ``relu_.default``."""
        return f"{base_name(node)}.{str(node.target).rpartition('.')[2]}"


def first_tensor(node: Node) -> Tensor:
    """Return the shape of a node's result; of several results, the first one's."""
    value = node.meta["val"]
    result: Tensor = value[0] if isinstance(value, (list, tuple)) else value
    return result


def base_name(node: Node) -> str:
    """Return the operator's bare name: ``add_.Tensor`` is ``add``, ``true_divide`` is ``div``."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return str(getattr(node.target, "__name__", node.target))
    name = node.target._schema.name.split("::")[1].rstrip("_")
    return _SYNONYMS.get(name, name)


def flat(values: object) -> list[object]:
    """Return the items of nested lists in order."""
    if not isinstance(values, (list, tuple)):
        return [values]
    return [item for value in values for item in flat(value)]


def _batch_axis(node: Node) -> str:
    return f"{base_name(node)} moves, merges or mixes the batch axis; treat each sample alike"


def _path(node: Node) -> str:
    """Return the path of the module in whose forward the operator stands."""
    stack = node.meta.get("nn_module_stack") or {}
    path: str = list(stack.values())[-1][0] if stack else ""
    return "" if path.startswith("_empty") else path


def _hook(node: Node) -> str:
    """Return words that name the hook in which ``node`` stands, or an empty string."""
    hook = blamed(node.meta.get("stack_trace") or "")
    return f" (its hook {hook})" if hook else ""


def _name(node: Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    path = _path(node)
    kind = str(list(stack.values())[-1][1]) if stack else ""
    return path if path and "torch.nn.modules" in kind else f"{path}.{base_name(node)}".lstrip(".")
