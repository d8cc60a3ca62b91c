"""Differences from a baseline, with their intervals: one row for each arm of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from transpike.report.plots import LIGHT, MARKERS, SIZES, STYLE, colour_of, new_figure, plain, short, to_svg

__all__ = ["Difference", "draw_differences"]


@dataclass(frozen=True)
class Difference:
    """An arm's differences from the baseline in percentage points: of each seed, their mean, and its interval.

    Attributes:
        label: of the arm.
        index: of its colour.
        seeds: one difference a seed.
        mean: of them.
        interval: its ends; None for fewer than two seeds.
    """

    label: str
    index: int
    seeds: tuple[float, ...]
    mean: float
    interval: tuple[float, float] | None


def draw_differences(rows: Sequence[Difference], name: str, alt: str) -> str:
    """Rows of a faint dot for each seed, a marker at the mean and a bar over the interval; a line at 0."""
    with matplotlib.rc_context(STYLE):
        figure = new_figure(370, max(46 + 34 * len(rows), 120))
        axes = figure.add_subplot()
        axes.axvline(0, color=LIGHT["muted"], linewidth=0.9, zorder=1)
        for place, row in enumerate(rows):
            colour = colour_of(row.index)
            axes.plot(row.seeds, [place] * len(row.seeds), "o", color=colour, alpha=0.35, markersize=3.5, zorder=2)
            if row.interval:
                axes.plot(row.interval, [place, place], "|-", color=colour, linewidth=1.6, markersize=8, zorder=3)
            axes.plot(
                row.mean, place, MARKERS[row.index % 8], color=colour, markersize=SIZES[row.index % 8] + 1,
                markeredgecolor=LIGHT["paper"], markeredgewidth=0.7, zorder=4,
            )  # fmt: skip
            axes.annotate(
                short(row.label, 62), (0, place - 0.42), (2, 0), xycoords=("axes fraction", "data"),
                textcoords="offset points", va="center",
            )  # fmt: skip
        axes.set_ylim(len(rows) - 0.5, -0.75)
        axes.yaxis.set_major_locator(NullLocator())
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(plain))
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False)
        axes.set_xlabel("points above the baseline")
    return to_svg(figure, name, alt)
