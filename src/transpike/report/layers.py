"""The page's section of layers of neurons: their errors and how they fire."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from transpike.report.parts import Plot
from transpike.report.plots import HUGE, LIGHT, STYLE, TINY, colour_of, new_figure, plain, short, tick_decades, to_svg
from transpike.report.wording import count, fixed, known, percent
from transpike.results import FiringLayer, Layer, Row

__all__ = ["FEW", "LAYER_COLUMNS", "cause_plot", "error_plot", "layer_cells", "rate_plot"]

FEW = 8
"""Plots with up to so many layers stand beside others, in one column. With more layers they take the page's width."""
CAUSES = (("s0", "resolution"), ("s1", "clipping"), ("s2", "coupling"))

LAYER_COLUMNS = (
    *(
        "function",
        "bound by",
        "neurons",
        "θ",
        "peak",
        "clipped",
        "coupled",
        "error (θ)",
        "output error",
        "spikes +",
        "spikes −",
    ),
    *("SynOps", "products", "evaluations", "state", "group", "energy (µJ)", "delay"),
)


def layer_cells(layer: Layer) -> list[str]:
    """Return the layer's name, and a cell for each of `LAYER_COLUMNS`."""
    return [
        layer.name,
        layer.function,
        layer.binding or "–",
        count(layer.neurons),
        fixed(layer.amplitude, 4),
        fixed(layer.peak),
        percent(layer.clipped),
        percent(layer.coupled),
        fixed(layer.error),
        percent(math.sqrt(sum(caused)) if (caused := _caused(layer)) else None),
        fixed(layer.positive_per_neuron),
        fixed(layer.negative_per_neuron),
        count(layer.synops),
        count(layer.products) if layer.products else "–",
        f"{layer.evaluations}" if layer.evaluations else "–",
        fixed(layer.state or None),
        count(layer.group),
        fixed(layer.energy_uj, 3),
        fixed(layer.delay, 0),
    ]


def cause_plot(row: Row, key: str, setting: str) -> list[Plot]:
    """Plot the effect of each layer's own error on the output, if measured, with the most useful setting."""
    caused = {layer.name: found for layer in row.layers if (found := _caused(layer))}
    whole = sum(map(sum, caused.values()))
    if not 0 < whole < HUGE or not known(row.output_error):
        return []
    worst = max(caused, key=lambda name: sum(caused[name]))
    share = sum(caused[worst]) / whole
    note = (
        f"{row.diagnosis} To first order, the errors of all layers together give a relative error of "
        f"{percent(math.sqrt(whole))} at the output. The measured error is {percent(row.output_error)}."
    )
    alt = f"Share of the error at the output by layer ({setting}); most from {worst}, {percent(share)}. {row.diagnosis}"
    svg = _draw_causes([caused.get(layer.name, (0.0,) * 3) for layer in row.layers], whole, row, f"{key}-causes", alt)
    return [Plot(Markup(svg), f"What makes the error at the output: {setting}", note.strip(), CAUSES)]


def _caused(layer: Layer) -> tuple[float, ...]:
    """Return the three parts of the squared error at the output. Empty if they were not measured."""
    parts = (layer.output_resolution, layer.output_clipping, layer.output_coupling)
    return tuple(part for part in parts if known(part)) if all(map(known, parts)) else ()


def error_plot(layers: Sequence[Layer], key: str, setting: str) -> list[Plot]:
    """Plot the error of each layer, if there is any."""
    errors = {layer.name: layer.error for layer in layers if known(layer.error) and layer.error}
    if not errors:
        return []
    worst = max(errors, key=lambda name: errors[name])
    alt = f"Decode error per layer ({setting}); largest in {worst} with {fixed(errors[worst])} theta."
    split = any(known(layer.error_share_clipping) for layer in layers)
    note = (
        "Root mean square of the difference between the values of a layer’s spikes and the exact values, in units of "
        f"the layer’s amplitude θ.{' Below: the causes of this error.' * split} An error of up to θ/2 is the code’s "
        "own resolution, which another step refines."
    )
    svg = _draw_errors(layers, f"{key}-errors", alt, split=split)
    colours = (("s1", "clipping by the percentile"), ("s0", "the code: resolution and coupling")) if split else ()
    return [Plot(Markup(svg), f"Error by layer: {setting}", note, colours)]


def rate_plot(layers: Sequence[Layer | FiringLayer], key: str, setting: str) -> list[Plot]:
    """Plot how each layer fires, if any does. The legend names negative spikes only if there are some."""
    firing = [layer for layer in layers if known(layer.spikes_per_neuron) and layer.spikes_per_neuron]
    if not firing:
        return []
    busiest = max(firing, key=lambda layer: layer.spikes_per_neuron)
    alt = f"Spikes per neuron in each layer ({setting}); most in {busiest.name}."
    svg = _draw_rates(layers, f"{key}-rates", alt)
    signed = any(known(layer.negative_per_neuron) and layer.negative_per_neuron for layer in layers)
    colours = (("s0", "positive spikes"), ("s1", "negative spikes")) if signed else ()
    note = "Spikes of a neuron for one image, averaged over neurons and images."
    return [Plot(Markup(svg), f"Firing by layer: {setting}", note, colours)]


def _width(layers: int) -> int:
    return 370 if layers <= FEW else 760


def _name_layers(axes: Axes, names: Sequence[str]) -> None:
    every = math.ceil(len(names) / 40)
    shown = range(0, len(names), every)
    axes.set_xticks(list(shown))
    labels = [short(names[place], 28) for place in shown]
    axes.set_xticklabels(labels, rotation=50, ha="right", rotation_mode="anchor", fontsize=8.5)
    axes.set_xlim(-0.7, len(names) - 0.3)
    axes.tick_params(axis="x", length=0)


def _draw_causes(causes: Sequence[Sequence[float]], whole: float, row: Row, name: str, alt: str) -> str:
    """Draw each layer's share of the squared error at the output, stacked by its causes."""
    with matplotlib.rc_context(STYLE):
        figure = new_figure(_width(len(causes)), 260)
        axes = figure.add_subplot()
        bottoms = [0.0] * len(causes)
        for part, (colour, _) in enumerate(CAUSES):
            heights = [100 * parts[part] / whole for parts in causes]
            axes.bar(range(len(causes)), heights, bottom=bottoms, width=0.72, color=LIGHT[colour])
            bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
        axes.set_ylabel("share of the squared error (%)")
        axes.set_ylim(0, 1.05 * max(bottoms))
        axes.yaxis.set_major_locator(MaxNLocator(6))
        _name_layers(axes, [layer.name for layer in row.layers])
    return to_svg(figure, name, alt)


def _draw_errors(layers: Sequence[Layer], name: str, alt: str, *, split: bool) -> str:
    """Draw each layer's RMS decode error in units of theta; if `split`, its causes below: clipping, or the code."""
    with matplotlib.rc_context(STYLE):
        figure = new_figure(_width(len(layers)), 300 if split else 250)
        error, *below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1)) if split else [figure.add_subplot()]
        values = [(i, layer.error) for i, layer in enumerate(layers) if known(layer.error) and layer.error > TINY]
        for i, value in values:
            clipped = layers[i].binding == "clipping"
            error.plot(i, value, "D" if clipped else "o", color=colour_of(1 if clipped else 0), markersize=5, zorder=3)
        error.set_yscale("log")
        highest, lowest = max([0.6, *(v for _, v in values)]), min([0.25, *(v for _, v in values)])
        error.set_ylim(lowest / 1.3, highest * 1.3)
        tick_decades(error)
        error.yaxis.set_minor_locator(NullLocator())
        error.yaxis.set_major_formatter(FuncFormatter(plain))
        error.axhline(0.5, color=LIGHT["muted"], linewidth=0.9, linestyle=(0, (3, 2)))
        error.annotate(
            "θ/2", (1, 0.5), (2, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center",
            color=LIGHT["muted"], fontsize=9,
        )  # fmt: skip
        error.set_ylabel("RMS error (θ)")
        error.tick_params(axis="x", length=0)
        for share in below:
            _draw_shares(share, layers)
        _name_layers([error, *below][-1], [layer.name for layer in layers])
    return to_svg(figure, name, alt)


def _draw_shares(axes: Axes, layers: Sequence[Layer]) -> None:
    for i, layer in enumerate(layers):
        clipping = layer.error_share_clipping
        if known(clipping):
            axes.bar(i, 100 * clipping, width=0.72, color=colour_of(1))
            axes.bar(i, 100 * (1 - clipping), bottom=100 * clipping, width=0.72, color=colour_of(0))
    axes.set_ylim(0, 100)
    axes.set_yticks([0, 50, 100])
    axes.set_ylabel("share (%)")


def _draw_rates(layers: Sequence[Layer | FiringLayer], name: str, alt: str) -> str:
    """Draw spikes per neuron and image in each layer, positive ones upwards and negative ones downwards."""
    with matplotlib.rc_context(STYLE):
        figure = new_figure(_width(len(layers)), 260)
        axes = figure.add_subplot()
        positive = [layer.positive_per_neuron if known(layer.positive_per_neuron) else 0.0 for layer in layers]
        negative = [-layer.negative_per_neuron if known(layer.negative_per_neuron) else 0.0 for layer in layers]
        axes.bar(range(len(layers)), positive, width=0.72, color=colour_of(0))
        axes.bar(range(len(layers)), negative, width=0.72, color=colour_of(1))
        axes.axhline(0, color=LIGHT["muted"], linewidth=0.8)
        axes.set_ylabel("spikes per neuron")
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):g}"))
        _name_layers(axes, [layer.name for layer in layers])
    return to_svg(figure, name, alt)
