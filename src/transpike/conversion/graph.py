"""The converter's representation of a network: a list of named operations, each with plain arguments and tensors.

Nothing here depends on Python classes of a user's model. So a graph can be written as JSON and safetensors, and read
without the code from which it came. `transpike.conversion.kinds` lists the kinds of operations and what each does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from transpike.conversion.kinds import apply, reads
from transpike.conversion.op import Op
from transpike.results import Spikes

__all__ = ["Graph"]


@dataclass(frozen=True, eq=False)
class Graph:
    """Operations in an order in which they can run, and the names of the outputs.

    Attributes:
        ops: the operations.
        outputs: the names of the operations whose results are the network's outputs.
        container: the form of the outputs: ``"tensor"``, ``"tuple"``, ``"list"``, or a list of dictionary keys.
        joined: the name of the other operation, for layers of the model that became part of another operation.
        step: the sides of images may differ from the traced ones by multiples of this number. 0 if they may not differ.
        fixed: the reason why they may not.
        spikes: at which of the model's operators there are neurons: see `transpike.conversion.place`.
    """

    ops: tuple[Op, ...]
    outputs: tuple[str, ...]
    container: str | list[str] = "tensor"
    joined: Mapping[str, str] = field(default_factory=dict)
    spikes: Spikes = "needed"
    step: int = 0
    fixed: str = ""

    def __iter__(self) -> Iterator[Op]:
        return iter(self.ops)

    def __getitem__(self, name: str) -> Op:
        return self.by_name[name]

    @cached_property
    def by_name(self) -> dict[str, Op]:
        return {op.name: op for op in self.ops}

    @cached_property
    def order(self) -> dict[str, int]:
        """The position of every operation in the order."""
        return {op.name: k for k, op in enumerate(self.ops)}

    @property
    def input(self) -> Op:
        return self.ops[0]

    @cached_property
    def neurons(self) -> list[Op]:
        return [op for op in self.ops if op.fires]

    @cached_property
    def spiking(self) -> frozenset[str]:
        """The operations up to the last ones that need spikes: weighted layers, products, and all before them."""
        out: set[str] = set()
        for op in reversed(self.ops):
            if reads(op) or op.name in out:
                out |= {op.name, *op.inputs}
        return frozenset(out)

    @cached_property
    def readouts(self) -> frozenset[str]:
        """The spiking operations whose results are decoded: outputs, and inputs of operations that are not spiking."""
        readers = [name for op in self.ops if op.name not in self.spiking for name in op.inputs]
        return self.spiking.intersection([*readers, *self.outputs])

    @cached_property
    def consumers(self) -> dict[str, list[Op]]:
        """The operations that read each operation (once for each edge)."""
        out: dict[str, list[Op]] = defaultdict(list)
        for op in self.ops:
            for name in op.inputs:
                out[name].append(op)
        return dict(out)

    def read_once(self, name: str) -> bool:
        """Whether only one operation reads the result, only once, and it is no output."""
        return len(self.consumers.get(name, ())) == 1 and name not in self.outputs

    def pack(self, values: Mapping[str, Tensor]) -> Any:
        """Return the outputs in the form in which the original network returned them."""
        outputs = [values[name] for name in self.outputs]
        match self.container:
            case "tensor":
                return outputs[0]
            case "tuple":
                return tuple(outputs)
            case "list":
                return outputs
            case keys:
                return dict(zip(keys, outputs, strict=True))

    def run(
        self,
        x: Tensor,
        observe: Callable[[Op, Tensor], None] | None = None,
        heard: Callable[[Op, Tensor], None] | None = None,
    ) -> dict[str, Tensor]:
        """Run the analog network: every operation on real values, for ``x`` of shape [N, \\*].

        ``observe(op, value)`` is called for the input and for every neuron. ``heard(op, operand)`` is called before it
        for every neuron with one operand. Returns the outputs by name.
        """
        uses = {name: len(ops) for name, ops in self.consumers.items()}
        values: dict[str, Tensor] = {}
        for op in self.ops:
            if heard and op.fires and len(op.inputs) == 1:
                heard(op, values[op.inputs[0]])
            value = apply(op, op.tensors, *(values[name] for name in op.inputs) if op.inputs else (x,))
            if observe and (op.kind == "input" or op.fires):
                observe(op, value)
            values[op.name] = value
            for name in op.inputs:
                uses[name] -= 1
                if not uses[name] and name not in self.outputs:
                    values.pop(name, None)
        return {name: values[name] for name in self.outputs}
