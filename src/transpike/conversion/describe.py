"""What a converted network is made of, in words and numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.table import Table

from transpike.conversion.graph import Op

if TYPE_CHECKING:
    from transpike.conversion.network import SpikingNetwork

__all__ = ["describe", "function_name"]


def describe(snn: SpikingNetwork) -> Table:
    """A table of the layers: what each computes, its amplitude, the share it clips, and when its spikes begin."""
    latency, interval = snn.latency, snn.interval
    table = Table(title=f"{snn.scheme}\nlatency {latency} steps, a new image every {interval}", title_justify="left")
    for heading in ("layer", "function"):
        table.add_column(heading)
    for heading in ("neurons", "amplitude", "clipped", "first spike"):
        table.add_column(heading, justify="right")
    wait, depths = snn.scheme.latency(1) - snn.scheme.latency(0), snn.depths
    for op in [snn.graph.input, *snn.graph.neurons]:
        table.add_row(
            op.name,
            function_name(op),
            f"{math.prod(op.shape):,}",
            f"{snn.units[op.name]:.4g}",
            f"{snn.clipped[op.name]:.3%}" if op.name in snn.clipped else "",
            f"step {wait * depths[op.name]}",
        )
    return table


def function_name(op: Op) -> str:
    """What a neuron computes, in the field's words."""
    if op.target == "input":
        return "encoder"
    slope, low, high = op.args["slope"], op.args["low"], op.args["high"]
    if "slope" in op.tensors:
        name = "prelu"
    elif low is None and high is None:
        name = {0: "relu", 1: "identity"}.get(slope, f"leaky_relu({slope:g})")
    elif slope == 0 and low is None:
        name = f"relu{high:g}"
    else:
        name = f"hardtanh({low}, {high})"
    if not op.args["pool"]:
        return name
    return "max_pool" if name == "identity" else f"{name} + max_pool"
