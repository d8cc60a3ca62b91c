"""The lowering of every PyTorch operator that has a spiking form, by the operator's name.

Each takes the `transpike.conversion.lowering.Lowering`, the node, and the operator's arguments by their names (the
first is ``input``); activations are names of operations, parameters are tensors. It returns the name of the operation
it emitted, a list of them, or UNSUPPORTED where these arguments have no spiking form.
"""

from __future__ import annotations

from collections.abc import Callable

from transpike.conversion.lowering import Value
from transpike.conversion.operators import activations, arithmetic, shapes, weighted

__all__ = ["OPERATORS"]

OPERATORS: dict[str, Callable[..., Value]] = {
    **shapes.OPERATORS,
    **weighted.OPERATORS,
    **arithmetic.OPERATORS,
    **activations.OPERATORS,
}
