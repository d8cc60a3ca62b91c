"""What the networks of ``transpike hybrid`` compute for one image: DCT-SNN's Eq. 13, and the encoder's own work."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from rich import box
from rich.table import Table
from torch import nn

from transpike.coding import BurstEncoder, DCTEncoder, DirectEncoder, LatencyEncoder, PhaseEncoder, PoissonEncoder
from transpike.errors import ModelError
from transpike.metrics.energy import Operations
from transpike.metrics.firing import FiringMeter
from transpike.models import create_model

__all__ = ["ann_operations", "encoder_operations", "equation_13", "operations_table", "spiking_operations"]

COLUMNS = ("macs", "accumulates", "multiplications", "shifts")


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
    with torch.device("meta"):  # no weights are drawn, for a run's random numbers go on as they would
        model = create_model(name, **shape, **kwargs).eval()
    model.to_empty(device="cpu")
    side = shape["image_size"]
    with FiringMeter(model) as meter, torch.no_grad():
        model(torch.zeros(1, 1, shape["in_channels"], side, side))
    return meter.dense_macs


def encoder_operations(encoder: nn.Module, image: tuple[int, int, int], *, spikes: float) -> Operations:
    """What an encoder computes for one image in T steps, as its equations say; images are there as pixels.

    DCT: the colours, 9 multiply-accumulates a pixel; the transform of each block by rows and columns, 2 block^3; in
    every step, for each value laid out, ``u + F_k B_k``, one multiply-accumulate, and two comparisons; an addition for
    each spike. Poisson: a comparison, in every step and for every pixel; random numbers are not counted. Latency: a
    multiply-accumulate for the pixel's time, and every step a comparison. Phase: every step a shift. Burst: every step
    an addition and a comparison; for each spike an addition, and a product by beta, a shift for 2. Direct: nothing,
    for the first layer's multiply-accumulates count as the network's.

    Args:
        encoder: one of `transpike.coding`.
        image: (C, H, W).
        spikes: of the encoder, for one image over all steps.

    >>> work = encoder_operations(DCTEncoder(steps=16), (1, 8, 8), spikes=100.0)
    >>> work.macs == 4 * 2 * 4**3 + 16 * 64, work.neuron_accumulates
    (True, 2148.0)
    """
    channels, height, width = image
    pixels = channels * height * width
    match encoder:
        case DCTEncoder(steps=steps):
            rows, columns = encoder.output_size((height, width))
            values = channels * rows * columns
            transform = 2 * values * encoder.block + (9 * height * width if encoder.color else 0)
            shown = values * steps
            return Operations(macs=transform + shown, neuron_accumulates=2 * shown + spikes)
        case PoissonEncoder(steps=steps):
            return Operations(neuron_accumulates=pixels * steps)
        case LatencyEncoder(steps=steps):
            return Operations(macs=pixels, neuron_accumulates=pixels * steps)
        case PhaseEncoder(steps=steps):
            return Operations(neuron_shifts=pixels * steps)
        case BurstEncoder(steps=steps):
            shifted = spikes if encoder.beta == 2 else 0.0
            return Operations(
                neuron_accumulates=2 * pixels * steps + spikes,
                neuron_shifts=shifted,
                neuron_multiplications=spikes - shifted,
            )
        case DirectEncoder():
            return Operations()
    raise ModelError(f"{type(encoder).__name__}: no count of its operations is known.")


def ann_operations(name: str, kwargs: Mapping[str, Any], *, shape: Mapping[str, Any], side: int) -> dict[str, Any]:
    """Eq. 13 of the artificial network and, where the encoder lays an image out larger, of one for the image itself.

    Args:
        name: of its spiking twin.
        kwargs: what else the twin takes.
        shape: num_classes, in_channels and image_size, as laid out.
        side: of the image itself, in pixels.

    Returns:
        "image" and "input", both [C, H, W], and "rows": "part", counts, and "energy_uj" in microjoules.
    """
    channels, laid_out = shape["in_channels"], shape["image_size"]
    rows = [_row("ann", Operations(macs=equation_13(name, kwargs, shape=shape)))]
    if laid_out != side:
        with suppress(ModelError):  # its poolings may leave nothing of the smaller image
            own = equation_13(name, kwargs, shape={**shape, "image_size": side})
            rows.insert(0, _row("ann_image", Operations(macs=own)))
    return {"image": [channels, side, side], "input": [channels, laid_out, laid_out], "rows": rows}


def spiking_operations(
    ann: Mapping[str, Any], spiking: Mapping[str, Any], encoder: nn.Module, *, spikes: float
) -> dict[str, Any]:
    """`ann_operations` with rows of the spiking network: "synapses", "neurons", "encoder", and all three, "spiking".

    Args:
        ann: of `ann_operations`.
        spiking: of `measure_spiking`: its synaptic operations are Eq. 13, layer by layer, times the measured rate of
            the layer's input, times T.
        encoder: of the images.
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
    own = encoder_operations(encoder, tuple(ann["image"]), spikes=spikes)
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


def operations_table(operations: Mapping[str, Any]) -> Table:
    """For the terminal: one image's operations in millions, and their energy in microjoules."""
    (_, *image), (_, *laid_out) = operations["image"], operations["input"]
    names = {
        "ann_image": f"artificial, at {image[0]} x {image[1]}",
        "ann": f"artificial, at {laid_out[0]} x {laid_out[1]}",
        "spiking": "spiking: all",
    }
    table = Table(title="Operations for one image, in millions", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("part")
    for heading in ("MACs", "additions", "products", "shifts", "µJ"):
        table.add_column(heading, justify="right")
    for row in operations["rows"]:
        counts = (f"{row[column] / 1e6:.3g}" if row[column] else "" for column in COLUMNS)
        name = names.get(row["part"], f"spiking: {row['part']}")
        table.add_row(name, *counts, f"{row['energy_uj']:.3g}")
    return table
