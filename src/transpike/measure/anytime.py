"""Measures early answers: how many differ, after how many steps, at what energy; compared with one step for all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from transpike.coding.operations import ACCUMULATE, MULTIPLY_ACCUMULATE
from transpike.coding.scheme import encoder_operations, readout_operations
from transpike.conversion import SpikingNetwork
from transpike.conversion.anytime import Answer, left, trajectories
from transpike.conversion.cost import evaluated, fan_out, pairings, relays
from transpike.conversion.kinds import weighted
from transpike.conversion.op import Op
from transpike.conversion.stopping import learned, least_images, other_prediction
from transpike.errors import ConfigError, DataError
from transpike.metrics.energy import synaptic_operations
from transpike.neurons.tsa import Tracked
from transpike.results import Early

__all__ = ["AGREEMENTS", "early", "energies", "fixed", "stopped", "stopping"]


AGREEMENTS = (0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
"""The agreements that make a curve."""


def early(
    snn: SpikingNetwork,
    batches: Iterable[Tensor | Sequence[Tensor]],
    *,
    agreement: float,
    held_out: int = 512,
    counted: int = 64,
    total: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Early, ...]:
    """Measure answers at an agreement, at those of `AGREEMENTS` for which the images suffice, and at each step.

    Args:
        snn: a converted network with one output of classes, and a scheme that streams.
        batches: batches of images, or of pairs (images, labels).
        agreement: the required share of answers that equal those of full runs.
        held_out: the number of images, the first ones, that set the threshold. The figures are for the others.
        counted: the number of the other images whose energies are counted.
        total: sums a tensor over processes. Each process has every world-th of the images, starting from the one of its
            rank. All processes then return the same.

    Raises:
        ConfigError: An agreement needs more images to set the threshold.
        DataError: No other images are left.
    """
    return stopping(snn, batches, agreement=agreement, held_out=held_out, counted=counted, total=total)[0]


def stopping(
    snn: SpikingNetwork,
    batches: Iterable[Tensor | Sequence[Tensor]],
    *,
    agreement: float,
    held_out: int = 512,
    counted: int = 64,
    total: Callable[[Tensor], Tensor] | None = None,
) -> tuple[tuple[Early, ...], list[tuple[int, int]]]:
    """Return `early`, and (number, steps) of the measured images, from the surest answer to the least sure."""
    if held_out < least_images(agreement):
        raise ConfigError(
            f"agreement={agreement} needs at least {least_images(agreement)} held-out images, not {held_out}"
        )
    outputs, labels, few = [], [], []
    count = 0
    rank, world = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if total else (0, 1)
    begin, end = (len(range(rank, most, world)) for most in (held_out, held_out + counted))  # of this process's images
    for batch in batches:
        x, y = batch if isinstance(batch, (list, tuple)) else (batch, None)
        outputs.append(trajectories(snn, x).flatten(2).cpu())
        labels.append(y)
        few.append(x[max(begin - count, 0) : max(end - count, 0)])
        count += len(x)
    outputs_by_step = _gathered(torch.cat(outputs, 1).movedim(1, 0), total).movedim(0, 1)
    count = outputs_by_step.shape[1]
    if count <= held_out:
        raise DataError(f"{held_out} images set the threshold, and none of {count} is left to measure on")
    share = left(snn)
    known = None if any(y is None for y in labels) else _gathered(torch.cat(labels), total)[held_out:]
    images = torch.cat(few)
    energy = energies(snn, images).cpu() if len(images) else torch.zeros(0, snn.steps, dtype=torch.float64)
    energy = _gathered(energy, total, begin=held_out)
    rule = learned(
        outputs_by_step[:, :held_out], share, score="bound", changed=other_prediction, first=min(2, snn.steps)
    )
    outputs_by_step = outputs_by_step[:, held_out:]
    rows = []
    for required in (agreement, *(one for one in AGREEMENTS if least_images(one) <= held_out and one != agreement)):
        steps = rule.stops(outputs_by_step, share, agreement=required)
        answers = outputs_by_step[steps - 1, torch.arange(len(steps))]
        rows.append(_early(snn, steps, answers, outputs_by_step[-1], required, known, energy))
    steps, sure = (
        rule.stops(outputs_by_step, share, agreement=agreement),
        rule.scores(outputs_by_step, share)[rule.first - 1],
    )
    order = sorted(range(len(steps)), key=lambda k: (int(steps[k]), -float(sure[k])))
    shown = [(held_out + k, int(steps[k])) for k in order]
    return (*rows, *fixed(snn, outputs_by_step, labels=known, energy=energy)), shown


def _gathered(own: Tensor, total: Callable[[Tensor], Tensor] | None, *, begin: int = 0) -> Tensor:
    """Gather from all processes in the images' order: each has every world-th image, starting at ``begin``."""
    if total is None:
        return own
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    whole = own.new_zeros(int(total(torch.tensor(len(own)))), *own.shape[1:])
    whole[(rank - begin) % world :: world] = own
    return total(whole)


def stopped(
    snn: SpikingNetwork,
    answer: Answer,
    full: Tensor,
    *,
    agreement: float,
    labels: Tensor | None = None,
    energy: Tensor | None = None,
) -> Early:
    """Measure answers of `SpikingNetwork.until` against the outputs ``full`` [N, values] of full runs.

    Args:
        snn: the network.
        answer: the result of ``until``.
        full: the network's outputs for the same images.
        agreement: the required share of equal answers.
        labels: classes [N].
        energy: the result of `energies` for the first of these images.
    """
    outputs: Tensor = torch.utils._pytree.tree_leaves(answer.outputs)[0]
    return _early(snn, answer.steps, outputs, full, agreement, labels, energy)


def fixed(
    snn: SpikingNetwork, outputs: Tensor, *, labels: Tensor | None = None, energy: Tensor | None = None
) -> tuple[Early, ...]:
    """Do the same if all images stop after one step, for each step: ``outputs`` [T, N, values] of `trajectories`."""
    steps = torch.ones(outputs.shape[1], dtype=torch.long)
    return tuple(
        _early(snn, steps * (step + 1), now, outputs[-1], None, labels, energy) for step, now in enumerate(outputs)
    )


def _early(
    snn: SpikingNetwork,
    steps: Tensor,
    outputs: Tensor,
    full: Tensor,
    agreement: float | None,
    labels: Tensor | None,
    energy: Tensor | None,
) -> Early:
    if not len(steps):
        raise DataError("there are no images to measure on")
    changed = float(other_prediction(outputs, full).mean())
    right = None if labels is None else float((outputs.argmax(1).cpu() == labels.cpu()).float().mean())
    joules = None
    if energy is not None:
        few = steps[: len(energy)].to(energy.device)
        joules = float(energy.gather(1, few[:, None] - 1).mean())
    mean = float(steps.float().mean())
    return Early(
        agreement=agreement,
        images=len(steps),
        changed=changed,
        changed_error=math.sqrt(changed * (1 - changed) / len(steps)),
        accuracy=right,
        steps=mean,
        latency=mean + snn.latency - snn.steps,
        energy_uj=joules,
        stopped=tuple(torch.bincount(steps.cpu(), minlength=snn.steps + 1)[1:].tolist()),
    )


# -- energy -----------------------------------------------------------------------------------------------------------


def energies(snn: SpikingNetwork, images: Tensor) -> Tensor:
    """Return the microjoules [N, T] of each image if it stops after each of the output's steps.

    They are counted as in `transpike.measure.conversion.compare`, which gives the mean of the last column. A layer that
    has fired in some of its steps when the output stops has caused the operations of these spikes. Updates that do not
    depend on firing are spread evenly over the steps in which the layer receives input.
    """
    return _Energies(snn).of(images)


class _Energies:
    def __init__(self, snn: SpikingNetwork) -> None:
        self.snn, self.graph = snn, snn.graph
        self.fan_out = {name: fan.to(snn.device) for name, fan in fan_out(snn.graph).items()}
        self.pairings = {name: pairs.to(snn.device) for name, pairs in pairings(snn.graph).items()}
        self.arrived = max(snn.timing.first_spike[name] for name in snn.readouts)

    def of(self, images: Tensor) -> Tensor:
        parts = []
        for part in self.snn.chunks(images):
            self.sums = torch.zeros(len(part), self.snn.steps, dtype=torch.float64, device=self.snn.device)
            self.snn.observe(part, self._add)
            parts.append(self.sums)
        return (torch.cat(parts) + self._currents()) * 1e6

    def _add(self, op: Op, fired: Tracked) -> None:
        """Add the operations that one layer's spikes cause, and its own updates."""
        scheme, steps, neurons = self.snn.scheme, self.snn.steps, math.prod(op.shape)
        digits = scheme.digits if op.fires else scheme.encoded
        wait = self.snn.timing.waits[op.name] if op.fires else 0
        if digits is None:  # an analog current: the first layer's products are computed once
            self.sums += float(self.fan_out[op.name].sum(dtype=torch.float64)) * MULTIPLY_ACCUMULATE
            return
        caused = torch.zeros(steps, fired.spikes.shape[1], dtype=torch.float64, device=self.snn.device)
        own, each = self._own(op, neurons)
        for level in sorted({abs(digit) for digit in digits if digit}):
            there = fired.spikes.abs() == level
            synapse = synaptic_operations({level: 1}, digits=digits, fan_out=1).joules
            caused += _total(there * self.fan_out[op.name]) * synapse + _total(there) * each
            caused += _total(there * self.pairings[op.name]) * MULTIPLY_ACCUMULATE
        fired_steps = [self._simulated(op.name, step + 1) for step in range(steps)]
        shares = [self._simulated(op.name, step + 1 + wait, steps + wait) / (steps + wait) for step in range(steps)]
        so_far = torch.cat([torch.zeros_like(caused[:1]), caused.cumsum(0)])[fired_steps]
        self.sums += (so_far + own * torch.tensor(shares, dtype=torch.float64, device=caused.device)[:, None]).T

    def _own(self, op: Op, neurons: int) -> tuple[float, float]:
        """Return the joules of a layer's own updates without spikes, and those of one spike."""
        if op.kind == "input":
            none, one = (encoder_operations(self.snn.scheme, values=neurons, spikes=k).joules for k in (0, 1))
            return none, one - none
        alone = op.function.tracked and not op.function.pools
        inputs = neurons if alone else sum(math.prod(self.graph[source].shape) for source in op.inputs)
        layer, once = self.snn.neurons[op.name], evaluated(self.graph, op)
        none, one = (layer.operations(neurons=neurons, spikes=k, inputs=inputs, evaluation=once).joules for k in (0, 1))
        return none, one - none

    def _currents(self) -> Tensor:
        """Return [T]: the cost of currents that are passed on, and of the decoded sums."""
        steps = self.snn.steps
        share = torch.arange(1, steps + 1, dtype=torch.float64, device=self.snn.device) / steps
        values = sum(math.prod(op.shape) for op in self.graph if weighted(op) and op.name in self.snn.readouts)
        joules = readout_operations(self.snn.scheme, values=values).joules * share
        for name, count in relays(self.graph).items():
            fired_steps = [self._simulated(name, step + 1) for step in range(steps)]
            joules += torch.tensor(fired_steps).to(joules) * count * ACCUMULATE
        return joules

    def _simulated(self, name: str, step: int, most: int | None = None) -> int:
        """Return the steps in which a layer has fired at this step of the output."""
        return min(self.arrived + step - self.snn.timing.first_spike[name], most or self.snn.steps)


def _total(spikes: Tensor) -> Tensor:
    return spikes.flatten(2).sum(2, dtype=torch.float64)
