"""What a converted network is made of, in words and numbers."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console, ConsoleRenderable, RichCast
from rich.table import Table

from transpike.coding.scheme import Scheme
from transpike.conversion.cost import step
from transpike.conversion.graph import Graph
from transpike.conversion.kinds import RELATIVE, title
from transpike.conversion.sensitivity import gains
from transpike.conversion.timing import Timing

__all__ = ["Description", "Layer", "describe", "printed"]


@dataclass(frozen=True)
class Measured:
    """What calibration gave each layer, by name: see `SpikingNetwork`."""

    units: Mapping[str, float]
    clipped: Mapping[str, float]
    residuals: Mapping[str, float]


@dataclass(frozen=True)
class Layer:
    """One row: the input's encoder or a layer of neurons.

    Attributes:
        name: of the layer.
        function: what it computes, in the field's words.
        neurons: how many.
        amplitude: theta, the real value of a unit of its train; of the largest channel.
        spread: the smallest amplitude of a channel over the largest; 1 with one amplitude a layer.
        clipped: share of calibration activations beyond what its train can say; None where it was not measured.
        gain: A, the largest current that inputs of unit spikes can send in a step; None where products of trains
            enter. A layer follows its input while about A beta^-wait is at most the largest digit.
        residual: root mean square of what its trains miss, in units of theta; None where it was not measured.
        wait: steps it listens before its first spike.
        first_spike: the step of its first spike, of an image that arrives at step 0.
        evaluations: of its function by a neuron in a step; 0 where comparisons with bounds do, as for ReLU.
        state: values that a neuron keeps from step to step, a mean.
        group: values that one result needs together: 1, or those of a norm's or a softmax's group.
    """

    name: str
    function: str
    neurons: int
    amplitude: float
    spread: float
    clipped: float | None
    gain: float | None
    residual: float | None
    wait: int
    first_spike: int
    evaluations: int
    state: float
    group: int


@dataclass(frozen=True)
class Description:
    """The layers of a network as ``rows``; printed, a table."""

    title: str
    rows: tuple[Layer, ...]

    def __rich__(self) -> Table:
        table = Table(title=self.title, title_justify="left")
        for heading in ("layer", "function"):
            table.add_column(heading)
        for heading in ("neurons", "amplitude", "clipped", "gain", "residual", "silent", "first spike"):
            table.add_column(heading, justify="right")
        for heading in ("evalu-\nations", "state", "group"):
            table.add_column(heading, justify="right")
        for row in self.rows:
            clipped = "" if row.clipped is None else f"{row.clipped:.3%}"
            gain, residual = ("" if x is None else f"{x:.3g}" for x in (row.gain, row.residual))
            numbers = (f"{row.neurons:,}", f"{row.amplitude:.4g}", clipped, gain, residual, str(row.wait))
            work = (str(row.evaluations or ""), f"{row.state:.3g}", str(row.group))
            table.add_row(row.name, row.function, *numbers, f"step {row.first_spike}", *work)
        return table

    def __str__(self) -> str:
        return printed(self)


def printed(table: ConsoleRenderable | RichCast) -> str:
    """What a terminal of 160 columns shows of it, without colours."""
    console = Console(file=io.StringIO(), width=160, force_terminal=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip()


def describe(graph: Graph, scheme: Scheme, timing: Timing, measured: Measured) -> Description:
    """The layers of a spiking network: their functions, amplitudes, first spikes, what a neuron does in a step."""
    layers, strongest = [graph.input, *graph.neurons], gains(graph)
    steps = {op.name: step(graph, op) for op in layers}
    rows = [
        Layer(
            name=op.name,
            function=title(op),
            neurons=math.prod(op.shape),
            amplitude=measured.units[op.name],
            spread=float(op.tensors[RELATIVE].min()) if RELATIVE in op.tensors else 1.0,
            clipped=measured.clipped.get(op.name),
            gain=strongest.get(op.name),
            residual=measured.residuals.get(op.name),
            wait=timing.waits.get(op.name, 0),
            first_spike=timing.first_spike[op.name],
            evaluations=steps[op.name].evaluations,
            state=steps[op.name].state,
            group=steps[op.name].group,
        )
        for op in layers
    ]
    heading = f"{scheme}\nlatency {timing.latency} steps, a new image every {timing.interval}"
    return Description(heading, tuple(rows))
