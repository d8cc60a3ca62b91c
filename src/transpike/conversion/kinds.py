"""The kinds of operation that a converted network is made of: one row each says how it runs, rescales and counts.

- ``input``;
- the weighted maps ``convolution`` and ``linear``; the elementwise map ``affine``;
- ``add``, ``cat``, ``stack``, ``slice``, ``select``, ``reshape``, ``permute``, ``mean``, ``sum``, ``resample`` (pooling
  by averages, interpolation and padding): linear, without weights;
- ``call``: any other function of its inputs, as data; a layer of neurons where the operation fires;
- ``refused``: stands in for what has no spiking form, while all such places are collected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from transpike.coding.function import aten
from transpike.conversion.op import Op
from transpike.errors import ConversionError

__all__ = ["KINDS", "Kind", "apply", "resampling", "title", "weighted"]

RESAMPLE = frozenset(
    [f"{kind}{n}d.default" for kind in ("avg_pool", "adaptive_avg_pool") for n in (1, 2, 3)]
    + [f"upsample_{kind}.vec" for kind in ("linear1d", "bilinear2d", "trilinear3d", "bicubic2d")]
    + [f"upsample_nearest{n}d.vec" for n in (1, 2, 3)]
    + [f"_upsample_nearest_exact{n}d.vec" for n in (1, 2, 3)]
    + ["pad.default", "constant_pad_nd.default"]
)

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What the converter must know of a kind of operation.

    Attributes:
        run: the result for the operation, its tensors and its inputs.
        weighted: whether its products with weights are synapses.
        factor: the tensor that takes ratios of amplitudes, if the operation has one.
        constant: the tensor that is a constant on a current, and so enters by the scheme's shares.
        ones: the result with every non-zero coefficient replaced by one, by which synapses are counted; as `run` where
            the operation only moves values.
        fresh: whether the result shares no memory with the inputs.
        title: what it computes, in the field's words; its kind by default.
    """

    run: Callable[..., Tensor]
    weighted: bool = False
    factor: str | None = None
    constant: str | None = None
    ones: Callable[..., Tensor] | None = None
    fresh: bool = False
    title: Callable[[Op], str] = lambda op: op.kind


def resampling(op: Op) -> Callable[..., Tensor]:
    """PyTorch's operator of an operation of kind ``resample``, if it is one that a graph may hold."""
    name = op.args["operator"]
    if name not in RESAMPLE:
        raise ConversionError(f"a converted network cannot hold the operator {name!r}")
    return aten(name)


def _convolution(op: Op, tensors: Tensors, x: Tensor) -> Tensor:
    return torch.convolution(
        x,
        tensors["weight"],
        tensors.get("bias"),
        op.args["stride"],
        op.args["padding"],
        op.args["dilation"],
        op.args["transposed"],
        op.args["output_padding"],
        op.args["groups"],
    )


def _linear(op: Op, tensors: Tensors, x: Tensor) -> Tensor:
    return F.linear(x, tensors["weight"], tensors.get("bias"))


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
    raise ConversionError(f"{op.name}: nothing computes an operation of kind {op.kind!r}")


# -- synapses counted -------------------------------------------------------------------------------------------------


def _nonzero(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda op, tensors, x: run(op, {"weight": (tensors["weight"] != 0).float().cpu()}, x)


def _summed(op: Op, tensors: Tensors, x: Tensor) -> Tensor:
    return x.sum(op.args["dim"], op.args["keepdim"])


def _spread(op: Op, tensors: Tensors, x: Tensor) -> Tensor:
    """Pooling and interpolation work on each axis by itself: one matrix of ones and zeros an axis."""
    resample = resampling(op)
    if op.args["operator"].startswith(("pad.", "constant_pad")):  # ones and zeros already, on any axis
        return resample(x, *op.args["args"])
    shape = x.shape[2:]
    for axis, size in enumerate(shape):
        probe = torch.eye(size).view(size, 1, *(size if a == axis else 1 for a in range(len(shape))))
        touched = resample(probe.expand(size, 1, *shape).contiguous(), *op.args["args"]) != 0
        matrix = touched.amax([a + 1 for a in range(len(shape) + 1) if a != axis + 1]).float()  # [from, to]
        x = torch.tensordot(x, matrix, dims=([axis + 2], [0])).movedim(-1, axis + 2)
    return x


KINDS: dict[str, Kind] = {
    "input": Kind(run=_nothing, title=lambda op: "encoder"),
    "convolution": Kind(
        run=_convolution, weighted=True, factor="weight", constant="bias", ones=_nonzero(_convolution), fresh=True
    ),
    "linear": Kind(run=_linear, weighted=True, factor="weight", constant="bias", ones=_nonzero(_linear), fresh=True),
    "affine": Kind(run=_affine, factor="scale", constant="shift", ones=lambda op, tensors, x: x),
    "add": Kind(run=lambda op, tensors, a, b: a + b, fresh=True),
    "cat": Kind(run=lambda op, tensors, *xs: torch.cat(xs, op.args["dim"])),
    "stack": Kind(run=lambda op, tensors, *xs: torch.stack(xs, op.args["dim"])),
    "slice": Kind(run=_slice),
    "select": Kind(run=lambda op, tensors, x: x.select(op.args["dim"], op.args["index"])),
    "reshape": Kind(run=lambda op, tensors, x: x.reshape(len(x), *op.args["shape"])),
    "permute": Kind(run=lambda op, tensors, x: x.permute(op.args["dims"])),
    "mean": Kind(run=lambda op, tensors, x: x.mean(op.args["dim"], op.args["keepdim"]), ones=_summed),
    "sum": Kind(run=lambda op, tensors, x: x.sum(op.args["dim"], op.args["keepdim"]), ones=_summed),
    "resample": Kind(run=_resample, ones=_spread),
    "call": Kind(run=_call, title=lambda op: op.function.name),
    "refused": Kind(run=_nothing),
}


def weighted(op: Op) -> bool:
    """Whether an operation's products with weights are synapses."""
    return KINDS[op.kind].weighted


def title(op: Op) -> str:
    """What an operation computes, in the field's words."""
    return KINDS[op.kind].title(op)


def apply(op: Op, tensors: Mapping[str, Tensor], *inputs: Tensor) -> Tensor:
    """Run one operation on tensors whose first axis counts samples (or steps times samples)."""
    if op.gains and op.kind == "add":
        a, b = inputs
        first, second = op.gains
        return (a if first == 1 else a * first).add(b, alpha=second)
    if op.gains:
        inputs = tuple(x if gain == 1 else x * gain for x, gain in zip(inputs, op.gains, strict=True))
    return KINDS[op.kind].run(op, tensors, *inputs)
