"""Bounds on a network's outputs before its last spikes: the constants to come, and the largest possible spikes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from transpike.conversion.kinds import KINDS, apply
from transpike.conversion.op import Op
from transpike.conversion.walk import Network

__all__ = ["known", "reach"]


@torch.no_grad()
def known(snn: Network) -> dict[str, Tensor]:
    """Return the current [T, 1, \\*] that constants bring to each decoded operation, as if no neuron fires."""
    steps = len(snn.scheme.weights)
    silent = _walked(snn, lambda op: torch.zeros(steps, *op.shape, device=snn.device, dtype=snn.dtype), snn.current)
    return {name: silent[name].unflatten(0, (steps, -1)) for name in snn.readouts}


@torch.no_grad()
def reach(snn: Network) -> dict[str, Tensor]:
    r"""Return the largest current [\*] that one step can bring to each decoded operation, in either direction.

    It is the sum of the weights' magnitudes, times the largest digit. There is no bound if a non-linear operation, such
    as a product of two trains, lies between the last spikes and the output, or if an analog image reaches it.
    """
    digits = {True: snn.scheme.digits, False: snn.scheme.encoded}

    def largest(op: Op) -> Tensor:
        top = max(map(abs, digits[op.fires] or (torch.inf,)))
        return torch.full((1, *op.shape), float(top), device=snn.device)

    def most(op: Op, *inputs: Tensor) -> Tensor:
        bicubic = op.kind == "resample" and "cubic" in op.args["operator"]  # its coefficients may be negative
        if KINDS[op.kind].product or bicubic or not all(x.isfinite().all() for x in inputs):
            return torch.full((1, *op.shape), torch.inf, device=snn.device)
        constant = KINDS[op.kind].constant
        sizes = {
            k: t.float().abs() if t.is_floating_point() else t for k, t in snn.tensors(op).items() if k != constant
        }
        return apply(replace(op, gains=tuple(map(abs, op.gains))), sizes, *inputs)

    largest_currents = _walked(snn, largest, most)
    return {name: largest_currents[name][0] for name in snn.readouts}


def _walked(snn: Network, fire: Callable[[Op], Tensor], current: Callable[..., Tensor]) -> Mapping[str, Tensor]:
    """Carry trains through the operations between the last layers of neurons and the decoded operations."""
    needed = set(snn.readouts)
    for op in reversed(snn.graph.ops):
        if op.name in needed and not op.fires:
            needed.update(op.inputs)
    values: dict[str, Tensor] = {}
    for op in snn.graph:
        if op.name in needed:
            spikes = op.fires or op.kind == "input"
            values[op.name] = fire(op) if spikes else current(op, *(values[name] for name in op.inputs))
    return values
