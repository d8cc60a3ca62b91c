"""The converter's own picture of a network: a list of named operations, each with plain arguments and its tensors.

Nothing here knows Python classes of a user's model, so a graph can be written as JSON beside safetensors and read back
without the code it came from. Targets name what an operation does:

- ``input``; the weighted maps ``convolution`` and ``linear``; the elementwise map ``affine``;
- ``add``, ``cat``, ``stack``, ``slice``, ``select``, ``reshape``, ``permute``, ``mean``, ``sum``: linear, without
  weights;
- ``resample:<operator>``: pooling by averages, interpolation and padding, run by PyTorch's operator of that name;
- ``activation``: a piecewise linear function, of the maximum over windows where ``pool`` is given; ``neuron`` where
  spikes must leave it;
- ``decoded:<operator>``: any other function; it has no spiking form and can only stand behind the last weighted layer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from transpike.errors import ConversionError

__all__ = ["DECODED", "KINDS", "WEIGHTED", "Graph", "Op", "apply", "max_pool", "operator"]

WEIGHTED = ("convolution", "linear")

RESAMPLE = frozenset(
    [f"{kind}{n}d.default" for kind in ("avg_pool", "adaptive_avg_pool") for n in (1, 2, 3)]
    + [f"upsample_{kind}.vec" for kind in ("linear1d", "bilinear2d", "trilinear3d", "bicubic2d")]
    + [f"upsample_nearest{n}d.vec" for n in (1, 2, 3)]
    + [f"_upsample_nearest_exact{n}d.vec" for n in (1, 2, 3)]
    + ["pad.default", "constant_pad_nd.default"]
)
POOLS = frozenset(
    [f"max_pool{n}d.default" for n in (1, 2, 3)]
    + [f"adaptive_max_pool{n}d.default" for n in (1, 2, 3)]
    + ["amax.default"]
)
DECODED = frozenset(
    [
        f"{name}.default"
        for name in [
            "sigmoid",
            "tanh",
            "exp",
            "log",
            "sqrt",
            "abs",
            "square",
            "gelu",
            "silu",
            "hardswish",
            "hardsigmoid",
            "elu",
        ]
    ]
    + [f"{name}.{kind}" for name in ("mul", "div") for kind in ("Tensor", "Scalar")]
    + ["softmax.int", "log_softmax.int", "softplus.default", "pow.Tensor_Scalar", "argmax.default"]
    + ["linalg_vector_norm.default", "norm.ScalarOpt_dim", "expand_as.default"]
)


def operator(name: str) -> Callable[..., Any]:
    """PyTorch's operator ``name`` (as ``"avg_pool2d.default"``), if it is one of those a graph may hold."""
    if name not in RESAMPLE | POOLS | DECODED:
        raise ConversionError(f"a converted network cannot hold the operator {name!r}")
    base, overload = name.split(".")
    function: Callable[..., Any] = getattr(getattr(torch.ops.aten, base), overload)
    return function


@dataclass(frozen=True, eq=False)
class Op:
    """One operation: what it is, what it reads (names of other operations), and the shape of one sample it yields.

    ``gains`` multiply the inputs; they carry the ratio of spike amplitudes over edges that have no weights of their
    own.
    """

    name: str
    target: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    args: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    gains: tuple[float, ...] = ()

    @property
    def weighted(self) -> bool:
        return self.target in WEIGHTED


@dataclass(frozen=True, eq=False)
class Graph:
    """Operations in an order in which they can run, and which of them leave the network.

    ``container`` tells how outputs are returned: ``"tensor"``, ``"tuple"``, ``"list"``, or a list of dictionary keys.
    """

    ops: tuple[Op, ...]
    outputs: tuple[str, ...]
    container: str | list[str] = "tensor"

    def __iter__(self) -> Iterator[Op]:
        return iter(self.ops)

    def __getitem__(self, name: str) -> Op:
        return self.by_name[name]

    @property
    def by_name(self) -> dict[str, Op]:
        return {op.name: op for op in self.ops}

    @property
    def input(self) -> Op:
        return self.ops[0]

    @property
    def neurons(self) -> list[Op]:
        return [op for op in self.ops if op.target == "neuron"]

    def spiking(self) -> set[str]:
        """The operations from which spikes must still travel: weighted layers, and all that lies before one."""
        out: set[str] = set()
        for op in reversed(self.ops):
            if op.weighted or op.name in out:
                out |= {op.name, *op.inputs}
        return out

    def consumers(self) -> dict[str, list[Op]]:
        """For every operation, those that read it (once per edge)."""
        out: dict[str, list[Op]] = defaultdict(list)
        for op in self.ops:
            for name in op.inputs:
                out[name].append(op)
        return out

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

    def run(self, x: Tensor, observe: Callable[[Op, Tensor], None] | None = None) -> dict[str, Tensor]:
        """The analog network: every operation on real values, for ``x`` of shape [N, \\*].

        ``observe(op, value)`` is called for the input and for every neuron. Returns the outputs by name.
        """
        uses = {name: len(ops) for name, ops in self.consumers().items()}
        values: dict[str, Tensor] = {}
        for op in self.ops:
            value = x if op.target == "input" else apply(op, op.tensors, *(values[name] for name in op.inputs))
            if observe and op.target in ("input", "neuron"):
                observe(op, value)
            values[op.name] = value
            for name in op.inputs:
                uses[name] -= 1
                if not uses[name] and name not in self.outputs:
                    values.pop(name, None)
        return {name: values[name] for name in self.outputs}


def _convolution(args: Mapping[str, Any], tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    return torch.convolution(
        x,
        tensors["weight"],
        tensors.get("bias"),
        args["stride"],
        args["padding"],
        args["dilation"],
        args["transposed"],
        args["output_padding"],
        args["groups"],
    )


def _affine(args: Mapping[str, Any], tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    if "scale" in tensors:
        x = x * tensors["scale"]
    return x + tensors["shift"] if "shift" in tensors else x


def _activation(args: Mapping[str, Any], tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    if args.get("pool"):
        x = max_pool(args["pool"], x)
    return piecewise(x, tensors.get("slope", args["slope"]), args["low"], args["high"])


def max_pool(pool: Mapping[str, Any], x: Tensor) -> Tensor:
    """The maximum over windows, by the operator and arguments a neuron's ``pool`` names."""
    result = operator(pool["operator"])(x, *pool["args"])
    return result[0] if isinstance(result, tuple) else result  # type: ignore[no-any-return]


def piecewise(x: Tensor, slope: Tensor | float, low: float | None, high: float | None) -> Tensor:
    """``clamp(x if x > 0 else slope * x, low, high)``: ReLU, its leaky and clipped kin, and the identity (slope 1)."""
    if isinstance(slope, Tensor):
        x = torch.where(x > 0, x, slope * x)
    elif slope == 0:
        x = x.relu()
    elif slope != 1:
        x = F.leaky_relu(x, slope)
    return x if low is None and high is None else x.clamp(low, high)


_RUN: dict[str, Callable[..., Tensor]] = {
    "convolution": _convolution,
    "linear": lambda args, tensors, x: F.linear(x, tensors["weight"], tensors.get("bias")),
    "affine": _affine,
    "activation": _activation,
    "neuron": _activation,
    "add": lambda args, tensors, a, b: a + b,
    "cat": lambda args, tensors, *xs: torch.cat(xs, args["dim"]),
    "stack": lambda args, tensors, *xs: torch.stack(xs, args["dim"]),
    "slice": lambda args, tensors, x: torch.ops.aten.slice(x, args["dim"], args["start"], args["end"], args["step"]),
    "select": lambda args, tensors, x: x.select(args["dim"], args["index"]),
    "reshape": lambda args, tensors, x: x.reshape(len(x), *args["shape"]),
    "permute": lambda args, tensors, x: x.permute(args["dims"]),
    "mean": lambda args, tensors, x: x.mean(args["dim"], args["keepdim"]),
    "sum": lambda args, tensors, x: x.sum(args["dim"], args["keepdim"]),
}


KINDS = frozenset([*_RUN, "input", "resample", "decoded"])


def apply(op: Op, tensors: Mapping[str, Tensor], *inputs: Tensor) -> Tensor:
    """Run one operation on tensors whose first axis counts samples (or steps times samples)."""
    if op.gains and op.target == "add":
        a, b = inputs
        first, second = op.gains
        return torch.add(a if first == 1 else a * first, b, alpha=second)
    if op.gains:
        inputs = tuple(x if gain == 1 else x * gain for x, gain in zip(inputs, op.gains, strict=True))
    kind, _, name = op.target.partition(":")
    if kind == "resample":
        return operator(name)(inputs[0], *op.args["args"])  # type: ignore[no-any-return]
    if kind == "decoded":
        constants = {f"constant {key}": value for key, value in tensors.items()}
        places = {f"input {k}": x for k, x in enumerate(inputs)} | constants
        args = [places.get(a, a) if isinstance(a, str) else a for a in op.args["args"]]
        return operator(name)(*args, **op.args["kwargs"])  # type: ignore[no-any-return]
    return _RUN[op.target](op.args, tensors, *inputs)
