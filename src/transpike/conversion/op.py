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
    """A number of an operation that follows the size of the image: a product of axes of another operation's result.

    Attributes:
        path: of the number, in the operation's arguments or its function as plain data.
        name: of the other operation.
        first: of its sample's axes, the first of the product.
        last: the one behind the last.
        factor: of the product.
    """

    path: tuple[str | int, ...]
    name: str
    first: int
    last: int
    factor: int = 1


@dataclass(frozen=True, eq=False)
class Op:
    """One operation: its kind, what it reads (names of other operations), and the shape of one sample it yields.

    Attributes:
        name: leads back to the model's source.
        kind: a key of `transpike.conversion.kinds.KINDS`.
        inputs: names of operations, one an operand.
        shape: of one sample.
        args: plain values that the kind needs.
        tensors: weights and other constants, by name.
        gains: factors of the inputs; they carry the ratio of spike amplitudes over edges that have no weights of their
            own. Empty where all are 1.
        function: what an operation of kind ``call`` computes.
        fires: whether it is a layer of neurons: spikes leave it.
        follows: its numbers that follow the size of the image; see `transpike.conversion.sizes`.
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
        """The name of one of its tensors within the network."""
        return f"{self.name}.{name}".replace(".", "/")
