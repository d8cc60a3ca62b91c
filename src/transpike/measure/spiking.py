"""Measures a trained spiking network: accuracy at several numbers of steps, firing, operations, energy."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from transpike.errors import DataError
from transpike.neurons import reset_net
from transpike.results import AtSteps, FiringLayer, Spiking
from transpike.train import Evaluation, Machine, evaluate
from transpike.train.batches import total

__all__ = ["follow_steps", "measure_spiking"]

Batches = Iterable[Sequence[Tensor]]


def measure_spiking(
    model: nn.Module,
    test: Callable[[int], Batches],
    *,
    steps: int,
    others: Sequence[int],
    machine: Machine,
    encoder: Callable[[int], Callable[[Tensor], Tensor]] | None = None,
) -> tuple[Evaluation, tuple[AtSteps, ...], Spiking]:
    """Test a spiking network at ``steps``, where its spikes are counted, and at ``others``.

    Args:
        model: takes [T, N, *].
        test: returns the test images, or recordings, for T steps.
        steps: T of the training.
        others: other numbers of steps, which measure only accuracy. If recordings are too short for one, it is left out
            with a warning. With several processes this is an error, because one process cannot leave it out alone.
        machine: devices and precision.
        encoder: returns the encoder of images for T steps. By default images are repeated.

    Returns:
        The result of ``evaluate`` at ``steps``; a row for each number of steps; and counts for one image over all
        steps, with every layer of neurons.
    """
    from transpike.metrics.energy import MULTIPLY_ACCUMULATE
    from transpike.metrics.firing import FiringMeter

    def tested_at(count: int) -> Evaluation:
        encode = None if encoder is None else encoder(count)
        return evaluate(model, test(count), machine=machine, steps=count, encode=encode)

    with FiringMeter(model) as meter:
        tested = {steps: tested_at(steps)}
    meter.combine(total)
    for count in others:
        if count != steps:
            try:
                tested[count] = tested_at(count)
            except DataError as error:  # a recording is too short for so many frames
                if torch.distributed.is_initialized():  # processes without this recording would wait for this one
                    raise
                warnings.warn(f"not tested at T = {count}: {error}", stacklevel=2)
    work = meter.operations
    neurons = sum(layer.neurons for layer in meter.layers)
    spiking = Spiking(
        steps=steps,
        neurons=neurons,
        rate=work.spikes / (neurons * steps),
        spikes_per_neuron=work.spikes / neurons,
        synops=work.synops,
        macs=work.macs,
        neuron_accumulates=work.neuron_accumulates,
        neuron_multiplications=work.neuron_multiplications,
        energy_uj=work.joules * 1e6,
        energy_parts_uj={part: joules * 1e6 for part, joules in work.energy().items()},
        ann_macs=meter.dense_macs,
        ann_energy_uj=meter.dense_macs * MULTIPLY_ACCUMULATE * 1e6,
        layers=tuple(
            FiringLayer(
                name=layer.name,
                neurons=layer.neurons,
                rate=layer.rate,
                spikes_per_neuron=layer.rate * steps,
                positive_per_neuron=(layer.rate - layer.negative) * steps,
                negative_per_neuron=layer.negative * steps,
            )
            for layer in meter.layers
        ),
    )
    rows = (AtSteps(steps=count, accuracy=each.accuracy, loss=each.loss) for count, each in sorted(tested.items()))
    return tested[steps], tuple(rows), spiking


@torch.no_grad()
def follow_steps(
    model: nn.Module, loader: Batches, encoder: nn.Module, *, device: str
) -> tuple[tuple[float, ...], float]:
    """Return the accuracy of a spiking network that is read after 1, 2, ..., T steps, and its encoder's spikes.

    Args:
        model: takes [T, N, *] and returns [T, N, classes]. It keeps its mode, and is left on the CPU.
        loader: yields (images, labels). With several processes each has its share.
        encoder: turns images into [T, N, *]. It is left on the CPU.
        device: the device for the computation.

    Returns:
        T accuracies in [0, 1], each for the mean of the outputs so far; and the number of non-zero values in an image's
        T steps, averaged over images.
    """
    training = model.training
    model.to(device).eval()
    encoder.to(device)
    right = torch.zeros(cast(int, encoder.steps), dtype=torch.float64)
    spikes, count = 0.0, 0.0
    with torch.random.fork_rng():  # so that a run's random numbers continue unchanged
        for images, labels in loader:
            shown = encoder(images.to(device))
            reset_net(model)
            predictions = model(shown).float().cumsum(0).argmax(-1).cpu()
            right += (predictions == labels).sum(1)
            spikes += float(shown.count_nonzero())
            count += len(labels)
    reset_net(model)
    model.cpu().train(training)
    encoder.cpu()
    *rights, spikes, count = total(torch.cat([right, right.new_tensor([spikes, count])])).tolist()
    return tuple(each / count for each in rights), spikes / count
