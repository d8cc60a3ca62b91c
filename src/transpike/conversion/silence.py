"""How long each layer of neurons listens before its first spike, chosen by the error it causes at the output.

A layer whose inputs are worth theta_in a unit and whose weights are w can still move, after t steps, by A / 2 of its
own current unit, A = sum |w| theta_in / theta_out, so it may have to wait log_beta A steps. One wait for all layers
fails in one of them or makes all others wait for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from transpike.coding.scheme import Scheme, ratio
from transpike.conversion.network import SpikingNetwork
from transpike.conversion.op import Op
from transpike.neurons.tsa import Tracked

if TYPE_CHECKING:
    from transpike.conversion.prepare import Prepared

__all__ = ["choose"]

IMAGES = 24
"""How many images to choose on, and as many others to measure on."""
PROBES = 4
PRICES = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
SLACK = 1.25
"""How much larger the error may be than with every layer waiting as long as any needs."""


def choose(prepared: Prepared, scheme: Scheme, amplitudes: Mapping[str, Tensor]) -> SpikingNetwork:
    """The network whose layers wait no longer than its error needs.

    Each price of a step gives one proposal: layer by layer, its inputs already coded, the wait with the least error at
    the output plus price. The error at the output is estimated from the residuals, by how strongly the output depends
    on each channel. The shortest proposal whose measured error is at most `SLACK` of the best is taken.
    """
    few = min(IMAGES, len(prepared.images) // 2)
    here, there = prepared.images[:few], prepared.images[few : 2 * few]
    effects = _effects(prepared, here)
    cap = _cap(scheme)
    graph = prepared.graph
    longest = prepared.build(scheme, amplitudes, {op.name: cap for op in graph.neurons})
    want = _flat(longest.analog(there))
    tried = [(longest, _error(longest, there, want))]
    floor = sum(float(effects[name].floor(amplitudes[name])) for name in effects if name in amplitudes)
    for price in PRICES:
        waits, factors = _proposal(prepared, scheme, amplitudes, effects, here, price * floor, 2 * cap)
        scaled = {name: theta * factors.get(name, 1.0) for name, theta in amplitudes.items()}
        snn = prepared.build(scheme, scaled, waits)
        tried.append((snn, _error(snn, there, want)))
    least = min(error for _, error in tried)
    import os
    if os.environ.get("SHOW"):
        print([(s.latency, round(e, 4)) for s, e in tried], math.sqrt(floor))
    return min((snn for snn, error in tried if error <= SLACK * least), key=lambda snn: snn.latency)


def _cap(scheme: Scheme) -> int:
    """Steps after which a gain of 64 is followed."""
    return math.ceil(math.log(64) / math.log(ratio(scheme) or 2))


@dataclass(frozen=True)
class _Effect:
    """How much a layer's values move the output: the relative squared error there, a unit of squared error here.

    Attributes:
        sensitivity: [] or one a channel, broadcast against one sample.
        positions: values that share one entry.
    """

    sensitivity: Tensor
    positions: int

    def of(self, residual: Tensor, theta: Tensor) -> float:
        """The relative squared error at the output that residuals [N, \\*] in units of theta cause."""
        squares = residual.double().square().mean(0)
        return float((squares * (self.sensitivity * _shaped(theta, self.sensitivity).square())).sum())

    def floor(self, theta: Tensor) -> float:
        """The same where every residual is spread evenly over one unit."""
        return float((self.sensitivity * _shaped(theta, self.sensitivity).square()).sum()) * self.positions / 12


def _shaped(theta: Tensor, like: Tensor) -> Tensor:
    return theta.view_as(like) if theta.ndim else theta


def _effects(prepared: Prepared, images: Tensor) -> dict[str, _Effect]:
    """For each layer, from a few random projections of the outputs and their gradients."""
    graph, axes = prepared.graph, prepared.statistics.axes
    squares: dict[str, Tensor] = {}
    outputs: list[Tensor] = []
    generator = torch.Generator().manual_seed(0)
    for chunk in images.split(8):
        values: dict[str, Tensor] = {}

        def observe(op: Op, value: Tensor, values: dict[str, Tensor] = values) -> None:
            value.retain_grad()
            values[op.name] = value

        with torch.enable_grad():
            results = graph.run(chunk.clone().requires_grad_(), observe)
            out = torch.cat([value.flatten(1) for value in results.values()], 1)
            for _ in range(PROBES):
                signs = torch.randint(0, 2, out.shape, generator=generator).to(out) * 2 - 1
                names = list(values)
                grads = torch.autograd.grad(out, list(values.values()), signs, retain_graph=True, allow_unused=True)
                for name, grad in zip(names, grads, strict=True):
                    if grad is not None:
                        square = _reduced(grad.double().square(), axes.get(name))
                        squares[name] = squares.get(name, torch.zeros_like(square)) + square
        outputs.append(out.detach().double())
    whole = torch.cat(outputs)
    variance = (whole - whole.mean(0)).square().sum() / len(whole)
    effects = {}
    for name, square in squares.items():
        sensitivity = square / (len(images) * PROBES * variance)
        effects[name] = _Effect(sensitivity.nan_to_num(0.0, 0.0, 0.0), math.prod(graph[name].shape) // sensitivity.numel())
    return effects


def _reduced(square: Tensor, axis: int | None) -> Tensor:
    """Summed over samples, averaged over all of one sample but the channels."""
    square = square.sum(0)
    if axis is None:
        return square.mean()
    return square.mean([k for k in range(square.ndim) if k != axis], keepdim=True) if square.ndim > 1 else square


def _proposal(
    prepared: Prepared,
    scheme: Scheme,
    amplitudes: Mapping[str, Tensor],
    effects: Mapping[str, _Effect],
    images: Tensor,
    price: float,
    most: int,
) -> tuple[dict[str, int], dict[str, float]]:
    """A wait for each layer, chosen one after the other."""
    snn = prepared.build(scheme, amplitudes, {op.name: 0 for op in prepared.graph.neurons})
    halves = (1.0, 0.5) if max(scheme.digits) > 1 else (1.0,)
    waits: dict[str, int] = {}
    factors: dict[str, float] = {}

    def fire(op: Op, currents: list[Tensor]) -> Tracked:
        best: tuple[float, int, float, Tracked] | None = None
        effect, theta = effects.get(op.name), amplitudes[op.name]
        for wait in range(most + 1):
            if best is not None and best[0] <= price * wait:
                break
            neuron = scheme.neuron(op.function, amplitude=snn.units[op.name], wait=wait)
            for factor in halves:
                if factor != 1:
                    neuron = scheme.neuron(op.function, amplitude=snn.units[op.name] * factor, wait=wait)
                fired = neuron([z / factor for z in currents], snn.tensors(op), inplace=False, final=True)
                cost = price * wait + (effect.of(fired.residual, theta * factor) if effect else 0.0)
                if best is None or cost < best[0]:
                    best = cost, wait, factor, fired
        assert best is not None
        _, waits[op.name], factors[op.name], fired = best
        return Tracked(fired.spikes * factors[op.name])

    snn.simulate(images, fire)
    return waits, factors


def _flat(output: object) -> Tensor:
    return torch.cat([value.flatten(1) for value in torch.utils._pytree.tree_leaves(output)], 1).double()


def _error(snn: SpikingNetwork, images: Tensor, want: Tensor) -> float:
    """The relative error of the outputs, their mean over the images left out."""
    got = _flat(snn(images))
    return float((got - want).norm() / (want - want.mean(0)).norm())
