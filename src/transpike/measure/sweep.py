"""Converts, measures and saves a network under several schemes, or at several numbers of steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from transpike.coding import DEFAULT, Scheme, scheme_settings
from transpike.coding.operations import TECHNOLOGIES, Technology
from transpike.conversion import SpikingNetwork, prepare
from transpike.conversion.calibrate import collect
from transpike.conversion.diagnose import Diagnosis
from transpike.conversion.outlook import Outlook
from transpike.data import ImageSets
from transpike.errors import ConfigError, ConversionError
from transpike.measure.conversion import compare
from transpike.measure.outputs import scored
from transpike.measure.search import Search
from transpike.measure.stopping import early_row
from transpike.metrics.tasks import Metric
from transpike.results import Calibration, Conversion, Limits, Row, Spikes
from transpike.train.processes import first_process

__all__ = ["Sweep", "explained", "folder_name", "sweep"]

Chosen = Callable[[int, int], None]
DIAGNOSED = 24
"""The number of test images for diagnosing the layers' errors at the output."""


@dataclass(frozen=True)
class Sweep:
    """A network, and the schemes under which it is converted.

    Attributes:
        name: the network's name.
        ann: the network.
        sets: the data set: training images for the calibration, test images for the measurement.
        schemes: the schemes. Each gives a spiking network.
        calibration: the number of training images that set the amplitudes.
        device: the device for the computation.
        spikes: where there are neurons.
        until: the module whose output is the spiking network's output. None for the whole network.
        found: the result of a search, if any. Its network is measured in place of schemes.
        target: percentage points of accuracy. For each code, the least T that loses no more is searched.
        agreement: the required share of early answers that equal those after all steps. If set, early answers are
            measured too.
        held_out: the number of test images, the first ones, that determine when answers may stop.
        limits: the limits of the row that is chosen.
        technology: the technology for the energies.
        metric: measures of outputs beside classes, by name.
        total: sums a tensor over processes that share the test images. None for one process.
    """

    name: str
    ann: nn.Module
    sets: ImageSets
    schemes: Sequence[Scheme]
    calibration: int = 512
    device: str = "cpu"
    spikes: Spikes = "needed"
    until: str | None = None
    found: Search | None = None
    target: float | None = None
    agreement: float | None = None
    held_out: int = 512
    limits: Limits | None = None
    technology: Technology = TECHNOLOGIES["45nm"]
    metric: Mapping[str, Metric] | None = None
    total: Callable[[Tensor], Tensor] | None = None


def sweep(task: Sweep, folder: Path | None, *, rows: Sequence[Row] = ()) -> Iterator[Conversion]:
    """Convert a network under every scheme, measure each result on the test images, and save it in its own folder.

    Args:
        task: the network and its schemes.
        folder: the folder for the networks' folders. With None nothing is saved, and a scheme without neurons for the
            network does not prevent the measurement of the others.
        rows: rows of schemes that were measured before. These schemes are left out.

    Yields:
        The results so far, after every scheme.

    Raises:
        ConversionError: No scheme has neurons for the network. Or networks are saved, and one scheme has none.
    """
    known, refused = {_key(row.scheme): row for row in rows}, dict[str, tuple[str, ConversionError]]()
    sets, schemes = task.sets, [task.found.network.scheme] if task.found else task.schemes
    with _Bars(task, schemes) as bars:
        convert, images = _converter(task, bars)
        for number, scheme in enumerate(_planned(schemes, known, task.target)):
            if number >= len(schemes):
                bars.planned(scheme)
            code = _code(scheme_settings(scheme))
            if _key(scheme_settings(scheme)) in known or code in refused:
                bars.passed(scheme)
                continue
            name = folder_name(scheme)
            try:
                snn = convert(scheme, bars.choosing(scheme)).to(task.device)
            except ConversionError as error:
                if folder:
                    raise
                kind = type(scheme).__name__
                same = kind.lower() == scheme.label.lower()
                refused[code] = kind if same else f"{kind}, {scheme.label}", error
                bars.passed(scheme)
                continue
            measured = compare(
                snn, sets.test, progress=bars.measuring(scheme), total=task.total, technology=task.technology,
                metric=task.metric,
            )  # fmt: skip
            row = measured.row
            if task.agreement is not None:
                row = early_row(row, snn, sets, agreement=task.agreement, held_out=task.held_out, total=task.total)
            if folder:
                snn.save(folder / name)
                few = collect(sets.test, DIAGNOSED).to(task.device)
                row = replace(explained(row, snn.diagnose(few)), network=name)
            known[_key(scheme_settings(scheme))] = row
            yield Conversion(
                model=task.name,
                dataset=sets.name,
                images=measured.images,
                ann=measured.ann,
                rows=_ordered(known.values()),
                calibration=Calibration(images=images),
                glossary={term: meaning for each in schemes for term, meaning in each.terms.items()},
                goal=task.found.goal if task.found else None,
                tries=snn.search,
                technology=task.technology.name,
                target_loss=task.target,
                limits=task.limits,
                refused={label: str(error) for label, error in refused.values()},
            )
    if refused and not known:
        raise next(error for _, error in refused.values())


class _Bars(Progress):
    """Shows the progress of the present scheme and of all, in steps times images, so that progress follows time.

    Only the first process shows it.
    """

    def __init__(self, task: Sweep, schemes: Sequence[Scheme]) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        super().__init__(*columns, console=Console(stderr=True, quiet=not first_process()))
        self._images = len(task.sets.test.sampler)  # type: ignore[arg-type]
        self._one = self.add_task("tracing", total=None)
        work = sum(len(scheme.weights) for scheme in schemes) * self._images
        self._all = self.add_task("all", total=work) if len(schemes) > 1 else None

    def calibrated(self, done: int, expected: Outlook) -> None:
        """Show how many images the calibration has finished."""
        if not done:
            self.console.print(f"{str(expected)[0].upper()}{str(expected)[1:]}.")
        self.update(self._one, description="calibrating", total=expected.images, completed=done)

    def choosing(self, scheme: Scheme) -> Chosen:
        """Return a function that shows how many proposals of waits have been tried."""
        text = f"{folder_name(scheme)}: choosing silent steps" if scheme.wait is None else folder_name(scheme)
        self.reset(self._one, description=text, total=self._images)
        return lambda done, proposals: self.update(self._one, completed=done, total=proposals)

    def measuring(self, scheme: Scheme) -> Callable[[int], None]:
        """Return a function that shows how many images have been measured."""
        self.reset(self._one, description=folder_name(scheme), total=self._images)
        steps = len(scheme.weights)

        def measured(images: int) -> None:
            self.advance(self._one, images)
            if self._all is not None:
                self.advance(self._all, images * steps)

        return measured

    def passed(self, scheme: Scheme) -> None:
        """Count a scheme that needs no measurement."""
        if self._all is not None:
            self.advance(self._all, len(scheme.weights) * self._images)

    def planned(self, scheme: Scheme) -> None:
        """Count one more scheme."""
        if self._all is not None:
            total = self.tasks[self._all].total or 0
            self.update(self._all, total=total + len(scheme.weights) * self._images)


def _planned(schemes: Sequence[Scheme], known: Mapping[str, Row], target: float | None) -> Iterator[Scheme]:
    """Yield all schemes, then for each code those between measured ones that find the least T for a target."""
    yield from schemes
    codes = {_code(scheme_settings(scheme)): scheme for scheme in schemes if target is not None}
    for code, scheme in codes.items():
        while between := _between(scheme, [row for row in known.values() if _code(row.scheme) == code], target or 0.0):
            yield between[len(between) // 2]


def _between(scheme: Scheme, rows: Sequence[Row], target: float) -> list[Scheme]:
    """Return ``scheme`` at all T between the least that meets the target and the next lower that was measured.

    Example:
        >>> from types import SimpleNamespace as Measured
        >>> from transpike.coding import CSS, Phase
        >>> rows = [Measured(steps=8, loss_pp=2.0), Measured(steps=32, loss_pp=0.1), Measured(steps=64, loss_pp=0.0)]
        >>> [one.steps for one in _between(Phase(steps=8), rows, 0.5)]
        [16, 24]
    """
    met = min((row.steps for row in rows if row.loss_pp is not None and row.loss_pp <= target), default=0)
    missed = max((row.steps for row in rows if row.steps < met), default=met)
    found = []
    for steps in range(missed + 1, met):
        with suppress(ConfigError):  # a scheme may allow only some T, such as whole periods
            found.append(replace(scheme, steps=steps))  # type: ignore[type-var]
    return found


def explained(row: Row, diagnosis: Diagnosis) -> Row:
    """Return ``row`` with the causes of its error."""
    causes = {layer.name: layer.caused for layer in diagnosis.rows}
    layers = tuple(
        replace(
            layer,
            output_resolution=causes[layer.name].resolution,
            output_clipping=causes[layer.name].clipping,
            output_coupling=causes[layer.name].coupling,
        )
        for layer in row.layers
    )
    return replace(row, layers=layers, output_error=diagnosis.error, advice=diagnosis.advice, diagnosis=diagnosis.words)


def _converter(task: Sweep, bars: _Bars) -> tuple[Callable[[Scheme, Chosen], SpikingNetwork], int]:
    """Return a function that converts the network under a scheme, and the number of calibration images."""
    if task.found is not None:
        network = task.found.network
        return lambda scheme, chosen: network, task.found.images
    batches, ann = task.sets.calibration(task.calibration), task.ann.to(task.device)
    prepared = prepare(
        ann, batches, images=task.calibration, spikes=task.spikes, until=task.until, progress=bars.calibrated
    )
    if task.metric:  # one that does not fit fails before any network is made
        few = prepared.images[:2]
        with torch.no_grad():
            outputs = prepared.graph.pack(prepared.graph.run(few))
        for metric in task.metric.values():
            scored(metric, outputs, outputs, len(few))
    return lambda scheme, chosen: prepared.convert(scheme, progress=chosen), len(prepared.images)


def folder_name(scheme: Scheme) -> str:
    """Return a folder's name for a scheme: its differences from the default, steps first.

    Example:
        >>> from transpike.coding import CSS, Rate
        >>> folder_name(CSS(steps=6, silent=0, levels=(1, 2, 4, 8))), folder_name(Rate(steps=32))
        ('T6_silent-0_levels-1-2-4-8', 'T32_rate')
    """
    settings, default = scheme_settings(scheme), scheme_settings(type(scheme)())
    parts = [f"T{settings['steps']}"] if "steps" in settings else []
    if settings["name"] != scheme_settings(DEFAULT)["name"]:
        parts.append(str(settings["name"]))
    differing = (name for name in settings if name != "steps" and settings[name] != default[name])
    return "_".join([*parts, *(f"{name}-{_compact(settings[name])}" for name in differing)])


def _compact(value: object) -> str:
    """Return a setting as a part of a name: ``1-2-4-8``; the integers from 1 to 64 are ``1..64``."""
    if not isinstance(value, tuple):
        return str(value)
    consecutive = len(value) > 3 and value[-1] == len(value)
    return f"1..{value[-1]}" if consecutive else "-".join(map(str, value))


def _key(settings: Mapping[str, object]) -> str:
    return json.dumps(settings, sort_keys=True)


def _code(settings: Mapping[str, object]) -> str:
    return _key({name: value for name, value in settings.items() if name != "steps"})


def _ordered(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Return rows with those of one code together, ordered by steps."""
    codes: dict[str, list[Row]] = {}
    for row in rows:
        codes.setdefault(_code(row.scheme), []).append(row)
    return tuple(row for code in codes.values() for row in sorted(code, key=lambda row: row.steps))
