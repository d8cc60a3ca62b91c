"""The operations of ``transpike hybrid``'s networks for one image: DCT-SNN's Eq. 13, and the encoder's own work."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Literal

import torch
from torch import nn

from transpike import results
from transpike.coding import Encoder
from transpike.errors import ModelError
from transpike.metrics.energy import Operations
from transpike.metrics.firing import FiringMeter
from transpike.models import create_model
from transpike.train.options import Arguments
from transpike.train.stages import Shape

__all__ = ["ann_operations", "equation_13", "spiking_operations"]

Name = Literal["ann_image", "ann", "synapses", "neurons", "encoder", "spiking"]


def equation_13(name: str, kwargs: Arguments, *, shape: Shape) -> float:
    """Return the multiply-accumulates of one image in an artificial network, of its convolutions and linear layers.

        convolution: k_w k_h c_in h_out w_out c_out,   linear: n_in n_out

    Source: Garg, Chowdhury, Roy, ICCV 2021, supplement, Eq. 13.

    Args:
        name: the name of its spiking twin, which has the same layers.
        kwargs: the twin's other arguments.
        shape: num_classes, in_channels and image_size.

    Raises:
        ModelError: The network cannot have this shape.

    Example:
        >>> equation_13("spiking_mlp", {}, shape={"num_classes": 10, "in_channels": 1, "image_size": 28})
        79400.0
    """
    model = _shaped(name, kwargs, shape).to_empty(device="cpu")
    side = shape["image_size"]
    with FiringMeter(model) as meter, torch.no_grad():
        model(torch.zeros(1, 1, shape["in_channels"], side, side))
    return meter.dense_macs


def _shaped(name: str, kwargs: Arguments, shape: Shape) -> nn.Module:
    """Create a network without drawing its weights, so that a run's random numbers continue unchanged."""
    with torch.device("meta"):
        return create_model(name, **shape, **kwargs).eval()


def ann_operations(name: str, kwargs: Arguments, *, shape: Shape, side: int) -> results.Operations:
    """Return Eq. 13 of the artificial network and, if the encoder enlarges the image, of one for the original image.

    Args:
        name: the name of its spiking twin.
        kwargs: the twin's other arguments.
        shape: classes, channels and side after the encoder.
        side: the side of the original image, in pixels.
    """
    channels, laid_out = shape["in_channels"], shape["image_size"]
    rows = [_part("ann", Operations(macs=equation_13(name, kwargs, shape=shape)))]
    if laid_out != side:
        with suppress(ModelError):  # its poolings may leave nothing of the smaller image
            own = equation_13(name, kwargs, shape={**shape, "image_size": side})
            rows.insert(0, _part("ann_image", Operations(macs=own)))
    poolings = sum(isinstance(module, nn.AvgPool2d) for module in _shaped(name, kwargs, shape).modules())
    image, laid = (channels, side, side), (channels, laid_out, laid_out)
    return results.Operations(image=image, input=laid, poolings=poolings, rows=tuple(rows))


def spiking_operations(
    ann: results.Operations, spiking: results.Spiking, encoder: Encoder, *, spikes: float
) -> results.Operations:
    """Return `ann_operations` and the parts of the spiking network: its synapses, neurons, encoder, and all three.

    Args:
        ann: the result of `ann_operations`.
        spiking: the result of `measure_spiking`. Its synaptic operations are, layer by layer, Eq. 13 times the measured
            rate of the layer's input, times T.
        encoder: an encoder of `transpike.coding`.
        spikes: the spikes of the encoder for one image over all steps.
    """
    whole = spiking.ann_macs * spiking.steps - spiking.macs
    neurons = Operations(
        neuron_accumulates=spiking.neuron_accumulates, neuron_multiplications=spiking.neuron_multiplications
    )
    synapses = Operations(macs=spiking.macs, accumulates=spiking.synops)
    own = Operations(**encoder.operations(ann.image, spikes=spikes))
    parts = (
        _part("synapses", synapses), _part("neurons", neurons), _part("encoder", own),
        _part("spiking", synapses + neurons + own),
    )  # fmt: skip
    # This rate times Eq. 13 times T gives the synapses' additions, without layers with analog input.
    rate = spiking.synops / whole if whole else None
    return replace(ann, steps=spiking.steps, input_rate=rate, rows=(*ann.rows, *parts))


def _part(name: Name, work: Operations) -> results.Part:
    return results.Part(
        part=name,
        macs=work.macs,
        accumulates=work.accumulates + work.neuron_accumulates,
        multiplications=work.multiplications + work.neuron_multiplications,
        shifts=work.shifts + work.neuron_shifts,
        energy_uj=work.joules * 1e6,
    )
