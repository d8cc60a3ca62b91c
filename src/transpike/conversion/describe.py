"""The description of a converted network: its layers, in words and numbers."""

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
    """The measurements that calibration took for each layer, by name: see `SpikingNetwork`."""

    units: Mapping[str, float]
    clipped: Mapping[str, float]
    residuals: Mapping[str, float]


@dataclass(frozen=True)
class Layer:
    """One row of the description: the input's encoder or a layer of neurons.

    Attributes:
        name: the layer's name.
        function: the function that it computes, in the terms of the field.
        neurons: the number of neurons.
        amplitude: theta, the real value of a unit of its train, for the largest channel.
        spread: the smallest amplitude of a channel over the largest. It is 1 with one amplitude for the layer.
        clipped: the share of calibration activations that exceed the largest value of a train. None if not measured.
        gain: A, the largest current that inputs of unit spikes can send in a step. None if products of trains enter. A
            layer follows its input while about A beta^-wait is at most the largest digit.
        residual: the root mean square of its trains' errors, in units of theta. None if not measured.
        wait: the number of silent steps before its first spike.
        first_spike: the step of its first spike, if the image arrives at step 0.
        evaluations: the evaluations of its function by a neuron in a step. 0 if comparisons with bounds suffice, as for
            ReLU.
        state: the number of values that a neuron keeps from step to step, on average.
        group: the number of values that one result needs together: the group of a norm or a softmax, otherwise 1.
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
    """The layers of a network as ``rows``. Printing it shows a table."""

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
    """Return what a terminal of 160 columns shows, without colours."""
    console = Console(file=io.StringIO(), width=160, force_terminal=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip()


def describe(graph: Graph, scheme: Scheme, timing: Timing, measured: Measured) -> Description:
    """Describe the layers of a spiking network: functions, amplitudes, first spikes, and a neuron's work in a step."""
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
