r"""A network whose weights, biases and thresholds are whole numbers times powers of two.

A weight of output channel c becomes ``round(w 2^k_c) 2^-k_c``, with the largest k_c for which ``bits`` hold all weights
of the channel. A bias keeps a few more bits. Currents, states and the threshold ``2^Ts 2^e / 2`` are then whole in
units of ``2^-e`` (the finest exponent that reaches a layer). With a radix of 2 a neuron needs only shifts and
additions. The weights and the largest digit bound every current, and so also the bits that a state can need for any
image.

Every spiking operation has ``args["exponent"]``: its result (for neurons, their states) times 2 to this power is whole.
Layers of neurons and readouts also have ``args["state_bits"]``.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from transpike.coding.scheme import Scheme, constant_entry, ratio
from transpike.conversion.graph import Graph
from transpike.conversion.kinds import KINDS, apply
from transpike.conversion.op import Op
from transpike.errors import ConversionError

__all__ = ["Reach", "finest", "quantised", "reaches", "state_bits"]

_NEVER = -(2**20)

FRACTION = 4
"""Extra bits of a bias beyond those of the weights of its channel, because it is added at each of the T steps."""

MULTIPLIER = 12
"""Bits of the factor of an average over a number of values that is not a power of two."""


LARGEST = 50
"""The largest number of bits of a state, because double precision holds all whole numbers with so many bits."""


@dataclass(frozen=True)
class Reach:
    """The range of each value of a result: a multiple of ``2^-exponent`` with magnitude at most ``bound`` in a step."""

    exponent: Tensor
    bound: Tensor


def quantised(graph: Graph, scheme: Scheme, waits: Mapping[str, int], *, bits: int) -> Graph:
    """Return ``graph`` with whole weights and biases, in double precision.

    Raises:
        ConversionError: The radix is not a whole number, or an operation has no whole form.
    """
    name, beta = type(scheme).__name__, ratio(scheme)
    if beta is None or beta != int(beta) or constant_entry(scheme) is None:
        reason = f"a state would need another bit each step with beta={beta}"
        reason = "the weights of its steps have no constant ratio" if beta is None else reason
        reason = "its biases do not enter in equal shares" if constant_entry(scheme) is None else reason
        raise ConversionError(f"{name} has no form in whole numbers: {reason}; use CSS with beta=2")
    if scheme.encoded is None:
        raise ConversionError(
            f"{name}: its input is an analog current, and whole numbers need input spikes, as from transpike.CSS"
        )
    ops = tuple(_whole(graph, op, bits) if op.name in graph.spiking else op for op in graph)
    ops = tuple(replace(op, tensors=_double(op.tensors), follows=()) for op in ops)
    result = replace(graph, ops=ops, step=0, fixed="its whole numbers belong to one size")
    ranges = reaches(result, scheme)

    def facts(op: Op) -> dict[str, int]:
        if not ranges[op.name].bound.isfinite().all():
            raise ConversionError(
                f"{op.name}: the weights before this layer are not finite, or too large for whole numbers"
            )
        widths = {"exponent": int(ranges[op.name].exponent.max())}
        if op.fires or op.name in graph.readouts:
            widths["state_bits"] = state_bits(op, ranges[op.name], scheme, waits.get(op.name, 0))
        if max(widths.values()) > LARGEST:
            raise ConversionError(
                f"{op.name}: its states would need {max(widths.values())} bits; the limit is {LARGEST}. Use fewer "
                "bits or steps."
            )
        return widths

    marked = (replace(op, args={**op.args, **facts(op)}) if op.name in ranges else op for op in result)
    return replace(result, ops=tuple(marked))


def reaches(graph: Graph, scheme: Scheme) -> dict[str, Reach]:
    """Return the range of each spiking operation's result; for a layer of neurons, the range of its current."""
    ranges: dict[str, Reach] = {}
    sent = float(max(scheme.digits)), float(max(scheme.encoded or (math.inf,)))
    for op in graph:
        if op.name not in graph.spiking:
            continue
        shape = (1, *op.shape)
        inputs = [_train(graph[n], sent) if graph[n].fires or not graph[n].inputs else ranges[n] for n in op.inputs]
        if op.kind == "input":
            ranges[op.name] = Reach(torch.zeros(shape), torch.full(shape, sent[1]).double())
        elif op.fires:
            gains = op.gains or (1.0,) * len(inputs)
            ranges[op.name] = _merged(op, [_times(reach, gain) for reach, gain in zip(inputs, gains, strict=True)])
        else:
            ranges[op.name] = _through(op, inputs)
    return ranges


def state_bits(op: Op, reach: Reach, scheme: Scheme, wait: int) -> int:
    """Return the bits, including the sign, that hold every state of a layer or of the output for any image.

    A state counts in units of ``2^-exponent`` of its own channel. The accumulated input H is at most ``bound sum_t
    beta^t beta^Ts``, and the accumulated output G at most the largest train. Neurons compare their difference.
    """
    beta = ratio(scheme) or 1.0
    steps = sum(beta**t for t in range(len(scheme.weights)))
    unit = torch.exp2(reach.exponent.double())
    accumulated = reach.bound * steps * beta**wait * unit
    sent = max(scheme.digits) * steps * beta**wait * unit if op.fires else 0 * unit
    largest = min(float((accumulated.amax() + sent.amax()).clamp_min(1)), sys.float_info.max)
    return math.ceil(math.log2(largest + 1)) + 1


def _train(op: Op, sent: tuple[float, float]) -> Reach:
    shape = (1, *op.shape)
    return Reach(torch.zeros(shape), torch.full(shape, sent[0] if op.fires else sent[1]).double())


def _times(reach: Reach, gain: float) -> Reach:
    return Reach(reach.exponent + finest(torch.tensor(gain, dtype=torch.float64)), reach.bound * abs(gain))


def _merged(op: Op, inputs: list[Reach]) -> Reach:
    """Return the range of the joined operands of a function: the finest exponent and the largest bound of all."""
    finest = max(float(reach.exponent.max()) for reach in inputs)
    largest = max(float(reach.bound.max()) for reach in inputs)
    if len(inputs) == 1 and inputs[0].bound.shape == (1, *op.shape):
        return Reach(inputs[0].exponent.clamp_min(1), inputs[0].bound)
    shape = (1, *op.shape)
    return Reach(torch.full(shape, max(finest, 1.0)), torch.full(shape, largest).double())


def _through(op: Op, inputs: list[Reach]) -> Reach:
    gains = op.gains or (1.0,) * len(inputs)
    spread = [_times(reach, gain).exponent for reach, gain in zip(inputs, gains, strict=True)]
    bounds = [reach.bound * abs(gain) for reach, gain in zip(inputs, gains, strict=True)]
    bare = replace(op, gains=(), tensors={key: t for key, t in op.tensors.items() if key != KINDS[op.kind].constant})
    positive = {key: t.abs() if t.is_floating_point() else t for key, t in bare.tensors.items()}
    bound = apply(bare, positive, *bounds)
    exponent = torch.full((1, *op.shape), float(max(e.max() for e in spread)))
    if KINDS[op.kind].weighted:
        exponent = exponent + _channels(
            op, finest(op.tensors["weight"], channels=op.kind != "contraction" and not op.args.get("transposed"))
        )
    elif op.kind == "affine":
        exponent = spread[0] + (finest(op.tensors["scale"], channels=None) if "scale" in op.tensors else 0)
    elif op.kind == "add":
        exponent = torch.maximum(*(e.expand(1, *op.shape) for e in spread))
    elif op.kind in ("mean", "resample"):
        exponent = exponent + _averaged(op, inputs[0].bound.shape)
    elif op.kind != "sum":
        exponent = apply(bare, bare.tensors, *spread)
    if (constant := op.tensors.get(KINDS[op.kind].constant or "")) is not None:
        fine = finest(constant, channels=None)
        if op.kind == "affine":
            exponent, bound = torch.maximum(exponent, fine.expand(1, *op.shape)), bound + constant.abs()
        else:
            exponent, bound = torch.maximum(exponent, _channels(op, fine)), bound + _channels(op, constant.abs())
    return Reach(exponent.clamp_min(0), bound.double())


def _channels(op: Op, values: Tensor) -> Tensor:
    """Return one value for each output channel, in the layout of the result, or one value for all."""
    if values.numel() == 1:
        return values.flatten()
    axes = 0 if op.kind == "linear" else op.tensors["weight"].ndim - 2
    return values.view(-1, *[1] * axes)


def finest(t: Tensor, *, channels: bool | None = False) -> Tensor:
    """Return the least exponent that makes ``t 2^exponent`` whole: of all, of each row (True) or each value (None)."""
    mantissa, exponent = torch.frexp(t.double())
    scaled = (mantissa * 2.0**53).long()
    trailing = torch.zeros_like(scaled)
    for shift in (32, 16, 8, 4, 2, 1):
        free = (scaled & ((1 << shift) - 1)) == 0
        trailing, scaled = trailing + shift * free, torch.where(free, scaled >> shift, scaled)
    exponents = torch.where(t == 0, _NEVER, 53 - exponent - trailing).float()
    if channels is not None:
        exponents = exponents.flatten(1).amax(1) if channels else exponents.amax()
    return torch.where(exponents == _NEVER, 0.0, exponents)


def _averaged(op: Op, shape: torch.Size) -> float:
    """Return the power of two over which an average is taken."""
    probe = torch.ones(shape, dtype=torch.float64)
    probe[:] = 0
    probe.view(-1)[0] = 1
    share = float(apply(replace(op, gains=()), {}, probe).max())
    power = -math.log2(share) if share else 0.0
    if power != int(power):
        raise ConversionError(
            f"{op.name}: an average over {1 / share:g} values has no form in whole numbers. Average over a power of "
            "two."
        )
    return power


# -- rounding ---------------------------------------------------------------------------------------------------------


def _double(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: t.double() if t.is_floating_point() else t for key, t in tensors.items()}


def _whole(graph: Graph, op: Op, bits: int) -> Op:
    if KINDS[op.kind].product:
        raise ConversionError(
            f"{op.name}: a product of two trains has no form in whole numbers with a fixed number of bits"
        )
    tensors = _double(op.tensors)
    op = _summed(op, graph[op.inputs[0]].shape) if op.inputs else op
    gains = tuple(float(_rounded(torch.tensor([gain], dtype=torch.float64), MULTIPLIER)) for gain in op.gains)
    factor, constant = KINDS[op.kind].factor, KINDS[op.kind].constant
    exponent: Tensor | None = None
    if factor in tensors:
        weight = tensors[factor]
        rows = weight if op.kind in ("convolution", "linear") else weight.reshape(1, -1)
        if op.kind == "affine":
            rows = weight.reshape(-1, 1)
        if op.args.get("transposed"):
            rows = weight.reshape(1, -1)
        exponent = _exponents(rows.flatten(1), bits)
        grown = torch.exp2(exponent).view(-1, *[1] * (rows.ndim - 1))
        tensors[factor] = ((rows * grown).round() / grown).view(weight.shape)
    if constant in tensors:
        fine = exponent if exponent is not None and exponent.numel() == tensors[constant].numel() else None
        grown = torch.exp2((bits if fine is None else fine) + torch.tensor(float(FRACTION)))
        grown = grown if fine is None else grown.view(tensors[constant].shape)
        tensors[constant] = (tensors[constant] * grown).round() / grown
    args = {**op.args, "bits": bits} if factor in tensors else op.args
    return replace(op, tensors=tensors, gains=gains, args=args)


def _exponents(rows: Tensor, bits: int) -> Tensor:
    """Return the largest exponents with which the rows' magnitudes stay within ``2^(bits-1) - 1``."""
    peak = rows.abs().amax(1).clamp_min(2.0**-40)
    return torch.floor(torch.log2((2 ** (bits - 1) - 1) / peak))


def _rounded(values: Tensor, bits: int) -> Tensor:
    grown = torch.exp2(_exponents(values.reshape(1, -1), bits))
    return (values * grown).round() / grown


def _summed(op: Op, shape: tuple[int, ...]) -> Op:
    """Return a sum times a number of `MULTIPLIER` bits, for an average over values whose number is no power of two."""
    pooled = op.kind == "resample" and op.args["operator"].startswith("adaptive_avg")
    count = math.prod(shape) // max(math.prod(op.shape), 1)
    if not (op.kind == "mean" or (pooled and set(op.args["args"][0]) == {1})) or count & (count - 1) == 0:
        return op
    args = op.args if op.kind == "mean" else {"dim": list(range(-len(op.args["args"][0]), 0)), "keepdim": True}
    return replace(op, kind="sum", args=args, gains=((op.gains or (1.0,))[0] / count,))
