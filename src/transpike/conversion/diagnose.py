"""Finds the causes of a converted network's error: which layer, by resolution, clipping or coupling, and a remedy.

Each layer's own error is its residual: the function of its whole input minus its decoded trains. To first order, the
residual changes the output by the residual times the derivative of the outputs. Random projections of the outputs (see
`transpike.conversion.sensitivity.gradients`) give the squared norm of this product for all layers at once. This also
holds if the residuals of a layer have a common part: clipping, for instance, always has the same sign.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from rich import box
from rich.table import Table
from torch import Tensor

from transpike.coding.residuals import Binding, binding, split
from transpike.coding.scheme import Neuron, Scheme, decode, finest, followed, largest, ratio, spelled
from transpike.conversion.describe import printed
from transpike.conversion.graph import Graph
from transpike.conversion.kinds import title
from transpike.conversion.op import Op
from transpike.conversion.sensitivity import PROBES, gains, gradients, relative_error, spread
from transpike.conversion.timing import Timing
from transpike.neurons.tsa import Tracked, accumulate

__all__ = ["Diagnosis", "LayerDiagnosis", "Parts", "diagnose"]

_CHUNK, _VALUES = 8, 2**26  # images at a time, and the values of all layers of a chunk
_SIGNIFICANT = 1e-3  # a smaller error needs no advice
_HEADINGS = (
    *("output\nerror", "reso-\nlution", "clip-\nping", "coup-\nling", "resid-\nual", "Eq. 10\nholds", "gain"),
    *("largest\ncurrent", "its\nbound", "holds", "silent\nsteps"),
)


class Network(Protocol):
    """The network to diagnose: see `transpike.conversion.network.SpikingNetwork`."""

    graph: Graph
    scheme: Scheme
    timing: Timing
    clipped: dict[str, float]
    neurons: dict[str, Neuron]

    def encode(self, x: Tensor) -> Tracked: ...
    def tensors(self, op: Op) -> dict[str, Tensor]: ...
    def simulate(self, x: Tensor, fire: Callable[[Op, list[Tensor]], Tracked]) -> Tensor: ...
    def differentiable(self, x: Tensor, observe: Callable[[Op, Tensor], None]) -> Tensor: ...


@dataclass(frozen=True)
class Parts:
    """The squared relative error at the output from each part of a layer's own error, to first order.

    Example:
        >>> parts = Parts(resolution=1e-4, coupling=3e-4)
        >>> parts.binding, round(parts.error, 3), parts.shares["coupling"]
        ('coupling', 0.02, 0.75)
    """

    resolution: float = 0.0
    clipping: float = 0.0
    coupling: float = 0.0

    @property
    def total(self) -> float:
        return self.resolution + self.clipping + self.coupling

    @property
    def error(self) -> float:
        """The relative error that all three parts cause."""
        return math.sqrt(self.total)

    @property
    def binding(self) -> Binding:
        """The largest of the three parts."""
        return binding(resolution=self.resolution, clipping=self.clipping, coupling=self.coupling)

    @property
    def shares(self) -> dict[Binding, float]:
        """Each part over the total. 0 if there is no error."""
        names: tuple[Binding, ...] = ("resolution", "clipping", "coupling")
        return {name: self.part(name) / (self.total or 1.0) for name in names}

    def part(self, name: Binding) -> float:
        """Return one of the three parts, by its name."""
        return {"resolution": self.resolution, "clipping": self.clipping, "coupling": self.coupling}[name]

    def __add__(self, other: Parts) -> Parts:
        return Parts(self.resolution + other.resolution, self.clipping + other.clipping, self.coupling + other.coupling)


@dataclass(frozen=True)
class LayerDiagnosis:
    """One row: the input's encoder or a layer of neurons. Magnitudes are in units of its theta.

    Attributes:
        name: the layer's name.
        function: the function that it computes.
        wait: the number of silent steps before its first spike.
        caused: the error that it causes at the output.
        residual: the root mean square of the differences between its trains and their targets.
        clipped: the share of its values that exceed the largest value of a train.
        decoupled: the share of its values for which the decoupling condition (Eq. 10 of CSS) holds at every step. The
            condition is necessary for a residual below a unit. Our neurons round to the nearest digit. For these it is
            also sufficient, so the share is counted from the residuals.
        gain: A, the largest current that inputs of unit spikes can send in a step. None if products of trains enter.
        current: the largest measured current in a step.
        bound: the current up to which the layer surely follows its input (see `transpike.coding.scheme.followed`). None
            for functions and codes without a known bound.
        bounded: the share of its values whose currents, and whose sums over the silent steps, stay within the bound.
        certain: whether its weights and constants alone ensure this for all images.
    """

    name: str
    function: str
    wait: int
    caused: Parts
    residual: float
    clipped: float
    decoupled: float
    gain: float | None = None
    current: float | None = None
    bound: float | None = None
    bounded: float | None = None
    certain: bool | None = None


@dataclass(frozen=True)
class Diagnosis:
    """The causes of a converted network's error on some images. Printing it shows a table and a sentence.

    Attributes:
        title: the scheme.
        rows: the input's encoder, then every layer of neurons.
        error: the measured relative error of the decoded outputs.
        advice: the setting of the scheme, by name, that would help most. Empty if there is none, or if none is needed.
    """

    title: str
    rows: tuple[LayerDiagnosis, ...]
    error: float
    advice: Mapping[str, object] = field(default_factory=dict)

    @property
    def caused(self) -> Parts:
        """The errors that all layers cause, as if independent. Compare its ``error`` with the measured one."""
        return sum((row.caused for row in self.rows), Parts())

    @property
    def binding(self) -> Binding:
        """The largest of the three causes for the whole network."""
        return self.caused.binding

    @property
    def words(self) -> str:
        """The main cause, its layer and a remedy, in a sentence or two."""
        if self.error < _SIGNIFICANT:
            return f"The error at the output is {self.error:.2%}: nothing needs to be done."
        name, whole = self.binding, self.caused
        share = self.worst.caused.part(name) / (whole.part(name) or 1.0)
        sentence = f"{name.capitalize()} makes {whole.shares[name]:.0%} of the squared error at the output"
        sentence += f", {share:.0%} of that in {self.worst.name}. "
        return sentence + (
            f"What would help most: {spelled(self.advice)}." if self.advice else "No setting reduces it."
        )

    @property
    def worst(self) -> LayerDiagnosis:
        """The layer with the largest part of the main cause."""
        return max(self.rows, key=lambda row: row.caused.part(self.binding))

    def __rich__(self) -> Table:
        table = Table(title=self.title, caption=self.words, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        table.title_justify = table.caption_justify = "left"
        table.add_column("layer", overflow="fold")
        table.add_column("bound by", no_wrap=True)
        for heading in _HEADINGS:
            table.add_column(heading, justify="right", no_wrap=True)
        for row in self.rows:
            numbers = [f"{x:.3g}" if x is not None else "" for x in (row.gain, row.current, row.bound)]
            bounded = "" if row.bounded is None else "all inputs" if row.certain else f"{row.bounded:.1%}"
            misses = (f"{row.residual:.3g}", f"{row.decoupled:.2%}")
            name = row.caused.binding if row.caused.total else ""
            table.add_row(row.name, name, *_cells(row.caused), *misses, *numbers, bounded, str(row.wait))
        table.add_section()
        table.add_row("all", self.binding, *_cells(self.caused))
        table.add_row("measured", "", f"{self.error:.3%}")
        return table

    def __str__(self) -> str:
        return printed(self)


def _cells(parts: Parts) -> list[str]:
    return [f"{parts.error:.3%}", *(f"{share:.0%}" for share in parts.shares.values())]


@torch.no_grad()
def diagnose(snn: Network, images: Tensor) -> Diagnosis:
    """Diagnose the layers on ``images`` [N, \\*]: their errors, their effect at the output, and the best setting."""
    layers = {op.name: _Layer(op, snn) for op in (snn.graph.input, *snn.graph.neurons)}
    sizes = [math.prod(op.shape) for op in snn.graph]
    values = max(sum(sizes), max(sizes) * len(snn.scheme.weights))
    generator = torch.Generator().manual_seed(0)
    want, got = [], []
    for x in images.split(max(1, min(_CHUNK, _VALUES // values))):
        out, probes = gradients(snn.differentiable, x, generator)
        want.append(out)
        got.append(snn.simulate(x, lambda op, currents: layers[op.name].fire(currents)))
        for grads in probes:
            for name, grad in grads.items():
                layers[name].project(grad)
    outputs = torch.cat(want)
    strongest = gains(snn.graph)
    most = gains(snn.graph, spike=max(map(abs, snn.scheme.digits)), constants=True)
    scale = spread(outputs) * PROBES
    rows = tuple(layer.row(scale, strongest.get(name), most.get(name)) for name, layer in layers.items())
    diagnosis = Diagnosis(str(snn.scheme), rows, relative_error(torch.cat(got), outputs))
    if diagnosis.error < _SIGNIFICANT:
        return diagnosis
    foreseen = snn.clipped.get(diagnosis.worst.name, 0.0) >= diagnosis.worst.clipped * 2 / 3
    advice = snn.scheme.remedy(diagnosis.binding, foreseen=foreseen)
    return replace(diagnosis, advice=advice or {})


class _Layer:
    """The sums for one layer, collected chunk by chunk."""

    def __init__(self, op: Op, snn: Network) -> None:
        self.op, self.snn = op, snn
        self.unit, self.beta = finest(snn.scheme), ratio(snn.scheme) or 1.0
        self.wait = snn.timing.waits.get(op.name, 0)
        known = op.fires and op.function.tracked and abs(op.function.tail.slope) <= 1
        self.bound = followed(snn.scheme, self.wait) if known else None
        self.values = self.bounded = self.beyond = self.coupled = 0
        self.squared = self.current = 0.0
        self.caused = torch.zeros(3, dtype=torch.float64)

    def fire(self, currents: Sequence[Tensor]) -> Tracked:
        """Fire the layer's neurons. The input's encoder takes the values themselves."""
        if self.op.kind == "input":
            fired = self.snn.encode(*currents)
            target = currents[0]
            residual = target - decode(self.snn.scheme, fired.spikes)
        else:
            self._look(currents)
            fired = self.snn.neurons[self.op.name](currents, self.snn.tensors(self.op), inplace=False, final=True)
            assert fired.residual is not None and fired.target is not None
            target, residual = fired.target, fired.residual
        reach = largest(self.snn.scheme) / self.unit + 0.5
        self.residual: Tensor = residual
        self.clipped, self.late = split(target / self.unit, residual / self.unit, largest=reach)
        self.values += residual.numel()
        self.squared += float(residual.square().sum(dtype=torch.float64))
        self.beyond += int(self.clipped.sum())
        self.coupled += int((residual.abs() >= self.unit).sum())
        return Tracked(fired.spikes)

    def _look(self, currents: Sequence[Tensor]) -> None:
        """Compare the currents with the bound."""
        self.current = max(self.current, *(float(z.abs().max()) for z in currents))
        if self.bound is None:
            return
        (z,) = currents
        beyond = z.abs().amax(0) / self.bound
        if self.wait:
            accumulated = accumulate(z[: self.wait], beta=self.beta, silent=max(self.wait - len(z), 0))[-1]
            beyond = torch.maximum(beyond, accumulated.abs() * 2 / self.beta**self.wait)
        target = self.op.function.head(beyond, constants=self.snn.tensors(self.op))  # the largest of a window
        self.bounded += int((target <= 1).sum())

    def project(self, grad: Tensor) -> None:
        """Add, for each of the three parts, the square of the change that the residuals cause in one projection."""
        moved = (grad.float() * self.residual.float()).reshape(len(grad), -1)
        sums = [moved.sum(1, dtype=torch.float64)]
        for part in (self.clipped, self.late):
            sums.append((moved * part.reshape(moved.shape)).sum(1, dtype=torch.float64))
        parts = torch.stack([sums[0] - sums[1] - sums[2], *sums[1:]])
        self.caused += parts.square().sum(1).cpu()

    def row(self, scale: float, gain: float | None, most: float | None) -> LayerDiagnosis:
        return LayerDiagnosis(
            name=self.op.name,
            function=title(self.op),
            wait=self.wait,
            caused=Parts(*(self.caused / scale).tolist()),
            residual=math.sqrt(self.squared / self.values),
            clipped=self.beyond / self.values,
            decoupled=1 - self.coupled / self.values,
            gain=gain,
            current=self.current if self.op.fires else None,
            bound=self.bound,
            bounded=self.bounded / self.values if self.bound is not None else None,
            certain=self._certain(most) if self.bound is not None and most is not None else None,
        )

    def _certain(self, most: float) -> bool:
        """Whether currents of at most ``most`` in a step stay within the bound, in the silent steps too."""
        assert self.bound is not None
        accumulated = most * sum(self.beta**step for step in range(self.wait))
        return most <= self.bound and accumulated <= self.beta**self.wait / 2
