"""What a section of the page is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from transpike.report import plots
from transpike.report.results import Result, Series

__all__ = ["ADAPTED", "Group", "Plot", "Section", "adapted_index", "curve_label", "legend", "spoken"]

ADAPTED = 8
"""Added to a network's index for its maps as its method adapts them: the same colour, dashed."""


@dataclass(frozen=True)
class Plot:
    """A drawing, its caption, a note that tells how to read it, and the meaning of its colours."""

    svg: Markup
    caption: str
    note: str = ""
    key: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Group:
    """Plots under a heading, and a table: what it is about, its columns, and rows that begin with a name."""

    heading: str
    note: str = ""
    legend: Sequence[Mapping[str, Any]] = ()
    plots: Sequence[Plot] = ()
    wide: Sequence[Plot] = ()
    about: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class Section:
    """What the template shows of one result; what is empty is left out."""

    headline: str
    legend: Sequence[Mapping[str, Any]] = ()
    plots: Sequence[Plot] = ()
    caveat: str = ""
    tiles: Sequence[tuple[str, str, str]] = ()
    wide: Sequence[Plot] = ()
    table: Mapping[str, Any] | None = None
    layers: Mapping[str, Any] | None = None
    groups: Sequence[Group] = ()


def legend(entries: Sequence[Series] | Sequence[plots.Line], key: str) -> list[dict[str, Any]]:
    """A legend's entries; `key` is the section's own."""
    return [
        {"label": entry.label, "swatch": Markup(plots.draw_swatch(entry.index, f"{key}-swatch-{entry.index}"))}
        for entry in entries
    ]


def spoken(lines: Sequence[plots.Line], x: str) -> str:
    """What a curve plot shows, for those who hear the page: each curve's first and last point."""
    ends = [(line.label, *line.points[0], *line.points[-1]) for line in lines if line.points]
    return " ".join(f"{label}: {y0:.3g} at {x} {x0:g}, {y1:.3g} at {x} {x1:g}." for label, x0, y0, x1, y1 in ends)


def adapted_index(curve: Result) -> int:
    """The index of a curve of a network of an analysis, which fixes its colour and dashes."""
    return int(curve["network"]) + (ADAPTED if curve.get("adapted") else 0)


def curve_label(result: Result, curve: Result) -> str:
    """Whose curve it is."""
    return str(result["networks"][curve["network"]]["label"]) + (", adapted" if curve.get("adapted") else "")
