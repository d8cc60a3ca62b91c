"""The cost of one evaluation of a neuron's function: its operations, and the values that must be known together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transpike.coding.function import Argument, Call, Function, Operand, Result
from transpike.coding.operators import DIMENSIONS, POOLS, TRAILING, aten, work

__all__ = ["COMPARISONS", "Evaluation", "evaluation"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The cost of one evaluation of the function of a whole layer, for one sample.

    Attributes:
        additions: the number of additions and comparisons.
        multiplications: the number of multiplications.
        group: the number of values that one result needs together: the group of a softmax or a norm, or the window of a
            maximum. 1 if each neuron works by itself.
    """

    additions: float = 0
    multiplications: float = 0
    group: int = 1


COMPARISONS = Evaluation()
"""The cost of a function that a neuron's comparisons compute anyway, such as ReLU."""


def evaluation(
    function: Function, shapes: Sequence[Sequence[int]], *, constants: Mapping[str, Tensor] | None = None
) -> Evaluation:
    """Count the operations by `operators.work` for each value of the result, or of the reduced argument.

    Args:
        function: see `Function`.
        shapes: the shape of one sample of each operand.
        constants: the function's constants, by name.

    Example:
        >>> from transpike.coding.function import Operand
        >>> softmax = Function.of("softmax.int", Operand(0), -1)
        >>> evaluation(softmax, [(4, 10)])
        Evaluation(additions=240, multiplications=240, group=10)
    """
    sizes: list[torch.Size] = []
    own = {key: tensor.to("meta") for key, tensor in (constants or {}).items()}
    operands = [torch.empty(1, *shape, device="meta") for shape in shapes]
    function(*operands, constants=own, watch=lambda result: sizes.append(result.shape))
    additions, multiplications, group = 0, 0, 1
    for call, result in zip(function.calls, sizes, strict=True):
        values, together = result.numel(), 1
        if (read := _size(call.args[0], operands, sizes)) is not None:
            together = _together(call, read)
            if call.operator in DIMENSIONS | TRAILING:
                values = read.numel()
            elif call.operator in POOLS:  # an adaptive pool names no window
                together = together if together > 1 else read.numel() // values
                values *= together
        adds, products = work(call.operator)
        additions, multiplications = additions + adds * values, multiplications + products * values
        group = max(group, together)
    return Evaluation(additions=additions, multiplications=multiplications, group=group)


def _size(argument: Argument, operands: Sequence[Tensor], sizes: Sequence[torch.Size]) -> torch.Size | None:
    match argument:
        case Operand(index):
            return operands[index].shape
        case Result(call):
            return sizes[call]
    return None


def _together(call: Call, size: torch.Size) -> int:
    """Return how many values of the first argument one result needs."""
    named = {argument.name: k for k, argument in enumerate(aten(call.operator)._schema.arguments)}  # type: ignore[attr-defined]
    keywords = dict(call.kwargs)

    def value(name: str) -> Argument:
        return keywords[name] if name in keywords else call.args[named[name]] if named[name] < len(call.args) else None

    if call.operator == "group_norm.default":
        groups = value("num_groups")
        return size.numel() // groups if isinstance(groups, int) else 1
    if call.operator in TRAILING:
        axes = value("normalized_shape")
        return math.prod(size[-len(axes) :]) if isinstance(axes, tuple) else 1
    if "kernel_size" in named:
        kernel = value("kernel_size")
        dimensions = len(size) - 2
        kernel = kernel if isinstance(kernel, tuple) else (kernel,)
        return math.prod(k for k in kernel * (dimensions if len(kernel) == 1 else 1) if isinstance(k, int))
    if "dim" in named and call.operator in DIMENSIONS | POOLS and call.operator != "glu.default":
        dims = value("dim")
        dims = dims if isinstance(dims, tuple) else (dims,)
        return math.prod(size[dim] for dim in dims if isinstance(dim, int)) if dims != (None,) else size[1:].numel()
    return 1
