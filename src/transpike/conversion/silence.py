r"""How long each layer of neurons listens before its first spike, chosen by the error it causes at the output.

A layer whose inputs are worth :math:`\theta_{in}` a unit, with weights w, sees after t steps inputs that are still
uncertain by half a unit each. Its target can then move by A / 2 of its own current unit, with the gain
:math:`A = \sum |w| \theta_{in} / \theta_{out}`, so it needs about :math:`\log_\beta A` silent steps. A is 2 to 10 in
ordinary layers, and above 1,000 in some of trained mobile networks: one wait for all layers fails in one of them, or
makes all others wait for it. No published conversion chooses them one by one; the rule is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from transpike.coding.scheme import Scheme, ratio
from transpike.conversion.calibrate import Statistics
from transpike.conversion.graph import Graph
from transpike.conversion.network import SpikingNetwork
from transpike.conversion.op import Op
from transpike.conversion.sensitivity import Effect, effects, flat_outputs, relative_error
from transpike.neurons.tsa import Tracked

__all__ = ["Choice", "choose"]

IMAGES = 24
"""How many images to choose on, and as many others to measure on."""
PRICES = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""Of a silent step, in units of the error that the last digits of all layers cause together."""
SLACK, ENOUGH = 1.25, 0.005
"""How much larger the relative error may be than the least; an error that no longer matters."""
_VALUES = 2**26  # of one layer at all steps of the images to choose on


class Prepared(Protocol):
    """What is chosen from: see `transpike.conversion.prepare.Prepared`."""

    @property
    def graph(self) -> Graph:
        """The analog network."""

    @property
    def statistics(self) -> Statistics:
        """Of its activations."""

    @property
    def images(self) -> Tensor:
        """The calibration images."""

    def build(
        self, scheme: Scheme, amplitudes: Mapping[str, Tensor], waits: Mapping[str, int] | None = None
    ) -> SpikingNetwork:
        """The network of these amplitudes and waits."""


@dataclass(frozen=True)
class Choice:
    """One proposal: waits, and factors of the amplitudes, by layer; what was measured of it."""

    waits: Mapping[str, int]
    factors: Mapping[str, float]
    latency: int
    error: float
    residuals: Mapping[str, float]


@dataclass(frozen=True)
class Measured:
    """The outputs [N, values] of a network, and the root mean square of each layer's residual, in units of theta."""

    outputs: Tensor
    residuals: dict[str, float]


def measured(snn: SpikingNetwork, images: Tensor) -> Measured:
    """Run ``snn`` on ``images``."""
    sums: dict[str, float] = {}

    def watch(op: Op, fired: Tracked) -> None:
        if fired.residual is not None:
            sums[op.name] = sums.get(op.name, 0.0) + float(fired.residual.square().sum(dtype=torch.float64))

    outputs = flat_outputs(snn.observe(images, watch, final=True))
    sizes = {op.name: len(images) * math.prod(op.shape) for op in snn.graph.neurons}
    return Measured(outputs, {name: math.sqrt(total / sizes[name]) for name, total in sums.items()})


def choose(prepared: Prepared, scheme: Scheme, amplitudes: Mapping[str, Tensor]) -> SpikingNetwork:
    """The network whose layers wait no longer than its error needs.

    Each price of a silent step gives one proposal. Of those whose measured error is at most `SLACK` of the least, or at
    most `ENOUGH`, the one with the least latency is taken. That takes fourteen simulations of at most 24 images;
    nothing in it is random but the projections of `effects`, whose seed is fixed.
    """
    proposals = _proposals(prepared, scheme, amplitudes)
    most = max(SLACK * min(proposal.error for proposal in proposals), ENOUGH)
    best = min((p for p in proposals if p.error <= most), key=lambda p: (p.latency, p.error))
    snn = _built(prepared, scheme, amplitudes, best.waits, best.factors)
    snn.residuals = dict(best.residuals)
    return snn


def _built(
    prepared: Prepared,
    scheme: Scheme,
    amplitudes: Mapping[str, Tensor],
    waits: Mapping[str, int],
    factors: Mapping[str, float],
) -> SpikingNetwork:
    scaled = {name: theta * factors.get(name, 1.0) for name, theta in amplitudes.items()}
    return prepared.build(scheme, scaled, waits)


def _proposals(prepared: Prepared, scheme: Scheme, amplitudes: Mapping[str, Tensor]) -> list[Choice]:
    """All layers waiting for as long as any should need, then one proposal a price."""
    graph, images = prepared.graph, prepared.images
    few = min(IMAGES, max(len(images) // 2, 1))
    chosen_on, measured_on = images[:few], images[-few:]
    cap = math.ceil(math.log(64) / math.log(ratio(scheme) or 2))  # steps after which a gain of 64 is followed
    largest = max(math.prod(op.shape) for op in graph)
    chosen_on = chosen_on[: max(_VALUES // (largest * (len(scheme.weights) + cap)), 2)]
    effect = effects(graph, chosen_on, prepared.statistics.axes)
    floor = sum(each.floor(amplitudes[name]) for name, each in effect.items())
    rule = _Rule(prepared, scheme, amplitudes, effect, 2 * cap)
    want = None
    found = []
    for price in (None, *PRICES):
        waits, factors = rule(chosen_on, price * floor) if price else ({op.name: cap for op in graph.neurons}, {})
        snn = _built(prepared, scheme, amplitudes, waits, factors)
        want = flat_outputs(snn.analog(measured_on)) if want is None else want
        got = measured(snn, measured_on)
        found.append(Choice(waits, factors, snn.latency, relative_error(got.outputs, want), got.residuals))
    return found


@dataclass(frozen=True)
class _Rule:
    """Layer by layer, its inputs already coded: the wait with the least error at the output plus price.

    Where spikes have several levels, half the amplitude is tried as well: it costs no range, since larger digits say
    what a digit of 1 said.
    """

    prepared: Prepared
    scheme: Scheme
    amplitudes: Mapping[str, Tensor]
    effects: Mapping[str, Effect]
    most: int

    def __call__(self, images: Tensor, price: float) -> tuple[dict[str, int], dict[str, float]]:
        snn = self.prepared.build(self.scheme, self.amplitudes, {op.name: 0 for op in self.prepared.graph.neurons})
        waits: dict[str, int] = {}
        factors: dict[str, float] = {}

        def fire(op: Op, currents: Sequence[Tensor]) -> Tracked:
            run = self._neuron(snn, op, currents)
            waits[op.name], factors[op.name], fired = self._best(op, run, price)
            return Tracked(fired.spikes * factors[op.name])

        snn.simulate(images, fire)
        return waits, factors

    def _neuron(self, snn: SpikingNetwork, op: Op, currents: Sequence[Tensor]) -> Callable[[int, float], Tracked]:
        def run(wait: int, factor: float) -> Tracked:
            neuron = self.scheme.neuron(op.function, amplitude=snn.units[op.name] * factor, wait=wait)
            assert not isinstance(neuron, str)
            scaled = [z / factor for z in currents] if factor != 1 else currents
            return neuron(scaled, snn.tensors(op), inplace=False, final=True)

        return run

    def _best(self, op: Op, run: Callable[[int, float], Tracked], price: float) -> tuple[int, float, Tracked]:
        best: tuple[float, int, float, Tracked] | None = None
        for wait in range(self.most + 1):
            if best is not None and best[0] <= price * wait:
                break  # an error is not negative
            for factor in (1.0, 0.5) if max(self.scheme.digits) > 1 else (1.0,):
                fired = run(wait, factor)
                assert fired.residual is not None
                caused = 0.0
                if op.name in self.effects:
                    caused = self.effects[op.name].of(fired.residual, self.amplitudes[op.name] * factor)
                if best is None or price * wait + caused < best[0]:
                    best = price * wait + caused, wait, factor, fired
        assert best is not None
        return best[1:]
