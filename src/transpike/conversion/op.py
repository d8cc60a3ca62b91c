"""One operation of a converted network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from transpike.coding.function import Function

__all__ = ["Follow", "Op"]


@dataclass(frozen=True)
class Follow:
    """A number of an operation that depends on the size of the image: a product of axes of another operation's result.

    Attributes:
        path: the number's path in the operation's arguments, or in its function as plain data.
        name: the other operation.
        first: the first axis of its sample in the product.
        last: one more than the last axis in the product.
        factor: a factor of the product.
    """

    path: tuple[str | int, ...]
    name: str
    first: int
    last: int
    factor: int = 1


@dataclass(frozen=True, eq=False)
class Op:
    """One operation: its kind, the names of the operations that it reads, and the shape of its result for one sample.

    Attributes:
        name: leads back to the model's source.
        kind: a key of `transpike.conversion.kinds.KINDS`.
        inputs: the names of operations, one for each operand.
        shape: the shape of one sample.
        args: plain values that the kind needs.
        tensors: weights and other constants, by name.
        gains: factors of the inputs. They hold the ratio of spike amplitudes on edges that have no weights of their
            own. Empty if all are 1.
        function: the function that an operation of kind ``call`` computes.
        fires: whether the operation is a layer of neurons, which sends spikes.
        follows: the numbers that depend on the size of the image; see `transpike.conversion.sizes`.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    args: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    gains: tuple[float, ...] = ()
    function: Function = field(default_factory=Function)
    fires: bool = False
    follows: tuple[Follow, ...] = ()

    def key(self, name: str) -> str:
        """Return the name of one of its tensors within the network."""
        return f"{self.name}.{name}".replace(".", "/")
