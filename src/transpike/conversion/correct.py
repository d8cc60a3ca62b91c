"""Corrects each layer so that the mean of its decoded trains equals the original's: the light calibration of Li et al.

Source: Li, Deng, Dong, Gong, Gu, "A Free Lunch From ANN: Towards Efficient, Accurate Spiking Neural Networks
Calibration", ICML 2021 (its light pipeline). Layers are corrected one after the other, each with the trains of
corrected layers as input.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from transpike.coding.neuron import CORRECTION
from transpike.coding.scheme import decode
from transpike.conversion.network import SpikingNetwork
from transpike.conversion.op import Op
from transpike.neurons.tsa import Tracked

__all__ = ["corrected"]

IMAGES = 128
"""The largest number of images. The source takes one batch."""
_VALUES = 2**26  # limit for one layer at all steps of the images, which are simulated at once


def corrected(snn: SpikingNetwork, images: Tensor, axes: Mapping[str, int]) -> SpikingNetwork:
    """Return ``snn`` with a correction in each layer of neurons, of the kind that its scheme names.

    Args:
        snn: a network whose scheme's neurons take the constant `CORRECTION`.
        images: the calibration images [N, \\*].
        axes: the axis of one sample that counts channels, by name of the layer. A layer without one gets one number.
    """
    largest = max(math.prod(op.shape) for op in snn.graph)
    images = images[: min(IMAGES, max(_VALUES // (largest * snn.steps), 4))]
    means: dict[str, Tensor] = {}
    corrections: dict[str, Tensor] = {}

    def sum_up(op: Op, value: Tensor) -> None:
        means[op.name] = means.get(op.name, 0.0) + value.double().sum(0)

    for part in snn.chunks(images):
        snn.analog(part, sum_up)

    def fire(op: Op, currents: Sequence[Tensor]) -> Tracked:
        if op.kind == "input":
            return snn.encode(*currents)
        neuron, constants = snn.neurons[op.name], snn.tensors(op)
        spikes = neuron(currents, constants, inplace=False, final=False).spikes
        missed = means[op.name] / len(images) - decode(snn.scheme, spikes).double().mean(0)
        if snn.scheme.correction == "bias" or missed.shape != currents[0].shape[2:]:
            missed = missed.mean([axis for axis in range(missed.ndim) if axis != axes.get(op.name)], keepdim=True)
        corrections[op.name] = missed.float()
        return neuron(currents, constants | {CORRECTION: corrections[op.name]}, inplace=False, final=False)

    snn.simulate(images, fire)
    ops = (
        replace(op, tensors={**op.tensors, CORRECTION: corrections[op.name]}) if op.name in corrections else op
        for op in snn.graph
    )
    graph = replace(snn.graph, ops=tuple(ops))
    return SpikingNetwork(graph, snn.scheme, snn.units, waits=snn.timing.waits, clipped=snn.clipped)
