"""The lowering of PyTorch's operators that are more than a function of values, by the operator's name.

A lowering takes the `transpike.conversion.lowering.Lowering`, the node, and the operator's arguments by their names
(the first is ``input``). Activations are names of operations, and parameters are tensors. It returns the name of the
operation that it emitted, a list of names, or UNSUPPORTED if it has no form for these arguments. Then
`functions.called` is tried.
"""

from __future__ import annotations

from collections.abc import Callable

from transpike.conversion.lowering import Value
from transpike.conversion.operators import activations, arithmetic, moves, norms, patches, products, shapes, weighted

__all__ = ["OPERATORS", "SIZED"]

OPERATORS: dict[str, Callable[..., Value]] = {
    **moves.OPERATORS,
    **shapes.OPERATORS,
    **weighted.OPERATORS,
    **products.OPERATORS,
    **arithmetic.OPERATORS,
    **activations.OPERATORS,
    **norms.OPERATORS,
    **patches.OPERATORS,
}
SIZED = (
    frozenset(moves.OPERATORS)
    | set(shapes.RESHAPES)
    | {"slice", "view_copy", "split_with_sizes", "conv2d", "convolution"}
)
"""Operators whose arguments may contain the number of samples, as a size."""
