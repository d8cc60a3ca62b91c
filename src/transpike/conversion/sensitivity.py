"""How much an error in each layer of neurons moves the output."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from transpike.conversion.graph import Graph
from transpike.conversion.kinds import KINDS, apply
from transpike.conversion.op import Op

__all__ = ["Effect", "effects", "flat_outputs", "gains", "relative_error"]

PROBES = 4
_CHUNK = 8


@dataclass(frozen=True)
class Effect:
    r"""The relative squared error at the output that a unit of squared error in a layer causes.

    To first order an error n of the layer's values moves the outputs by J n. With n independent between values, the
    mean of :math:`|Jn|^2` is :math:`\sum_i E[n_i^2] \sum_k J_{ki}^2`.

    Attributes:
        sensitivity: the sum over outputs of the squared derivatives, over the outputs' variance: [], or one a channel,
            broadcast against one sample.
        positions: values that share one entry.
    """

    sensitivity: Tensor
    positions: int

    def of(self, residual: Tensor, theta: Tensor) -> float:
        """What residuals [N, \\*] in units of ``theta`` cause, on average over samples."""
        squares = residual.double().square().mean(0)
        return float((squares * self._weights(theta)).sum())

    def floor(self, theta: Tensor) -> float:
        """What the last digit causes: residuals spread evenly over one unit."""
        return float(self._weights(theta).sum()) * self.positions / 12

    def _weights(self, theta: Tensor) -> Tensor:
        theta = theta.to(self.sensitivity)
        return self.sensitivity * (theta.view_as(self.sensitivity) if theta.ndim else theta).square()


def effects(graph: Graph, images: Tensor, axes: Mapping[str, int]) -> dict[str, Effect]:
    """For the input and each layer of neurons, from four random projections of what is decoded and their gradients.

    What the network makes of decoded values (a softmax, an index of the largest) is left out: it may hide errors.

    Args:
        graph: the analog network.
        images: [N, \\*].
        axes: which axis of one sample counts the channels, by name of the layer.
    """
    spiking = [op for op in graph if op.name in graph.spiking]
    graph = replace(graph, ops=tuple(spiking), outputs=tuple(op.name for op in spiking if op.name in graph.readouts))
    squares: dict[str, Tensor] = {}
    outputs: list[Tensor] = []
    generator = torch.Generator().manual_seed(0)
    for chunk in images.split(_CHUNK):
        values: dict[str, Tensor] = {}
        with torch.enable_grad():
            out = flat_outputs(graph.run(chunk.clone().requires_grad_(), partial(_keep, values)))
            for _ in range(PROBES):
                signs = torch.randint(0, 2, out.shape, generator=generator).to(out) * 2 - 1
                grads = torch.autograd.grad(out, list(values.values()), signs, retain_graph=True, allow_unused=True)
                for name, grad in zip(values, grads, strict=True):
                    if grad is not None:
                        square = _summed(grad.double().square(), axes.get(name))
                        squares[name] = squares.get(name, torch.zeros_like(square)) + square
        outputs.append(out.detach().double())
    whole = torch.cat(outputs)
    variance = (whole - whole.mean(0)).square().sum() / len(whole)
    found = {}
    for name, square in squares.items():
        sensitivity = (square / (len(images) * PROBES * variance)).nan_to_num(0.0, 0.0, 0.0)
        found[name] = Effect(sensitivity, math.prod(graph[name].shape) // sensitivity.numel())
    return found


def _keep(values: dict[str, Tensor], op: Op, value: Tensor) -> None:
    if value.requires_grad:  # a layer of constants alone has none
        values[op.name] = value


def _summed(square: Tensor, axis: int | None) -> Tensor:
    """Summed over samples, averaged over all of one sample but the channels."""
    square = square.sum(0)
    others = [k for k in range(square.ndim) if k != axis]
    if axis is None:
        return square.mean()
    return square.mean(others, keepdim=True) if others else square


def flat_outputs(outputs: object) -> Tensor:
    """All outputs of a network as one tensor [N, values]."""
    return torch.cat([value.reshape(len(value), -1) for value in torch.utils._pytree.tree_leaves(outputs)], 1)


def relative_error(got: Tensor, want: Tensor) -> float:
    """The norm of the difference [N, values] over that of ``want`` less its mean over the samples.

    Example:
        >>> relative_error(torch.tensor([[1.0], [4.0]]), torch.tensor([[1.0], [3.0]])) ** 2
        0.5...
    """
    got, want = got.double(), want.double()
    scale = (want - want.mean(0)).norm() if len(want) > 1 else want.norm()
    return float((got - want).norm() / scale.clamp_min(torch.finfo(torch.float64).tiny))


def gains(graph: Graph) -> dict[str, float]:
    """The gain A of each layer of neurons: the largest current that trains of unit spikes can send in one step.

    It is what the whole network's weights, in units of theta, make of inputs that are all 1, each weight by its
    magnitude. A layer that reads a product of two trains has none: what it gets depends on their values.

    Args:
        graph: a network whose weights are in units of theta.
    """
    found: dict[str, float] = {}
    values: dict[str, Tensor | None] = {}
    for op in graph:
        if op.name not in graph.spiking:
            continue
        inputs = [values[name] for name in op.inputs]
        known = [x for x in inputs if x is not None]
        if op.kind == "input" or op.fires:
            if op.fires and len(known) == len(inputs):
                factors = op.gains or (1.0,) * len(known)
                found[op.name] = max(float(x.max()) * abs(gain) for x, gain in zip(known, factors, strict=True))
            values[op.name] = torch.ones(1, *op.shape)
        elif KINDS[op.kind].product or len(known) < len(inputs):
            values[op.name] = None
        else:
            own = {key: t for key, t in op.tensors.items() if key != KINDS[op.kind].constant}
            own = {key: t.cpu().float().abs() if t.is_floating_point() else t.cpu() for key, t in own.items()}
            values[op.name] = apply(replace(op, gains=tuple(map(abs, op.gains))), own, *known)
    return found
