"""Drawings of pairs of stages: wavelet sub-bands, their energies, matrices of similarity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from transpike.report.panels import bare
from transpike.report.plots import DASHES, LIGHT, MARKERS, STYLE, Line, colour_of, new_figure, plain, to_svg

__all__ = ["WHITE", "draw_bands", "draw_similarity", "draw_sub_bands"]

WHITE = -1
"""The index of white noise, which is grey."""

Mapped = tuple[str, str, Sequence[NDArray[Any]]]
"""A title, a caption, and the sub-bands of a map, coarse to fine."""


def draw_bands(panels: Sequence[tuple[str, Sequence[str], Sequence[Line]]], name: str, alt: str) -> str:
    """Draw each stage's shares of its sub-bands, whose names label the axis, on one logarithmic scale."""
    most = min(4, max(3, len(panels)))
    deep = -(-len(panels) // most)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(760, 215 * deep)
        grid: Any = figure.subplots(deep, most, sharey=True, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for axes, (title, bands, lines) in zip(grid.flat, panels, strict=False):
            for line in lines:
                if line.points:
                    _draw_shares(axes, line)
            axes.set_xticks(range(len(bands)), bands)
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(FuncFormatter(plain))
            axes.margins(x=0.06)
            axes.set_title(title, fontsize=9, color=LIGHT["muted"])
        for axes in grid[:, 0]:
            axes.set_ylabel("share of the energy")
    return to_svg(figure, name, alt)


def _draw_shares(axes: Axes, line: Line) -> None:
    places, shares = zip(*line.points, strict=True)
    if line.index == WHITE:
        axes.plot(places, shares, "_", color=LIGHT["muted"], markersize=16, markeredgewidth=1.4, zorder=2)
        return
    look: Any = {"color": colour_of(line.index), "linestyle": DASHES[line.index // 8 % len(DASHES)], "linewidth": 1.3}
    axes.plot(places, shares, marker=MARKERS[line.index % 8], markersize=4.4, clip_on=False, zorder=3, **look)


def draw_similarity(
    panels: Sequence[tuple[str, Sequence[str], Sequence[str], NDArray[Any]]], name: str, alt: str
) -> str:
    """Draw matrices of values from 0 to 1 side by side, each cell with its number, with title, rows and columns."""
    with matplotlib.rc_context(STYLE):
        figure = new_figure(760, 70 + 30 * max(len(rows) for _, rows, _, _ in panels))
        grid: Any = figure.subplots(1, 2, squeeze=False)[0]
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        for axes, (title, rows, columns, values) in zip(grid, panels, strict=False):
            axes.imshow(values, cmap="viridis", vmin=0, vmax=1, interpolation="none", aspect="auto")
            bare(axes, title)
            axes.tick_params(length=0)
            axes.set_xticks(range(len(columns)), columns)
            axes.set_yticks(range(len(rows)), rows)
            for (row, column), value in np.ndenumerate(values):
                # A fixed colour: the page's text colour follows its light or dark scheme, but the map does not.
                colour = "#101010" if value > 0.55 else "#ffffff"
                text = "" if np.isnan(value) else f"{value:.2f}".replace("-", "−")
                axes.text(column, row, text, ha="center", va="center", fontsize=9, color=colour)
    return to_svg(figure, name, alt)


def draw_sub_bands(rows: Sequence[tuple[str, Sequence[Sequence[Mapped]]]], name: str, alt: str) -> str:
    """Draw each stage's sub-bands of some images, laid out as one map, with a panel for each kind of an image's maps.

    Each sub-band has its own scale, the same for all kinds.
    """
    across = max(6, *(sum(map(len, images)) for _, images in rows))
    with matplotlib.rc_context(STYLE):
        figure = new_figure(760, 24 + (760 / across + 20) * len(rows))
        for row, (stage, images) in enumerate(rows):
            column = 0
            for kinds in images:
                alike = zip(*(bands for _, _, bands in kinds), strict=True)
                peaks = [max(np.abs(band).max() for band in each) or 1.0 for each in alike]
                for place, (title, caption, bands) in enumerate(kinds):
                    axes = figure.add_subplot(len(rows), across, row * across + column + 1)
                    _draw_mosaic(axes, [band / peak for band, peak in zip(bands, peaks, strict=True)])
                    bare(axes, title if row == 0 else "")
                    axes.set_xlabel("" if place else caption, fontsize=8)
                    axes.set_ylabel("" if column else stage)
                    column += 1
    return to_svg(figure, name, alt)


def _draw_mosaic(axes: Axes, bands: Sequence[NDArray[Any]]) -> None:
    """Draw sub-bands in [-1, 1] in PyWavelets' layout: the rest top left, H beside it, V below, D across."""
    whole, corners = bands[0], []
    for place in range(1, len(bands), 3):
        horizontal, vertical, diagonal = bands[place : place + 3]
        corners.append(whole.shape)
        whole = np.block([[whole, horizontal], [vertical, diagonal]])
    axes.imshow(whole, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="none")
    for height, width in corners:
        axes.plot([-0.5, 2 * width - 0.5], [height - 0.5] * 2, color="#505050", linewidth=0.8)
        axes.plot([width - 0.5] * 2, [-0.5, 2 * height - 0.5], color="#505050", linewidth=0.8)
    axes.set_xlim(-0.5, whole.shape[1] - 0.5)
    axes.set_ylim(whole.shape[0] - 0.5, -0.5)
