"""How much an error in each layer of neurons changes the output."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from transpike.conversion.graph import Graph
from transpike.conversion.kinds import KINDS, apply
from transpike.conversion.op import Op

__all__ = [
    "PROBES",
    "Effect",
    "Run",
    "deviations",
    "effects",
    "flat_outputs",
    "gains",
    "gradients",
    "relative_error",
    "spread",
]

PROBES = 4
_CHUNK = 8
_ALIKE = 1e-12  # of the square of outputs: the variance of equal samples by rounding alone

Run = Callable[[Tensor, Callable[[Op, Tensor], None]], Tensor]
"""An analog network: takes images and a function that sees the input's and each layer's values; gives [N, values]."""


@dataclass(frozen=True)
class Effect:
    r"""The relative squared error at the output that a unit of squared error in a layer causes.

    To first order, an error n of the layer's values changes the outputs by J n. If n is independent between values, the
    mean of :math:`|Jn|^2` is :math:`\sum_i E[n_i^2] \sum_k J_{ki}^2`.

    Attributes:
        sensitivity: the sum over outputs of the squared derivatives, over the outputs' variance (see `deviations`): [],
            or one for each channel, broadcast against one sample.
        positions: the number of values that share one entry.
    """

    sensitivity: Tensor
    positions: int

    def of(self, residual: Tensor, theta: Tensor) -> float:
        """Return the error that residuals [N, \\*] in units of ``theta`` cause, on average over samples."""
        squares = residual.double().square().mean(0)
        return float((squares * self._weights(theta)).sum())

    def floor(self, theta: Tensor) -> float:
        """Return the error that the last digit causes: residuals spread evenly over one unit."""
        return float(self._weights(theta).sum()) * self.positions / 12

    def _weights(self, theta: Tensor) -> Tensor:
        theta = theta.to(self.sensitivity)
        return self.sensitivity * (theta.view_as(self.sensitivity) if theta.ndim else theta).square()


def effects(graph: Graph, images: Tensor, axes: Mapping[str, int]) -> dict[str, Effect]:
    """Return the effect of the input and of each layer of neurons, by name.

    It comes from four random projections of the decoded values and their gradients. Operations on decoded values (a
    softmax, an index of the largest) are left out, because they may hide errors.

    Args:
        graph: the analog network.
        images: [N, \\*].
        axes: the axis of one sample that counts channels, by name of the layer.
    """
    spiking = [op for op in graph if op.name in graph.spiking]
    graph = replace(graph, ops=tuple(spiking), outputs=tuple(op.name for op in spiking if op.name in graph.readouts))
    squares: dict[str, Tensor] = {}
    outputs: list[Tensor] = []
    generator = torch.Generator().manual_seed(0)
    for chunk in images.split(_CHUNK):
        out, probes = gradients(lambda x, observe: flat_outputs(graph.run(x, observe)), chunk, generator)
        for grads in probes:
            for name, grad in grads.items():
                square = _summed(grad.double().square(), axes.get(name))
                squares[name] = squares.get(name, torch.zeros_like(square)) + square
        outputs.append(out)
    varying = spread(torch.cat(outputs))
    result = {}
    for name, square in squares.items():
        sensitivity = (square / (PROBES * varying)).nan_to_num(0.0, 0.0, 0.0)
        result[name] = Effect(sensitivity, math.prod(graph[name].shape) // sensitivity.numel())
    return result


def gradients(run: Run, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Iterator[dict[str, Tensor]]]:
    """Return the outputs of ``run`` for ``x``, and the layers' gradients of each of `PROBES` random projections.

    A projection multiplies each output by 1 or -1 at random. The mean square of the change that an error causes in it
    equals the squared norm of the change in the outputs.
    """
    values: dict[str, Tensor] = {}
    with torch.enable_grad():
        out = run(x.clone().requires_grad_(), partial(_keep, values))

    def probes() -> Iterator[dict[str, Tensor]]:
        for _ in range(PROBES):
            signs = (torch.randint(0, 2, out.shape, generator=generator) * 2 - 1).to(out)
            grads = torch.autograd.grad(out, list(values.values()), signs, retain_graph=True, allow_unused=True)
            yield {name: grad for name, grad in zip(values, grads, strict=True) if grad is not None}

    return out.detach(), probes()


def _keep(values: dict[str, Tensor], op: Op, value: Tensor) -> None:
    if value.requires_grad:  # false for a layer of constants alone
        values[op.name] = value


def _summed(square: Tensor, axis: int | None) -> Tensor:
    """Sum over samples, and average over all of one sample but the channels."""
    square = square.sum(0)
    others = [k for k in range(square.ndim) if k != axis]
    if axis is None:
        return square.mean()
    return square.mean(others, keepdim=True) if others else square


def flat_outputs(outputs: object) -> Tensor:
    """Return all outputs of a network as one tensor [N, values]."""
    return torch.cat([value.reshape(len(value), -1) for value in torch.utils._pytree.tree_leaves(outputs)], 1)


def relative_error(got: Tensor, want: Tensor) -> float:
    """Return the norm of the difference [N, values] over that of ``want`` minus its mean over the samples.

    Example:
        >>> round(relative_error(torch.tensor([[1.0], [4.0]]), torch.tensor([[1.0], [3.0]])) ** 2, 6)
        0.5
    """
    return math.sqrt(float((got.double() - want.double()).square().sum()) / spread(want))


def spread(want: Tensor) -> float:
    """Return the sum of `deviations`, above 0."""
    return float(deviations(want).sum().clamp_min(torch.finfo(torch.float64).tiny))


def deviations(want: Tensor) -> Tensor:
    """Return the squared norm [N] of outputs [N, values] minus their mean over samples (of equal outputs: without it).

    Example:
        >>> deviations(torch.tensor([[1.0], [3.0]])), deviations(torch.tensor([[2.0], [2.0]]))
        (tensor([1., 1.], dtype=torch.float64), tensor([4., 4.], dtype=torch.float64))
    """
    want = want.double()
    whole, varying = want.square().sum(1), (want - want.mean(0)).square().sum(1)
    return varying if varying.sum() > _ALIKE * whole.sum() else whole


def gains(graph: Graph, *, spike: float = 1.0, constants: bool = False) -> dict[str, float]:
    """Return the gain A of each layer of neurons: the largest current that trains of unit spikes can send in one step.

    It is the result of the weights' magnitudes, in units of theta, for inputs that are all 1. A layer that reads a
    product of two trains has none, because its input depends on their values.

    Args:
        graph: a network whose weights are in units of theta.
        spike: the largest magnitude of a spike, if not 1.
        constants: whether to add the currents of constants in a step.
    """
    result: dict[str, float] = {}
    values: dict[str, Tensor | None] = {}
    for op in graph:
        if op.name not in graph.spiking:
            continue
        inputs = [values[name] for name in op.inputs]
        known = [x for x in inputs if x is not None]
        if op.kind == "input" or op.fires:
            if op.fires and len(known) == len(inputs):
                factors = op.gains or (1.0,) * len(known)
                result[op.name] = max(float(x.max()) * abs(gain) for x, gain in zip(known, factors, strict=True))
            values[op.name] = torch.full((1, *op.shape), float(spike))
        elif KINDS[op.kind].product or len(known) < len(inputs):
            values[op.name] = None
        else:
            own = {key: t for key, t in op.tensors.items() if constants or key != KINDS[op.kind].constant}
            own = {key: t.cpu().float().abs() if t.is_floating_point() else t.cpu() for key, t in own.items()}
            values[op.name] = apply(replace(op, gains=tuple(map(abs, op.gains))), own, *known)
    return result
