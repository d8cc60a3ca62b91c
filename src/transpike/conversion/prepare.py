"""Conversion from a trained network and calibration images to a spiking network."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from transpike.checks import choice
from transpike.coding import DEFAULT
from transpike.coding.scheme import Scheme, largest, spelled
from transpike.conversion.amplitudes import with_relative
from transpike.conversion.calibrate import IMAGES, Statistics, collect, measure
from transpike.conversion.constants import apart
from transpike.conversion.correct import corrected
from transpike.conversion.fold import fold
from transpike.conversion.graph import Graph
from transpike.conversion.network import SpikingNetwork
from transpike.conversion.op import Op
from transpike.conversion.outlook import Progress, log, outlook
from transpike.conversion.place import place
from transpike.conversion.program import network
from transpike.conversion.refusals import listed
from transpike.conversion.scale import scale
from transpike.conversion.silence import choose, measured
from transpike.conversion.sizes import sized
from transpike.conversion.split import split
from transpike.conversion.trace import trace, trace_shapes
from transpike.conversion.until import until as part
from transpike.errors import ConversionError
from transpike.neurons.tsa import Tracked
from transpike.quantiles import Quantiles
from transpike.results import Spikes

__all__ = ["Prepared", "convert", "prepare"]

_FEW = 8  # images for measuring residuals if they choose nothing
_LAGS = 1.0


def convert(
    ann: nn.Module | ExportedProgram,
    calibration: Iterable[object],
    *,
    scheme: Scheme | None = None,
    spikes: Spikes = "needed",
    until: str | None = None,
) -> SpikingNetwork:
    """Run `transpike.convert` under a given scheme, with the same arguments, results and errors, but without a search.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from transpike.coding import CSS
        >>> ann = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
        >>> convert(ann, torch.rand(64, 4), scheme=CSS(steps=12, silent=1)).latency
        14
    """
    return prepare(ann, calibration, spikes=spikes, until=until).convert(DEFAULT if scheme is None else scheme)


def prepare(
    ann: nn.Module | ExportedProgram,
    calibration: Iterable[object],
    *,
    images: int = IMAGES,
    spikes: Spikes = "needed",
    until: str | None = None,
    progress: Progress = log,
) -> Prepared:
    """Do the part of `convert` that all schemes share: trace and fold the network, and measure its activations.

    Args:
        ann: the network, as for `convert`.
        calibration: batches of training images [N, \\*], as for `convert`.
        images: the number of images whose activations are measured.
        spikes: where neurons stand, as for `convert`.
        until: the module of ``ann`` whose output is the network's output. The default is all of ``ann``.
        progress: called during the measurement. By default, the expected cost of a long calibration is logged.

    Raises:
        ConversionError: As for `convert`.
        ConfigError: As for `convert`.

    Example:
        >>> from transpike.coding import CSS
        >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> prepared = prepare(ann, [torch.rand(64, 4)])
        >>> [prepared.convert(CSS(steps=steps, silent=1)).latency for steps in (8, 12)]
        [10, 14]
    """
    choice("spikes", spikes, get_args(Spikes))
    model = network(ann)
    parameter = next(model.parameters(), torch.empty(0))
    sample = collect(calibration, images).to(parameter.device, parameter.dtype)
    example = sample[:2] if len(sample) > 1 else torch.cat([sample, sample])
    model = network(model, example)
    model = model if until is None else part(model, until)
    graph = place(split(fold(trace(model, example))), spikes)

    def traced(shape: tuple[int, ...]) -> Graph:
        return place(split(fold(trace_shapes(model, example.new_zeros(2, *shape)))), spikes)

    graph = sized(graph, traced)
    if not graph.neurons:
        warnings.warn(
            f"{type(model).__name__} has no layer of neurons: it contains only weighted sums, and the input's spikes "
            "reach them directly. If the network has activations, the module that you passed lacks them.",
            stacklevel=2,
        )
    expected = outlook(graph, sample)
    progress(0, expected)
    seen = measure(graph, sample, chunk=expected.chunk, progress=lambda done: progress(done, expected))
    return Prepared(graph, seen, sample)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A folded network and its calibration; converts to any scheme and number of steps.

    Attributes:
        graph: the analog network with normalisation folded into its weights; ``graph.run(x)`` runs it.
        statistics: the distribution of every neuron's |activation|.
        images: the calibration images.
    """

    graph: Graph
    statistics: Statistics
    images: Tensor

    def convert(self, scheme: Scheme, *, progress: Callable[[int, int], None] | None = None) -> SpikingNetwork:
        """Return the spiking network under ``scheme``.

        If the scheme lets conversion choose the waits, ``progress(done, proposals)`` is called after each measured
        proposal.

        Raises:
            ConversionError: The scheme has no neuron for a function of the network, or it is not a scheme.
        """
        if not isinstance(scheme, Scheme):
            raise ConversionError(
                f"scheme: expected a coding scheme such as transpike.CSS(steps=8), not {scheme!r}; "
                'transpike.coding.create_scheme("css", {"steps": 8}) makes one by name'
            )
        refused: dict[str, list[str]] = {}
        for op in self.graph.neurons:
            if isinstance(reason := scheme.neuron(op.function, amplitude=1.0, wait=scheme.wait or 0), str):
                refused.setdefault(reason, []).append(op.name)
        if refused:
            lines = "\n".join(f"  - {listed(places)}: {reason}" for reason, places in refused.items())
            raise ConversionError(f"{type(scheme).__name__} has no neurons for this network:\n{lines}")
        amplitudes = self.amplitudes(scheme)
        if scheme.wait is None:
            return choose(self, scheme, amplitudes, progress)
        snn = self.build(scheme, amplitudes)
        if scheme.correction:
            snn = corrected(snn, self.images, self.statistics.axes)
        snn.residuals = measured(snn, self.images[:_FEW]).residuals
        lagging = [name for name, residual in snn.residuals.items() if residual > _LAGS]
        if lagging and (remedy := scheme.remedy("coupling")):
            worst = sorted(lagging, key=lambda name: -snn.residuals[name])
            places = ", ".join(f"{name} ({snn.residuals[name]:.2g})" for name in worst[:3])
            warnings.warn(
                f"{len(lagging)} of {len(snn.residuals)} layers cannot follow their input: the RMS error of their "
                f"trains exceeds one unit of the last digit. It is largest in {places}. Use {spelled(remedy)}.",
                stacklevel=3,
            )
        return snn

    def amplitudes(self, scheme: Scheme) -> dict[str, Tensor]:
        """Return theta of the input and of every layer of neurons under ``scheme``, [] or [channels], in float64."""
        found = scheme.calibration.amplitudes(
            self.statistics.seen,
            full=scheme.full,
            largest=largest(scheme),
            residuals=lambda amplitudes: _residuals(self.build(scheme, amplitudes), self.images),
        )
        given = {op.name: scheme.given(op.function) for op in self.graph.neurons}
        signed = min(scheme.digits) < 0
        found = apart(found, self.graph, self.statistics.axes, full=scheme.full, signed=signed)
        return found | {name: torch.tensor(theta).double() for name, theta in given.items() if theta is not None}

    def build(
        self, scheme: Scheme, amplitudes: Mapping[str, Tensor], waits: Mapping[str, int] | None = None
    ) -> SpikingNetwork:
        """Return the spiking network with these amplitudes and waits (by default the scheme's wait for all layers)."""
        axes, seen = self.statistics.axes, self.statistics.seen
        layers = {name: float(theta.max()) for name, theta in amplitudes.items()}
        vectors = {}
        for name, theta in amplitudes.items():
            if theta.ndim:
                sizes = [len(theta) if axis == axes[name] else 1 for axis in range(len(self.graph[name].shape))]
                vectors[name] = (theta / layers[name]).view(sizes)
        graph, units = scale(with_relative(self.graph, vectors), scheme, layers)
        reach = largest(scheme)
        clipped = {name: seen[name].share_above(reach * theta) for name, theta in amplitudes.items()}
        return SpikingNetwork(graph, scheme, units, waits=waits, clipped=clipped)


def _residuals(snn: SpikingNetwork, images: Tensor) -> dict[str, Quantiles]:
    """Return the distribution of every neuron's |residual|, in units of theta."""
    quantiles: dict[str, Quantiles] = {}

    def watch(op: Op, tracked: Tracked) -> None:
        if tracked.residual is not None:
            quantiles.setdefault(op.name, Quantiles()).update(tracked.residual)

    snn.observe(images, watch, final=True, trains=False)
    return quantiles
