"""A network under several schemes, or at several numbers of steps: each converted, measured and saved."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import nn

from transpike.coding import DEFAULT, Scheme, scheme_settings
from transpike.conversion import SpikingNetwork, prepare
from transpike.conversion.calibrate import collect
from transpike.conversion.diagnose import Diagnosis
from transpike.conversion.outlook import Outlook
from transpike.data import ImageSets
from transpike.measure.conversion import compare
from transpike.measure.search import Search
from transpike.results import Calibration, Conversion, Row, Spikes

__all__ = ["Sweep", "explained", "folder_name", "sweep"]

Chosen = Callable[[int, int], None]
DIAGNOSED = 24
"""Test images on which the layers' errors are followed to the output."""


@dataclass(frozen=True)
class Sweep:
    """A network, and the schemes under which it is converted.

    Attributes:
        name: of the network.
        ann: the network.
        sets: training images to calibrate with, test images to measure on.
        schemes: each gives a spiking network.
        calibration: how many training images set the amplitudes.
        device: where to compute.
        spikes: where there are neurons.
        until: the module whose output is the spiking network's; None for the whole network.
        found: by a search: its network is measured in place of schemes.
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


def sweep(task: Sweep, folder: Path, *, rows: Sequence[Row] = ()) -> Iterator[Conversion]:
    """Convert a network under every scheme, measure each on the test images, and save it in a folder of its own.

    Args:
        task: what to convert.
        folder: where the networks' folders lie.
        rows: of schemes that were measured before, which are left out.

    Yields:
        After every scheme the results so far.
    """
    known = {_key(row.scheme): row for row in rows}
    console, sets = Console(stderr=True), task.sets
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        convert, images = _converter(task, progress)
        schemes = [task.found.network.scheme] if task.found else task.schemes
        for scheme in schemes:
            if _key(scheme_settings(scheme)) in known:
                continue
            name, total = folder_name(scheme), len(sets.test.dataset)  # type: ignore[arg-type]
            bar = progress.add_task(f"{name}: choosing silent steps" if scheme.wait is None else name, total=total)

            def chosen(done: int, proposals: int, bar: TaskID = bar) -> None:
                progress.update(bar, completed=done, total=proposals)

            snn = convert(scheme, chosen).to(task.device)
            progress.reset(bar, description=name, total=total)
            measured = compare(snn, sets.test, progress=partial(progress.advance, bar))
            snn.save(folder / name)
            few = collect(sets.test, DIAGNOSED).to(task.device)
            row = explained(measured.row, snn.diagnose(few))
            known[_key(scheme_settings(scheme))] = replace(row, network=name)
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
            )


def explained(row: Row, diagnosis: Diagnosis) -> Row:
    """``row`` with what makes its error."""
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


def _converter(task: Sweep, progress: Progress) -> tuple[Callable[[Scheme, Chosen], SpikingNetwork], int]:
    """What gives the network of a scheme, and on how many images it was calibrated."""
    if task.found is not None:
        network = task.found.network
        return lambda scheme, chosen: network, task.found.images
    bar = progress.add_task("tracing", total=None)

    def calibrated(done: int, expected: Outlook) -> None:
        if not done:
            progress.console.print(f"{str(expected)[0].upper()}{str(expected)[1:]}.")
        progress.update(bar, description="calibrating", total=expected.images, completed=done)

    batches, ann = task.sets.calibration(task.calibration), task.ann.to(task.device)
    prepared = prepare(ann, batches, images=task.calibration, spikes=task.spikes, until=task.until, progress=calibrated)
    return lambda scheme, chosen: prepared.convert(scheme, progress=chosen), len(prepared.images)


def folder_name(scheme: Scheme) -> str:
    """A folder's name for a scheme: what differs from the default, steps first.

    >>> from transpike.coding import CSS, Rate
    >>> folder_name(CSS(steps=6, silent=0, levels=(1, 2, 4, 8))), folder_name(Rate(steps=32))
    ('T6_silent-0_levels-1-2-4-8', 'T32_rate')
    """
    settings, default = scheme_settings(scheme), scheme_settings(type(scheme)())
    parts = [f"T{settings['steps']}"]
    if settings["name"] != scheme_settings(DEFAULT)["name"]:
        parts.append(str(settings["name"]))
    differing = (name for name in settings if name != "steps" and settings[name] != default[name])
    return "_".join([*parts, *(f"{name}-{_compact(settings[name])}" for name in differing)])


def _compact(value: object) -> str:
    """A setting as a part of a name: ``1-2-4-8``; the integers from 1 to 64 are ``1..64``."""
    if not isinstance(value, tuple):
        return str(value)
    consecutive = len(value) > 3 and value[-1] == len(value)
    return f"1..{value[-1]}" if consecutive else "-".join(map(str, value))


def _key(settings: Mapping[str, object]) -> str:
    return json.dumps(settings, sort_keys=True)


def _ordered(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Rows of one code together, by steps."""
    codes: dict[str, list[Row]] = {}
    for row in rows:
        codes.setdefault(_key({name: value for name, value in row.scheme.items() if name != "steps"}), []).append(row)
    return tuple(row for code in codes.values() for row in sorted(code, key=lambda row: row.steps))
