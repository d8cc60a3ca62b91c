r"""Chooses how long each layer of neurons waits before its first spike, by the error that it causes at the output.

A layer has weights w, and a unit of its inputs has the value :math:`\theta_{in}`. After t steps each input is still
uncertain by half a unit. So the layer's target can still change by A / 2 of its own current unit, with the gain
:math:`A = \sum |w| \theta_{in} / \theta_{out}`. It needs about :math:`\log_\beta A` silent steps. A is 2 to 10 in
ordinary layers, and above 1,000 in some layers of trained mobile networks. One wait for all layers is too short for
some of them, or makes all others wait for the slowest. No published conversion chooses a wait for each layer; the rule
is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from transpike.coding.scheme import Scheme, largest, ratio
from transpike.conversion.calibrate import Statistics
from transpike.conversion.graph import Graph
from transpike.conversion.network import SpikingNetwork
from transpike.conversion.op import Op
from transpike.conversion.sensitivity import Effect, effects, flat_outputs, relative_error
from transpike.neurons.tsa import Tracked

__all__ = ["PRICES", "Choice", "Silence", "Silences", "allowed", "choose", "measured"]

IMAGES = 24
"""The number of images for the choice, and of other images for the measurement."""
PRICES = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""Prices of a silent step, in units of the error that the last digits of all layers cause together."""
Progress = Callable[[int, int], None]
SLACK, ENOUGH = 1.25, 0.005
"""The factor by which the relative error may exceed the least, and an error that no longer matters."""
SMALL, SMALL_SLACK = 0.01, 1.6
"""An error that changes few predictions, and the factor by which a smaller error may exceed the least."""
LARGE, LARGE_SLACK = 0.1, 1.1
"""An error that should not grow much for a shorter latency, and the factor for errors above it."""
_INPUT = 0.1  # the largest part of the input's last digit in the error that all last digits cause together
_VALUES = 2**26  # limit for one layer at all steps of the images for the choice


class Prepared(Protocol):
    """The data of the choice: see `transpike.conversion.prepare.Prepared`."""

    @property
    def graph(self) -> Graph:
        """The analog network."""

    @property
    def statistics(self) -> Statistics:
        """The statistics of its activations."""

    @property
    def images(self) -> Tensor:
        """The calibration images."""

    def build(
        self, scheme: Scheme, amplitudes: Mapping[str, Tensor], waits: Mapping[str, int] | None = None
    ) -> SpikingNetwork:
        """Return the network with these amplitudes and waits."""


@dataclass(frozen=True)
class Silence:
    """Waits, and factors of the amplitudes, by layer."""

    waits: Mapping[str, int]
    factors: Mapping[str, float]


@dataclass(frozen=True)
class Choice:
    """One proposal, and its measurements."""

    silence: Silence
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

    outputs = flat_outputs(snn.observe(images, watch, final=True, trains=False))
    sizes = {op.name: len(images) * math.prod(op.shape) for op in snn.graph.neurons}
    return Measured(outputs, {name: math.sqrt(total / sizes[name]) for name, total in sums.items()})


def choose(
    prepared: Prepared, scheme: Scheme, amplitudes: Mapping[str, Tensor], progress: Progress | None = None
) -> SpikingNetwork:
    """Return the network whose layers wait no longer than its error needs.

    Each price of a silent step gives one proposal. Among the proposals whose measured error is `allowed`, the one with
    the least latency is chosen. This takes thirteen simulations of at most 24 images. Only the projections of `effects`
    are random, with a fixed seed. ``progress(done, proposals)`` is called after each proposal.
    """
    silences = Silences(prepared, scheme, amplitudes)
    proposals = _proposals(silences, progress)
    most = allowed(min(proposal.error for proposal in proposals))
    best = min((p for p in proposals if p.error <= most), key=lambda p: (p.latency, p.error))
    snn = silences.build(best.silence)
    snn.residuals = dict(best.residuals)
    return snn


def allowed(least: float) -> float:
    """Return the largest error that a shorter latency may cause, if the least error is ``least``.

    Example:
        >>> allowed(0.5), allowed(0.04), allowed(0.005), allowed(0.001)
        (0.55, 0.05, 0.008, 0.005)
    """
    return max(LARGE_SLACK * least, min(SLACK * least, LARGE), min(SMALL_SLACK * least, SMALL), ENOUGH)


def _proposals(silences: Silences, progress: Progress | None = None) -> list[Choice]:
    """Return one proposal in which all layers wait as long as any could need, then one for each price."""
    images = silences.prepared.images[-silences.few :]
    want = None
    choices = []
    for price in (None, *PRICES):
        silence = silences.at(price) if price else silences.patient()
        snn = silences.build(silence)
        want = flat_outputs(snn.analog(images)) if want is None else want
        result = measured(snn, images)
        choices.append(Choice(silence, snn.latency, relative_error(result.outputs, want), result.residuals))
        if progress:
            progress(len(choices), 1 + len(PRICES))
    return choices


class Silences:
    """Computes how long the layers of one network may wait under one scheme.

    Args:
        prepared: the network.
        scheme: the code.
        amplitudes: theta of the input and of every layer of neurons.
    """

    def __init__(self, prepared: Prepared, scheme: Scheme, amplitudes: Mapping[str, Tensor]) -> None:
        self.prepared, self.scheme, self._calibrated = prepared, scheme, amplitudes
        self.few = min(IMAGES, max(len(prepared.images) // 2, 1))
        beta = ratio(scheme) or 2
        # After so many steps a layer follows a gain of 64. In a single step all input has arrived.
        self._cap = math.ceil(math.log(64) / math.log(beta)) if beta > 1 else 0

    @cached_property
    def _images(self) -> Tensor:
        """The images for the choice."""
        widest = max(math.prod(op.shape) for op in self.prepared.graph)
        few = max(_VALUES // (widest * (len(self.scheme.weights) + self._cap)), 2)
        return self.prepared.images[: min(self.few, few)]

    @cached_property
    def amplitudes(self) -> Mapping[str, Tensor]:
        """The given amplitudes, but a finer one for the input if its last digit would dominate (with several levels).

        The encoder knows its value before the first step, so it can use larger digits for range. Halving the amplitude
        costs it spikes, but no silent step. A train can still represent twice the calibrated peak.
        """
        finest, name = 2 * self.scheme.full / largest(self.scheme), self.prepared.graph.input.name
        if finest > 0.5:
            return self._calibrated
        floors = {key: each.floor(self._calibrated[key]) for key, each in self._effects.items()}
        factor, own = 1.0, floors.pop(name, 0.0)
        while factor / 2 >= finest and own * factor**2 > _INPUT * sum(floors.values()):
            factor /= 2
        return {**self._calibrated, name: self._calibrated[name] * factor}

    @cached_property
    def _effects(self) -> dict[str, Effect]:
        return effects(self.prepared.graph, self._images, self.prepared.statistics.axes)

    def patient(self, factor: float = 1.0) -> Silence:
        """Return the waits in which all layers wait as long as any could need."""
        neurons = self.prepared.graph.neurons
        return Silence({op.name: self._cap for op in neurons}, {op.name: factor for op in neurons})

    def at(self, price: float) -> Silence:
        """Return the waits for this price of a silent step, from one simulation."""
        floor = sum(each.floor(self.amplitudes[name]) for name, each in self._effects.items())
        rule = _Rule(self.prepared, self.scheme, self.amplitudes, self._effects, 2 * self._cap)
        return Silence(*rule(self._images, price * floor))

    def build(self, silence: Silence) -> SpikingNetwork:
        """Return the network with these waits."""
        scaled = {name: theta * silence.factors.get(name, 1.0) for name, theta in self.amplitudes.items()}
        return self.prepared.build(self.scheme, scaled, silence.waits)


@dataclass(frozen=True)
class _Rule:
    """Chooses layer by layer, with coded inputs, the wait with the least sum of error at the output and price.

    If spikes have several levels, half the amplitude is tried too. It costs no range, because larger digits represent
    what a digit of 1 represented.
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
            if op.kind == "input":
                return snn.encode(*currents)
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
                break  # the error cannot be negative
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
