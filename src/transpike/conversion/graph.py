"""The converter's own picture of a network: a list of named operations, each with plain arguments and its tensors.

Nothing here knows Python classes of a user's model, so a graph can be written as JSON beside safetensors and read back
without the code it came from. `transpike.conversion.kinds` lists the kinds of operation and what each does.
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
    """Operations in an order in which they can run, and which of them leave the network.

    Attributes:
        ops: the operations.
        outputs: names of those that leave the network.
        container: how outputs are returned: ``"tensor"``, ``"tuple"``, ``"list"``, or a list of dictionary keys.
        joined: for layers of the model that became part of another operation, the name of that one.
        step: images may have sides that differ from those it was traced at by multiples of it; 0 where they may not.
        fixed: why they may not.
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
        """The place of every operation among all."""
        return {op.name: k for k, op in enumerate(self.ops)}

    @property
    def input(self) -> Op:
        return self.ops[0]

    @cached_property
    def neurons(self) -> list[Op]:
        return [op for op in self.ops if op.fires]

    @cached_property
    def spiking(self) -> frozenset[str]:
        """The operations from which spikes must still travel: weighted layers, products, and all before one."""
        out: set[str] = set()
        for op in reversed(self.ops):
            if reads(op) or op.name in out:
                out |= {op.name, *op.inputs}
        return frozenset(out)

    @cached_property
    def readouts(self) -> frozenset[str]:
        """The spiking operations whose results are decoded: outputs, and what other operations read."""
        readers = [name for op in self.ops if op.name not in self.spiking for name in op.inputs]
        return self.spiking.intersection([*readers, *self.outputs])

    @cached_property
    def consumers(self) -> dict[str, list[Op]]:
        """For every operation that is read, those that read it (once per edge)."""
        out: dict[str, list[Op]] = defaultdict(list)
        for op in self.ops:
            for name in op.inputs:
                out[name].append(op)
        return dict(out)

    def read_once(self, name: str) -> bool:
        """Whether one operation reads it, once, and it is no output."""
        return len(self.consumers.get(name, ())) == 1 and name not in self.outputs

    def pack(self, values: Mapping[str, Tensor]) -> Any:
        """The outputs in the form in which the network returned them."""
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
        """The analog network: every operation on real values, for ``x`` of shape [N, \\*].

        ``observe(op, value)`` is called for the input and for every neuron, ``heard(op, operand)`` before for every
        neuron of one operand. Returns the outputs by name.
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
