"""Drawings with many panels: filters as images, single images' logits, heat maps on images."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from transpike.report.plots import LIGHT, STYLE, Line, colour_of, new_figure, to_svg

__all__ = ["Panel", "bare", "draw_filters", "draw_pictures", "draw_saliency", "draw_singles", "read_png"]

SIDE = 192
"""The size of a picture in the page, in pixels. Small pictures are enlarged without smoothing."""

LARGEST = 2048
"""The side of a picture in pixels."""

Panel = tuple[str, NDArray[Any]]
"""A title and the picture under it."""


def read_png(text: str) -> NDArray[np.uint8]:
    """Return the pixels [H, W, 3] of a PNG in base64, at `SIDE` pixels or more.

    Raises:
        ValueError: The PNG is damaged.
    """
    try:
        opened = Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"])
        if max(opened.size) > LARGEST:
            raise ValueError(f"{opened.width} x {opened.height} pixels, more than {LARGEST} on a side")
        image = opened.convert("RGB")
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:  # PIL's errors for a damaged file
        raise ValueError(str(error)) from error
    times = max(1, -(-SIDE // max(image.size)))
    return np.asarray(image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST))


def bare(axes: Axes, title: str) -> None:
    """Set a picture's title, and remove its frame and ticks."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(title, fontsize=9, color=LIGHT["muted"], pad=4)


def draw_filters(rows: Sequence[tuple[str, Sequence[Panel]]], name: str, alt: str) -> str:
    """Draw weights as images, a row of panels for each network, each with its own scale and bar."""
    most = max(4, *(len(panels) for _, panels in rows))
    with matplotlib.rc_context(STYLE):
        figure = new_figure(760, 560 / most * len(rows))
        for row, (label, panels) in enumerate(rows):
            for column, (title, weights) in enumerate(panels):
                axes = figure.add_subplot(len(rows), most, row * most + column + 1)
                picture = axes.imshow(weights, cmap="viridis", interpolation="none", vmin=0)
                bare(axes, title)
                bar = figure.colorbar(picture, ax=axes, shrink=0.8, aspect=14)
                bar.outline.set_visible(False)
                bar.locator = MaxNLocator(4)
                bar.ax.tick_params(labelsize=8, size=0)
                if column == 0 and len(rows) > 1:
                    axes.set_ylabel(label)
    return to_svg(figure, name, alt)


def draw_singles(panels: Sequence[tuple[str, Sequence[Line], Sequence[Line]]], name: str, alt: str) -> str:
    """Draw the curves of each of some images, and below them curves of another kind, on common scales."""
    with matplotlib.rc_context(STYLE):
        figure = new_figure(760, 270)
        grid: Any = figure.subplots(2, len(panels), sharex=True, sharey="row", squeeze=False)
        for column, (title, above, below) in enumerate(panels):
            for axes, lines in zip(grid[:, column], (above, below), strict=True):
                for line in lines:
                    axes.plot(*zip(*line.points, strict=True), color=colour_of(line.index), linewidth=1.3)
                axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
                axes.yaxis.set_major_locator(MaxNLocator(4))
            grid[0, column].set_title(title, fontsize=9, color=LIGHT["muted"])
            grid[1, column].set_xlabel("rank")
        grid[0, 0].set_ylabel("logit")
        grid[1, 0].set_ylabel("high frequencies")
    return to_svg(figure, name, alt)


def draw_saliency(
    columns: Sequence[str], rows: Sequence[tuple[str, NDArray[np.uint8], Sequence[Panel]]], name: str, alt: str
) -> str:
    """Draw images with heat maps [h, w] of values from 0 to 1 over them, one map for each column, with captions."""
    with matplotlib.rc_context(STYLE):
        # Narrow rows stand side by side, so that no picture is larger than a fifth of the page.
        block = 1 + len(columns)
        beside = min(max(1, 6 // block), len(rows))
        wide, high = max(block * beside, 5), -(-len(rows) // beside)
        figure = new_figure(760, (760 / wide + 16) * high + 14)
        for number, (label, picture, panels) in enumerate(rows):
            for column, (caption, heat) in enumerate([(label, None), *panels]):
                row, place = divmod(number, beside)
                axes = figure.add_subplot(high, wide, row * wide + place * block + column + 1)
                axes.imshow(picture if heat is None else _overlaid(picture, heat), interpolation="none")
                bare(axes, ["image", *columns][column] if row == 0 else "")
                axes.set_xlabel(caption, fontsize=9)
    return to_svg(figure, name, alt)


def draw_pictures(columns: Sequence[str], rows: Sequence[Sequence[NDArray[np.uint8]]], name: str, alt: str) -> str:
    """Draw pictures in rows, under a title for each column."""
    wide = max(len(columns), 8)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(760, (760 / wide + 3) * len(rows) + 18)
        for row, pictures in enumerate(rows):
            for column, picture in enumerate(pictures):
                axes = figure.add_subplot(len(rows), wide, row * wide + column + 1)
                axes.imshow(picture, interpolation="none")
                bare(axes, columns[column] if row == 0 else "")
    return to_svg(figure, name, alt)


def _overlaid(picture: NDArray[np.uint8], heat: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the image in grey with a colour over it: blue where the map is 0, red where it is 1."""
    size = (picture.shape[1], picture.shape[0])
    smooth = np.asarray(Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    colours = matplotlib.colormaps["turbo"](0.08 + 0.84 * smooth)[..., :3]  # without its ends, which are too dark
    grey = picture.mean(-1, keepdims=True) / 255
    mixed: NDArray[np.uint8] = np.round(255 * (0.65 * colours + 0.35 * grey)).astype(np.uint8)
    return mixed
