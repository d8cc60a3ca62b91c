"""The page's plots, as inline SVG that takes its colours from the page, so that one drawing serves light and dark."""

from __future__ import annotations

import html
import io
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from transpike.report.wording import known

__all__ = [
    "DARK",
    "LIGHT",
    "MARKERS",
    "STYLE",
    "Line",
    "colour_of",
    "curve",
    "draw_energy",
    "draw_lines",
    "draw_swatch",
    "new_figure",
    "plain",
    "short",
    "tick_decades",
    "to_svg",
]

# Okabe and Ito's colour-blind safe palette, darkened (light scheme) or lightened (dark) for contrast with the paper.
# matplotlib draws with the light values, which `to_svg` then replaces by CSS variables of these names.
LIGHT = {
    "ink": "#1f2023",
    "muted": "#65666b",
    "rule": "#dddad3",
    "paper": "#fdfcf9",
    "s0": "#0072b2",
    "s1": "#d55e00",
    "s2": "#008f68",
    "s3": "#b0509a",
    "s4": "#a87b00",
    "s5": "#3a9bd6",
    "s6": "#7b5032",
    "s7": "#6a5acd",
}
DARK = {
    "ink": "#e9e7e2",
    "muted": "#a3a29e",
    "rule": "#35373c",
    "paper": "#17181b",
    "s0": "#56b4e9",
    "s1": "#ff8c4d",
    "s2": "#2fc497",
    "s3": "#e391cb",
    "s4": "#e6bd45",
    "s5": "#a5d8f5",
    "s6": "#cda27e",
    "s7": "#aca2ff",
}
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "p")
SIZES = (5.0, 4.6, 4.6, 5.8, 5.8, 5.8, 5.6, 5.6)
DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)))
PARTS = {
    **{"accumulates": 1.0, "shifts": 0.85, "multiplications": 0.7, "products": 0.55, "functions": 0.4},
    "neuron_updates": 0.28,
    "memory": 0.16,
    **{"synapses": 1.0, "neurons": 0.64, "encoder": 0.28},
}
"""The opacities of an energy's parts."""

HUGE, TINY = 1e120, 1e-120
"""Limits of size: a larger number is not drawn, and a smaller one is drawn as zero."""

STYLE: Any = {  # matplotlib's type would need every key
    "svg.fonttype": "none",  # text stays text: selectable, searchable, in the page's own font
    "text.parse_math": False,  # a user's layer name may contain a dollar sign
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": LIGHT["ink"],
    "axes.labelcolor": LIGHT["ink"],
    "axes.edgecolor": LIGHT["muted"],
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": LIGHT["rule"],
    "grid.linewidth": 0.6,
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
    "xtick.labelcolor": LIGHT["muted"],
    "ytick.labelcolor": LIGHT["muted"],
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}


@dataclass(frozen=True)
class Line:
    """One curve: its points, and the index of its colour and marker on the whole page; or points without a line."""

    label: str
    index: int
    points: tuple[tuple[float, float], ...]
    dots: bool = False


def curve(label: str, index: int, points: Iterable[tuple[float, float | None]], *, dots: bool = False) -> Line:
    """Return a line through the points. Points without a number, or with one that cannot be drawn, are left out."""
    drawn = ((x, y if abs(y) > TINY else 0.0) for x, y in points if known(y) and known(x) and abs(y) < HUGE)
    return Line(label, index, tuple(drawn), dots)


@dataclass(frozen=True)
class Bar:
    """A horizontal bar: its energy in uJ by part, and the text at its end. The index is None for the ANN."""

    label: str
    index: int | None
    parts: Mapping[str, float]
    end: str


def colour_of(index: int) -> str:
    """Return the colour of the series with this index."""
    return LIGHT[f"s{index % 8}"]


def new_figure(width: float, height: float) -> Figure:
    """Return a figure measured in points, which the page scales: 9.5 points become about 13 pixels on a wide screen."""
    return Figure(figsize=(width / 72, height / 72), layout="constrained")


def to_svg(figure: Figure, name: str, alt: str) -> str:
    """Return the figure as an `<svg>` element with a label for those who cannot see it.

    `name` must be unique on the page. It is part of the element ids, and makes equal figures equal texts every time.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has the glyph; matplotlib only measures it
        warnings.filterwarnings("ignore", "constrained_layout not applied")  # names longer than the page's width
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    used = set(re.findall(r"#([\w.-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", svg)
    for role, colour in LIGHT.items():
        svg = svg.replace(colour, f"var(--{role})")
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    opening = f'<svg role="img" aria-label="{html.escape(alt)}"'
    return re.sub(r'<svg [^>]*(viewBox="[^"]*")[^>]*>', lambda match: f"{opening} {match[1]}>", svg, count=1).strip()


def plain(value: float, _position: int | None = None) -> str:
    """Return a tick's label."""
    return f"{value:,.10g}".replace("-", "−")


def short(name: str, most: int) -> str:
    """Return a name's last characters, because long names differ there."""
    return name if len(name) <= most else f"…{name[1 - most :]}"


def draw_lines(
    lines: Sequence[Line],
    name: str,
    alt: str,
    *,
    titles: tuple[str, str],
    scale: str = "linear",
    note: str = "",
    whole: bool = True,
    front: Sequence[tuple[float, float]] = (),
) -> str:
    """Draw curves as SVG, against an axis of whole numbers, or of any numbers if `whole` is false.

    The axis is logarithmic if its range is sixteenfold or more. `titles` are those of the two axes. `scale` is linear,
    log, or loss. Loss is lost percentage points with zero at the top (where `note` labels the ANN's line), linear
    within 0.1 and logarithmic beyond. So both a collapse and a hundredth of a point are visible. `front` are points
    that thin stairs join: those that no other point beats.
    """
    if scale == "log" and not any(py > 0 for line in lines for _, py in line.points):
        scale = "linear"
    with matplotlib.rc_context(STYLE):
        figure = new_figure(370, 250)
        axes = figure.add_subplot()
        for line in lines:
            points = [(px, py) for px, py in line.points if scale != "log" or py > 0]
            axes.plot(
                [px for px, _ in points],
                [py for _, py in points],
                color=colour_of(line.index),
                linestyle="" if line.dots else DASHES[line.index // 8 % len(DASHES)],
                linewidth=1.6,
                marker=MARKERS[line.index % 8] if line.dots or len(points) < 16 else "",
                markersize=SIZES[line.index % 8],
                markeredgecolor=LIGHT["paper"],
                markeredgewidth=0.7,
                clip_on=False,
                zorder=3,
            )
        if len(front) > 1:
            axes.step(*zip(*front, strict=True), where="post", color=LIGHT["muted"], linewidth=0.9, zorder=2)
        axes.set_xlabel(titles[0])
        axes.set_ylabel(titles[1])
        places = sorted({px for line in lines for px, _ in line.points})
        gaps = [after - before for before, after in pairwise(places)]
        if places and places[-1] >= 16 * places[0] > 0:
            axes.set_xscale("log", base=2)
            axes.xaxis.set_minor_locator(NullLocator())
        elif not whole:
            axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        elif len(places) <= 10 and all(gap > (places[-1] - places[0]) / 20 for gap in gaps):
            axes.set_xticks(places)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(plain))
        axes.margins(x=0.04)
        _scale_y(axes, scale, note)
    return to_svg(figure, name, alt)


def _scale_y(axes: Axes, scale: str, note: str) -> None:
    if scale == "loss":
        axes.set_yscale("symlog", linthresh=0.1, linscale=0.6)
        low, high = axes.dataLim.intervaly
        ticks = [sign * size for sign in (-1, 1) for size in (0.1, 1.0, 10.0, 100.0)] + [0.0]
        low, high = min(low * 1.3, -0.04), max(high * 1.5, 0.3)
        axes.set_yticks(sorted(tick for tick in ticks if low <= tick <= high))
        axes.set_ylim(high, low)
        axes.axhline(0, color=LIGHT["muted"], linewidth=0.9, zorder=2)
        axes.annotate(
            note, (1, 0), (0, 4), xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
            color=LIGHT["muted"], fontsize=9,
        )  # fmt: skip
    elif scale == "log":
        axes.set_yscale("log")
        tick_decades(axes)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(plain))


def tick_decades(axes: Axes) -> None:
    """Label the decades if the values span two or more, otherwise 1-2-5 steps. If these are few, label round values."""
    low, high = axes.get_ylim()
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for steps in ((1,), (1, 2, 5)) if high >= 100 * low else ((1, 2, 5),):
        if len(ticks) < 3:
            ticks = [step * 10.0**decade for decade in decades for step in steps]
            ticks = [tick for tick in ticks if low <= tick <= high]
    if len(ticks) < 3:
        ticks = [float(tick) for tick in MaxNLocator(4).tick_values(low, high) if low <= tick <= high]
    axes.set_yticks(ticks)
    axes.yaxis.set_minor_formatter(NullFormatter())


def draw_energy(bars: Sequence[Bar], name: str, alt: str) -> str:
    """Draw one horizontal bar for each coding, its parts from full colour to faint, with labels."""
    with matplotlib.rc_context(STYLE):
        figure = new_figure(370, 38 + 38 * len(bars))
        axes = figure.add_subplot()
        widest = max(sum(bar.parts.values()) for bar in bars) or 1.0
        for place, bar in enumerate(bars):
            colour, left = LIGHT["muted"] if bar.index is None else colour_of(bar.index), 0.0
            for part, energy in bar.parts.items():
                axes.barh(place, energy, height=0.4, left=left, color=colour, alpha=PARTS.get(part, 1.0))
                left += energy
            axes.text(0, place - 0.28, short(bar.label, 62))
            axes.text(left + 0.015 * widest, place + 0.01, bar.end, fontsize=9, va="center", color=LIGHT["muted"])
        axes.set_ylim(len(bars) - 0.6, -0.75)
        axes.set_xlim(0, widest * 1.38)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(plain))
        axes.yaxis.set_major_locator(NullLocator())
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False)
        axes.set_xlabel("energy per image (µJ)")
    return to_svg(figure, name, alt)


def draw_swatch(index: int, name: str) -> str:
    """Draw a legend's key: the line and marker of the series with this index."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(24 / 72, 9 / 72))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.plot(
            [0, 1, 2], [0, 0, 0], color=colour_of(index), linestyle=DASHES[index // 8 % len(DASHES)], linewidth=1.6
        )
        axes.plot(1, 0, MARKERS[index % 8], color=colour_of(index), markersize=SIZES[index % 8])
    svg = to_svg(figure, name, "")
    return svg.replace('role="img" aria-label=""', 'aria-hidden="true" class="swatch"')
