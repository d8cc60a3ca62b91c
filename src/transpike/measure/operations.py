"""What the networks of ``transpike hybrid`` compute for one image: DCT-SNN's Eq. 13, and the encoder's own work."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from transpike.errors import ModelError
from transpike.metrics.energy import Operations
from transpike.metrics.firing import FiringMeter
from transpike.models import create_model

__all__ = ["ann_operations", "equation_13", "spiking_operations"]


def equation_13(name: str, kwargs: Mapping[str, Any], *, shape: Mapping[str, Any]) -> float:
    """Multiply-accumulates of one image in an artificial network: those of its convolutions and linear layers.

        convolution: k_w k_h c_in h_out w_out c_out,   linear: n_in n_out

    Source: Garg, Chowdhury, Roy, ICCV 2021, supplement, Eq. 13.

    Args:
        name: of its spiking twin, which has the same layers.
        kwargs: what else the twin takes.
        shape: num_classes, in_channels and image_size.

    Raises:
        ModelError: if the network cannot be of this shape.

    >>> equation_13("spiking_mlp", {}, shape={"num_classes": 10, "in_channels": 1, "image_size": 28})
    79400.0
    """
    model = _shaped(name, kwargs, shape).to_empty(device="cpu")
    side = shape["image_size"]
    with FiringMeter(model) as meter, torch.no_grad():
        model(torch.zeros(1, 1, shape["in_channels"], side, side))
    return meter.dense_macs


def _shaped(name: str, kwargs: Mapping[str, Any], shape: Mapping[str, Any]) -> nn.Module:
    """A network whose weights are not drawn, for a run's random numbers go on as they would."""
    with torch.device("meta"):
        return create_model(name, **shape, **kwargs).eval()


def ann_operations(name: str, kwargs: Mapping[str, Any], *, shape: Mapping[str, Any], side: int) -> dict[str, Any]:
    """Eq. 13 of the artificial network and, where the encoder lays an image out larger, of one for the image itself.

    Args:
        name: of its spiking twin.
        kwargs: what else the twin takes.
        shape: num_classes, in_channels and image_size, as laid out.
        side: of the image itself, in pixels.

    Returns:
        "image" and "input", both [C, H, W]; "poolings", how often the network halves them; and "rows": "part", counts,
        and "energy_uj" in microjoules.
    """
    channels, laid_out = shape["in_channels"], shape["image_size"]
    rows = [_row("ann", Operations(macs=equation_13(name, kwargs, shape=shape)))]
    if laid_out != side:
        with suppress(ModelError):  # its poolings may leave nothing of the smaller image
            own = equation_13(name, kwargs, shape={**shape, "image_size": side})
            rows.insert(0, _row("ann_image", Operations(macs=own)))
    poolings = sum(isinstance(module, nn.AvgPool2d) for module in _shaped(name, kwargs, shape).modules())
    sides = {"image": [channels, side, side], "input": [channels, laid_out, laid_out]}
    return {**sides, "poolings": poolings, "rows": rows}


def spiking_operations(
    ann: Mapping[str, Any], spiking: Mapping[str, Any], encoder: Any, *, spikes: float
) -> dict[str, Any]:
    """`ann_operations` with rows of the spiking network: "synapses", "neurons", "encoder", and all three, "spiking".

    Args:
        ann: of `ann_operations`.
        spiking: of `measure_spiking`: its synaptic operations are Eq. 13, layer by layer, times the measured rate of
            the layer's input, times T.
        encoder: of `transpike.coding`.
        spikes: of the encoder, for one image over all steps.

    Returns:
        What is in `ann`; "steps"; "input_rate", by which Eq. 13 times T gives the synapses' additions, without layers
        that take analog values.
    """
    additions, analog = spiking["synops"], spiking["macs"]
    whole = spiking["ann_macs"] * spiking["steps"] - analog
    updates = Operations(
        neuron_accumulates=spiking["neuron_accumulates"], neuron_multiplications=spiking["neuron_multiplications"]
    )
    synapses = Operations(macs=analog, accumulates=additions)
    own = Operations(**encoder.operations(tuple(ann["image"]), spikes=spikes))
    parts = {"synapses": synapses, "neurons": updates, "encoder": own, "spiking": synapses + updates + own}
    rows = [*ann["rows"], *(_row(part, work) for part, work in parts.items())]
    return {**ann, "steps": spiking["steps"], "input_rate": additions / whole if whole else None, "rows": rows}


def _row(part: str, work: Operations) -> dict[str, Any]:
    return {
        "part": part,
        "macs": work.macs,
        "accumulates": work.accumulates + work.neuron_accumulates,
        "multiplications": work.multiplications + work.neuron_multiplications,
        "shifts": work.shifts + work.neuron_shifts,
        "energy_uj": work.joules * 1e6,
    }
