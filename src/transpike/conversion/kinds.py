"""The kinds of operations in a converted network. Each row says how a kind is run, rescaled and counted.

- ``input``: the images.
- ``convolution``, ``linear`` and ``contraction`` (any other sum of products with weights): maps with weights.
- ``affine``: a factor and a constant for each value.
- ``product``: a sum of products of two activations, as in attention.
- ``add``, ``cat``, ``stack``, ``slice``, ``select``, ``reshape``, ``permute``, ``gather`` (any other move, by index),
  ``mean``, ``sum``, ``resample`` (average pooling, interpolation and padding): linear, without weights.
- ``call``: any other function of its inputs, as data. If the operation fires, it is a layer of neurons.
- ``refused``: a placeholder for an operation without a spiking form. Conversion collects all of them, then reports
  them together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from transpike.coding.function import RELATIVE, Argument, Call, Constant, Function, Operand, Result, argument
from transpike.coding.operators import aten
from transpike.conversion.op import Op
from transpike.errors import ConversionError

__all__ = ["KINDS", "RELATIVE", "Kind", "apply", "averages", "reads", "resampled", "resampling", "title", "weighted"]

RESAMPLE = frozenset(
    [f"{kind}{n}d.default" for kind in ("avg_pool", "adaptive_avg_pool") for n in (1, 2, 3)]
    + [f"upsample_{kind}.vec" for kind in ("linear1d", "bilinear2d", "trilinear3d", "bicubic2d")]
    + [f"upsample_nearest{n}d.vec" for n in (1, 2, 3)]
    + [f"_upsample_nearest_exact{n}d.vec" for n in (1, 2, 3)]
    + ["pad.default", "constant_pad_nd.default"]
)
PADDING = ("pad.default", "constant_pad_nd.default")

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Facts about a kind of operation.

    Attributes:
        run: a function of the operation, its tensors and its inputs. It returns the result.
        weighted: whether its products with weights are synapses.
        product: whether it multiplies two trains.
        factor: the key of the tensor that ratios of amplitudes are multiplied into. None if there is none.
        constant: the key of the tensor that is added to a current, in the scheme's share of each step. None if there is
            none.
        ones: like `run`, but with every non-zero coefficient replaced by one, to count synapses. None if the operation
            only moves values: then `run` counts.
        calls: returns the operation as a function of its inputs. None if it cannot be part of a neuron's function.
        fresh: whether the result shares no memory with the inputs.
        title: returns the operation's name in the terms of the field. The default is its kind.
    """

    run: Callable[..., Tensor]
    weighted: bool = False
    product: bool = False
    factor: str | None = None
    constant: str | None = None
    ones: Callable[..., Tensor] | None = None
    calls: Callable[[Op], Function] | None = None
    fresh: bool = False
    title: Callable[[Op], str] = lambda op: op.kind


def resampling(op: Op) -> Callable[..., Tensor]:
    """Return PyTorch's operator for an operation of kind ``resample``.

    Raises:
        ConversionError: A converted network cannot hold this operator.
    """
    name = op.args["operator"]
    if name not in RESAMPLE:
        raise ConversionError(f"{op.name}: a converted network cannot hold the operator {name!r}")
    return aten(name)


def resampled(op: Op) -> int:
    """Return on how many axes, counted from the last, a pooling or an interpolation works."""
    return int(next(letter for letter in op.args["operator"] if letter.isdigit()))


def _input(op: Op, tensors: Tensors, x: Tensor) -> Tensor:
    return x / tensors[RELATIVE] if RELATIVE in tensors else x


def _convolution(op: Op, tensors: Tensors, x: Tensor) -> Tensor:
    """Run a convolution. Axes between the samples and the channels are copies of the layer."""
    weight, copies = tensors["weight"], x.ndim - tensors["weight"].ndim
    y = torch.convolution(
        x.flatten(0, copies) if copies else x,
        weight,
        tensors.get("bias"),
        op.args["stride"],
        op.args["padding"],
        op.args["dilation"],
        op.args["transposed"],
        op.args["output_padding"],
        op.args["groups"],
    )
    return y.unflatten(0, x.shape[: copies + 1]) if copies else y


def _linear(op: Op, tensors: Tensors, x: Tensor) -> Tensor:
    return F.linear(x, tensors["weight"], tensors.get("bias"))


def _contraction(op: Op, tensors: Tensors, x: Tensor) -> Tensor:
    return torch.einsum(op.args["equation"], x, tensors["weight"])


def _product(op: Op, tensors: Tensors, a: Tensor, b: Tensor) -> Tensor:
    return torch.einsum(op.args["equation"], a, b)


def _gather(op: Op, tensors: Tensors, x: Tensor) -> Tensor:
    """Move the values of each sample by index. With ``zeros``, index 0 is a zero, and the values begin at index 1."""
    x = x.flatten(1)
    x = F.pad(x, (1, 0)) if op.args["zeros"] else x
    return x.index_select(1, tensors["index"]).view(x.shape[0], *op.shape)


def _affine(op: Op, tensors: Tensors, x: Tensor) -> Tensor:
    if "scale" in tensors:
        x = x * tensors["scale"]
    return x + tensors["shift"] if "shift" in tensors else x


def _resample(op: Op, tensors: Tensors, x: Tensor) -> Tensor:
    return resampling(op)(x, *op.args["args"])


def _slice(op: Op, tensors: Tensors, x: Tensor) -> Tensor:
    return torch.ops.aten.slice(x, op.args["dim"], op.args["start"], op.args["end"], op.args["step"])  # type: ignore[no-any-return]


def _call(op: Op, tensors: Tensors, *inputs: Tensor) -> Tensor:
    return op.function(*inputs, constants=tensors)


def _nothing(op: Op, tensors: Tensors, *inputs: Tensor) -> Tensor:
    raise ConversionError(f"{op.name}: an operation of kind {op.kind!r} cannot be run")


# -- counting synapses ------------------------------------------------------------------------------------------------


def _nonzero(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda op, tensors, x: run(op, {"weight": (tensors["weight"] != 0).float().cpu()}, x)


def _summed(op: Op, tensors: Tensors, x: Tensor) -> Tensor:
    return x.sum(op.args["dim"], op.args["keepdim"])


def _spread(op: Op, tensors: Tensors, x: Tensor) -> Tensor:
    """Count a pooling or an interpolation, axis by axis, each with a matrix of ones and zeros."""
    resample = resampling(op)
    if op.args["operator"].startswith(("pad.", "constant_pad")):  # its coefficients are ones and zeros, on any axis
        return resample(x, *op.args["args"])
    first = x.ndim - resampled(op)
    shape = x.shape[first:]
    for axis, size in enumerate(shape):
        probe = torch.eye(size).view(size, 1, *(size if a == axis else 1 for a in range(len(shape))))
        touched = resample(probe.expand(size, 1, *shape).contiguous(), *op.args["args"]) != 0
        matrix = touched.amax([a + 1 for a in range(len(shape) + 1) if a != axis + 1]).float()  # [from, to]
        x = torch.tensordot(x, matrix, dims=([first + axis], [0])).movedim(-1, first + axis)
    return x


def _paired(op: Op, tensors: Tensors, a: Tensor, b: Tensor) -> Tensor:
    """Count the products of each result, once for each operand."""
    return _product(op, tensors, a, torch.ones_like(b)) + _product(op, tensors, torch.ones_like(a), b)


# -- parts of a function ----------------------------------------------------------------------------------------------

X = Operand(0)


def _one(name: str, *keys: str) -> Callable[[Op], Function]:
    """Return a function that calls one operator with the input and these arguments of the operation."""
    return lambda op: Function.of(name, X, *(argument(op.args[key]) for key in keys))


def _joins(name: str) -> Callable[[Op], Function]:
    def calls(op: Op) -> Function:
        parts: Argument = tuple(Operand(k) for k in range(len(op.inputs)))
        return Function.of(name, parts, op.args["dim"], operands=len(op.inputs))

    return calls


def _added(op: Op) -> Function:
    first, second = op.gains or (1.0, 1.0)
    scaled = () if first == 1 else (Call("mul.Scalar", (X, first)),)
    a: Argument = Result(0) if scaled else X
    return Function((*scaled, Call("add.Tensor", (a, Operand(1)), (("alpha", second),))), operands=2)


def _scaled(op: Op) -> Function:
    function = Function()
    for key, name in (("scale", "mul.Tensor"), ("shift", "add.Tensor")):
        if key in op.tensors:
            function = function.then(Function.of(name, X, Constant(key)))
    return function


def _gathered(op: Op) -> Function:
    function = Function.of("reshape.default", X, (-1, op.args["size"]))
    if op.args["zeros"]:
        function = function.then(Function.of("constant_pad_nd.default", X, (1, 0), 0.0))
    function = function.then(Function.of("index_select.default", X, 1, Constant("index")))
    return function.then(Function.of("reshape.default", X, (-1, *op.shape)))


def _padded(op: Op) -> Function:
    return Function.of(op.args["operator"], X, *map(argument, op.args["args"]))


KINDS: dict[str, Kind] = {
    "input": Kind(run=_input, title=lambda op: "encoder"),
    "convolution": Kind(
        run=_convolution, weighted=True, factor="weight", constant="bias", ones=_nonzero(_convolution), fresh=True
    ),
    "linear": Kind(run=_linear, weighted=True, factor="weight", constant="bias", ones=_nonzero(_linear), fresh=True),
    "contraction": Kind(run=_contraction, weighted=True, factor="weight", ones=_nonzero(_contraction), fresh=True),
    "product": Kind(run=_product, product=True, ones=_paired, fresh=True),
    "affine": Kind(
        run=_affine, factor="scale", constant="shift", ones=lambda op, tensors, x: x, calls=_scaled, fresh=True
    ),
    "add": Kind(run=lambda op, tensors, a, b: a + b, calls=_added, fresh=True),
    "cat": Kind(run=lambda op, tensors, *xs: torch.cat(xs, op.args["dim"]), calls=_joins("cat.default")),
    "stack": Kind(run=lambda op, tensors, *xs: torch.stack(xs, op.args["dim"]), calls=_joins("stack.default")),
    "slice": Kind(run=_slice, calls=_one("slice.Tensor", "dim", "start", "end", "step")),
    "select": Kind(
        run=lambda op, tensors, x: x.select(op.args["dim"], op.args["index"]), calls=_one("select.int", "dim", "index")
    ),
    "reshape": Kind(
        run=lambda op, tensors, x: x.reshape(
            x.shape[0], *op.args["shape"]
        ),  # x.shape[0] stays variable in an exported program; len(x) does not
        calls=lambda op: Function.of("reshape.default", X, (-1, *op.args["shape"])),
    ),
    "permute": Kind(run=lambda op, tensors, x: x.permute(op.args["dims"]), calls=_one("permute.default", "dims")),
    "gather": Kind(run=_gather, ones=lambda op, tensors, x: _gather(op, op.tensors, x), calls=_gathered),
    "mean": Kind(
        run=lambda op, tensors, x: x.mean(op.args["dim"], op.args["keepdim"]),
        ones=_summed,
        calls=_one("mean.dim", "dim", "keepdim"),
    ),
    "sum": Kind(
        run=lambda op, tensors, x: x.sum(op.args["dim"], op.args["keepdim"]),
        ones=_summed,
        calls=_one("sum.dim_IntList", "dim", "keepdim"),
    ),
    "resample": Kind(run=_resample, ones=_spread, calls=_padded),
    "call": Kind(run=_call, title=lambda op: op.function.real.name, calls=lambda op: op.function),
    "refused": Kind(run=_nothing),
}


def weighted(op: Op) -> bool:
    """Whether an operation's products with weights are synapses."""
    return KINDS[op.kind].weighted


def reads(op: Op) -> bool:
    """Whether an operation needs trains as its inputs: it has weights, or it multiplies two trains."""
    return KINDS[op.kind].weighted or KINDS[op.kind].product


def averages(op: Op) -> bool:
    """Whether an operation sums values of one activation without weights, as pooling does."""
    return op.kind in ("mean", "sum") or (op.kind == "resample" and op.args["operator"] not in PADDING)


def title(op: Op) -> str:
    """Return the name of an operation in the terms of the field."""
    return KINDS[op.kind].title(op)


def apply(op: Op, tensors: Mapping[str, Tensor], *inputs: Tensor) -> Tensor:
    """Run one operation on tensors whose first axis counts samples (or steps times samples)."""
    if op.gains and op.kind == "add":
        a, b = inputs
        first, second = op.gains
        if first == 1 or a.shape != b.shape:
            return (a if first == 1 else a * first).add(b, alpha=second)
        return (a * first).add_(b, alpha=second)
    if op.gains and len(inputs) == 1 and KINDS[op.kind].constant is None:  # linear; the result may have fewer values
        return KINDS[op.kind].run(op, tensors, *inputs) * op.gains[0]
    if op.gains:
        inputs = tuple(x if gain == 1 else x * gain for x, gain in zip(inputs, op.gains, strict=True))
    return KINDS[op.kind].run(op, tensors, *inputs)
