"""Chooses amplitudes with which no constant lies on a threshold.

In a channel whose weights are all negative, no value exceeds the bias. The value for silent trains is then the largest
one, and so it is the calibrated peak. Then the bias adds exactly theta at each step, and the running sums 1, 3, 7, 15,
... lie on thresholds. The digit that fires would depend on the order in which currents are summed.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from transpike.conversion.graph import Graph
from transpike.conversion.kinds import apply

__all__ = ["APART", "apart", "silent_values"]

APART = 2.0**-14
"""The share by which an amplitude moves: far more than rounding errors, less than the last digit of most trains."""


def apart(
    amplitudes: Mapping[str, Tensor], graph: Graph, axes: Mapping[str, int], *, full: float, signed: bool
) -> dict[str, Tensor]:
    """Return ``amplitudes``, moved where they would put a layer's constant on a threshold.

    Where a constant nearly equals the full value of a train, the new amplitude makes the full value larger than the
    constant, by the share `APART`. So the train can still represent the constant. Without negative spikes it makes the
    full value smaller. Such neurons may round down, and would fire too late if a constant were just below the first
    threshold.

    Args:
        amplitudes: theta by layer, [] or [channels].
        graph: the analog network.
        axes: the axis of one sample that counts a layer's channels.
        full: the full value of a train, in units of theta.
        signed: whether spikes may be negative.

    Example:
        >>> from transpike.conversion.prepare import prepare
        >>> ann = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
        >>> graph = prepare(ann.eval(), [torch.rand(8, 1)]).graph
        >>> _ = graph["0"].tensors["bias"].copy_(torch.tensor([3.0, 5.0]))
        >>> theta = torch.tensor([3.0, 4.0]) / 255
        >>> found = apart({"1": theta}, graph, {"1": 0}, full=255.0, signed=True)
        >>> found["1"] / theta == torch.tensor([1 + APART, 1])
        tensor([True, True])
    """
    moved, factor = dict(amplitudes), 1 + APART if signed else 1 - APART
    for name, value in silent_values(graph).items():
        if name in amplitudes:
            theta = amplitudes[name]
            rows = value.movedim(axes[name], -1).reshape(-1, len(theta)) if theta.ndim else value.reshape(-1, 1)
            peaks = rows.abs() / full
            tied = (peaks / theta.to(rows.device) - 1).abs() < APART
            # Of several tied constants, all must lie on the same side.
            beside = peaks.where(tied, 0).amax(0) if signed else peaks.where(tied, torch.inf).amin(0)
            free = ~tied.any(0).to(theta.device)
            moved[name] = theta.where(free.view(theta.shape), (beside * factor).to(theta).view(theta.shape))
    return moved


@torch.no_grad()
def silent_values(graph: Graph) -> dict[str, Tensor]:
    r"""Return each layer's value, [\*] in real units, if all trains that reach it are silent."""
    values: dict[str, Tensor] = {}
    found: dict[str, Tensor] = {}
    for op in graph:
        if op.kind == "input":
            like = next((t for each in graph for t in each.tensors.values() if t.is_floating_point()), torch.zeros(()))
            values[op.name] = torch.zeros(1, *op.shape, dtype=like.dtype, device=like.device)
            continue
        values[op.name] = apply(op, op.tensors, *(values[name] for name in op.inputs))
        if op.fires:
            found[op.name] = values[op.name][0].double()
            values[op.name] = torch.zeros_like(values[op.name])
    return found
