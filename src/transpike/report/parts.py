"""The parts of a section of the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from transpike.report import plots
from transpike.results import Network

__all__ = [
    "ADAPTED",
    "Entry",
    "Group",
    "Layers",
    "Plot",
    "Section",
    "Table",
    "TableGroup",
    "TableRow",
    "legend",
    "line_legend",
    "network_line",
    "spoken",
]

ADAPTED = 8
"""Added to a network's index for the maps that its method compares: the same colour, but dashed."""


@dataclass(frozen=True)
class Entry:
    """A legend's label, and its line and marker."""

    label: str
    swatch: Markup


@dataclass(frozen=True)
class Plot:
    """A drawing, its caption, a note on how to read it, and the meaning of its colours."""

    svg: Markup
    caption: str
    note: str = ""
    key: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Group:
    """Plots under a heading, and a table with its subject, its columns, and rows that begin with a name."""

    heading: str
    note: str = ""
    legend: Sequence[Entry] = ()
    plots: Sequence[Plot] = ()
    wide: Sequence[Plot] = ()
    about: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class TableRow:
    """A row's cells, and whether it represents the whole group."""

    cells: Sequence[str]
    best: bool


@dataclass(frozen=True)
class TableGroup:
    """The rows of one coding, with its colour on the page."""

    label: str
    colour: str
    rows: Sequence[TableRow]


@dataclass(frozen=True)
class Table:
    """Codings and their rows, below those of the original network."""

    groups: Sequence[TableGroup]
    ann: Sequence[str] = ()


@dataclass(frozen=True)
class Layers:
    """A row for each layer, and the setting to which they belong."""

    setting: str
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """The parts that the template shows of one result. Empty parts are left out."""

    headline: str
    legend: Sequence[Entry] = ()
    plots: Sequence[Plot] = ()
    caveat: str = ""
    tiles: Sequence[tuple[str, str, str]] = ()
    wide: Sequence[Plot] = ()
    table: Table | None = None
    layers: Layers | None = None
    groups: Sequence[Group] = ()


def legend(entries: Iterable[tuple[str, int]], key: str) -> list[Entry]:
    """Return a legend's entries, each a label and the index of its line. `key` is that of the section."""
    return [Entry(label, Markup(plots.draw_swatch(index, f"{key}-swatch-{index}"))) for label, index in entries]


def line_legend(lines: Iterable[plots.Line], key: str) -> list[Entry]:
    """Return the `legend` of lines."""
    return legend(((line.label, line.index) for line in lines), key)


def spoken(lines: Sequence[plots.Line], x: str) -> str:
    """Describe a curve plot for those who hear the page: each curve's first and last point."""
    ends = [(line.label, *line.points[0], *line.points[-1]) for line in lines if line.points]
    return " ".join(f"{label}: {y0:.3g} at {x} {x0:g}, {y1:.3g} at {x} {x1:g}." for label, x0, y0, x1, y1 in ends)


def network_line(
    networks: Sequence[Network],
    network: int,
    points: Iterable[tuple[float, float | None]],
    *,
    adapted: bool = False,
) -> plots.Line:
    """Return the curve of a network of an analysis, or of the maps that its method compares."""
    label = networks[network].label + (", adapted" if adapted else "")
    return plots.curve(label, network + (ADAPTED if adapted else 0), points)
