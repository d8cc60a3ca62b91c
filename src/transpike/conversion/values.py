"""Computes with real values in place of spikes: the original network, and layers that do not need trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import cast

from torch import Tensor

from transpike.coding.neuron import WholeNeuron, gained
from transpike.coding.scheme import constant_entry
from transpike.conversion.fired import Watch
from transpike.conversion.kinds import KINDS, apply
from transpike.conversion.op import Op
from transpike.conversion.walk import Network, walk
from transpike.neurons.tsa import Tracked

__all__ = ["activations", "carried", "said", "value"]


def activations(snn: Network, x: Tensor, observe: Callable[[Op, Tensor], None] | None = None) -> dict[str, Tensor]:
    """Return the decoded values [N, \\*] in the original network, by name.

    ``observe(op, value)`` sees every layer's activations [N, \\*] in units of its amplitude theta.
    """

    def fire(op: Op, *inputs: Tensor) -> Tensor:
        result = value(snn, op, *inputs)
        if observe:
            observe(op, result)
        return result

    return carried(snn, x, fire)


def carried(snn: Network, x: Tensor, fire: Callable[..., Tensor]) -> dict[str, Tensor]:
    """Return decoded values by name, if ``fire(op, *inputs)`` computes the value of the input and of each layer."""
    return walk(snn, x, fire, partial(_current, snn), partial(_read, snn))


def value(snn: Network, op: Op, *inputs: Tensor) -> Tensor:
    """Return the value of the input or of a layer of neurons for real inputs, in units of its amplitude theta."""
    unit = snn.units[op.name]
    if op.kind == "input":
        return apply(op, snn.tensors(op), inputs[0].to(snn.device, snn.dtype)) / unit
    return op.function.at(*gained(inputs, op.gains), unit=unit, constants=snn.tensors(op))


def said(
    snn: Network, x: Tensor, watch: Watch | None, *, pieces: list[range], final: bool, trains: bool
) -> dict[str, Tensor]:
    """Return decoded values, computed without trains, for layers that receive all input before they fire."""

    def fire(op: Op, *inputs: Tensor) -> Tensor:
        if op.kind == "input":
            pixels = snn.scaled(op, *inputs)
            if watch:
                watch(op, snn.encode(pixels))
            return pixels.to(snn.dtype)
        neuron = cast("WholeNeuron", snn.neurons[op.name])
        fired = neuron.values(gained(inputs, op.gains), snn.tensors(op))
        if watch and not trains:
            watch(op, fired)
        elif watch:
            for piece in pieces:
                last = fired if final and piece is pieces[-1] else Tracked(fired.spikes)
                watch(op, replace(last, spikes=neuron.train(fired.spikes, piece).to(snn.dtype)))
        return fired.spikes.to(snn.dtype)

    return carried(snn, x, fire)


def _current(snn: Network, op: Op, *inputs: Tensor) -> Tensor:
    """Run one operation on values. A constant enters as a whole."""
    constant, shares = KINDS[op.kind].constant, constant_entry(snn.scheme) or 1.0
    tensors = {key: t * shares if key == constant else t for key, t in snn.tensors(op).items()}
    return apply(op, tensors, *inputs)


def _read(snn: Network, op: Op, value: Tensor) -> Tensor:
    return value.float() * snn.units[op.name]
