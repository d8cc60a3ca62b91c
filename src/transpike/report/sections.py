"""What the page says of each kind of result: its words, tables and plots."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup

from transpike.report import plots
from transpike.report.analysis import describe_analysis
from transpike.report.encoding import compared, describe_encoding
from transpike.report.parts import Group, Plot, Section, legend, spoken
from transpike.report.results import FAITHFUL, Result, Series, representative
from transpike.report.wording import count, fixed, loss_words, percent, ratio

__all__ = ["LAYER_COLUMNS", "ROW_COLUMNS", "SECTIONS", "compare"]

ROW_COLUMNS = (
    *("T", "latency", "zero-delay", "interval", "accuracy", "loss (pp)", "same predictions", "logit error"),
    *("spikes per neuron", "SynOps or MACs", "energy (µJ)", "× ANN", "images/s"),
)
LAYER_COLUMNS = (
    *("function", "bound by", "neurons", "θ", "peak", "clipped", "coupled", "error (θ)", "spikes +", "spikes −"),
    *("SynOps", "energy (µJ)", "delay"),
)


def _conversion(result: Result, series: Sequence[Series], key: str) -> Section:
    best = representative(row for one in series for row in one.rows)
    label = next(one.label for one in series if best in one.rows)
    layers: Sequence[Result] = best.get("layers") or []
    place, setting = f"{result['model']} on {result['dataset']}", f"{label}, T = {best['steps']}"
    ann = f"ANN {percent(result['ann'].get('accuracy'))}".removesuffix(" –")
    return Section(
        headline=_headline(result, best, f" ({label})" if len(series) > 1 else ""),
        legend=legend(series, key),
        plots=[*_curve_plots(series, key, place, ann), *_energy_plot([result], [series], key)],
        caveat=_caveat(best),
        tiles=_tiles(result, best),
        wide=_layer_plots(layers, key, setting),
        table={"ann": _ann_cells(result["ann"]), "groups": [_group(result, one, best) for one in series]},
        layers={"setting": setting, "rows": [_layer_cells(layer) for layer in layers]} if layers else None,
    )


def compare(results: Sequence[Result], curves: Sequence[Sequence[Series]]) -> Section:
    """All conversions' curves in one picture, and each at its representative setting in one table."""
    every = [one for series in curves for one in series]
    groups = [_group(result, one, one.best) for result, own in zip(results, curves, strict=True) for one in own]
    for group in groups:
        group["rows"] = [row for row in group["rows"] if row["best"]]
    return Section(
        headline=f"{len(every)} codings from {len(results)} results, side by side.",
        legend=legend(every, "joint"),
        plots=[*_curve_plots(every, "joint", "All results"), *_energy_plot(results, curves, "joint")],
        table={"groups": groups},
    )


def _training(result: Result, _series: Sequence[Series], key: str) -> Section:
    place, epochs = f"{result['model']} on {result['dataset']}", result.get("epochs", ())
    distilled: Result = result.get("distillation") or {}
    if distilled:
        place += f", taught by {distilled['teacher']} ({distilled['method']})"

    def line(label: str, name: str, index: int, factor: float) -> plots.Line:
        points = ((epoch["epoch"], factor * epoch[name]) for epoch in epochs if epoch.get(name) is not None)
        return plots.Line(label, index, tuple(points))

    accuracy = [line("training", "train_accuracy", 0, 100), line("validation", "validation_accuracy", 1, 100)]
    found = []
    for lines, name, unit, scale in (
        (accuracy, "accuracy", " (%)", "linear"),
        ([line("training", "loss", 0, 1)], "loss", "", "log"),
    ):
        if any(one.points for one in lines):
            alt = f"{place}: {name}{unit} by epoch. {spoken(lines, 'epoch')}"
            svg = plots.draw_lines(lines, f"{key}-{name}", alt, titles=("epoch", name + unit), scale=scale)
            found.append(Plot(Markup(svg), f"{name.capitalize()} by epoch"))
    spiking: Result = result.get("spiking") or {}
    if spiking and "encoding" not in result:
        points = tuple((row["steps"], 100 * row["accuracy"]) for row in result["by_steps"])
        lines = [plots.Line("test", 2, points)]
        alt = f"{place}: accuracy (%) by T. {spoken(lines, 'T')}"
        svg = plots.draw_lines(lines, f"{key}-by-steps", alt, titles=("T (steps)", "accuracy (%)"))
        found.append(Plot(Markup(svg), "Accuracy by T", f"Trained at T = {spiking['steps']}."))
    terms = [line(name, name, index, 1) for index, name in enumerate(distilled.get("first_terms") or ())]
    seconds = sum(epoch.get("seconds") or 0.0 for epoch in epochs)
    took = f" in {count(seconds)} s" if seconds else ""
    facts = [f"{percent(result['accuracy'])} of the test images right"] if result.get("accuracy") is not None else []
    facts += [f"{len(epochs)} epoch{'s' * (len(epochs) > 1)}{took}"] if epochs else []
    return Section(
        headline=f"{place}: {', '.join(facts)}.",
        groups=[
            *describe_encoding(result, key),
            *([_terms(terms, place, key)] if any(term.points for term in terms) else []),
        ],
        legend=legend([line for line in accuracy if line.points], key),
        plots=found,
        tiles=_spiking_tiles(spiking, result.get("operations")) if spiking else (),
        wide=_layer_plots(spiking["layers"], key, f"T = {spiking['steps']}") if spiking else (),
    )


def _terms(lines: Sequence[plots.Line], place: str, key: str) -> Group:
    alt = f"{place}: weighted terms of the loss by epoch. {spoken(lines, 'epoch')}"
    svg = plots.draw_lines(lines, f"{key}-terms", alt, titles=("epoch", "mean over the epoch"), scale="log")
    note = "What the loss sums: the labels' cross-entropy, and what the teacher adds, with its weights."
    return Group(
        "Weighted terms of the loss", note, legend=legend(lines, f"{key}-terms"), plots=[Plot(Markup(svg), "By epoch")]
    )


def _spiking_tiles(spiking: Result, operations: Result | None) -> list[tuple[str, str, str]]:
    energy, ann, beside = spiking["energy_uj"], spiking["ann_energy_uj"], "the ANN’s"
    if operations is not None:
        energy = next(row["energy_uj"] for row in operations["rows"] if row["part"] == "spiking")
        ann, (_, *size) = compared(operations)
        beside = f"that of an ANN at {size[0]} × {size[1]}"
    return [
        ("spikes per neuron", fixed(spiking["spikes_per_neuron"]), f"{percent(spiking['rate'])} of the steps"),
        (
            "SynOps",
            count(spiking["synops"]),
            f"and {count(spiking['macs'])} MACs; as an ANN {count(spiking['ann_macs'])}",
        ),
        ("energy (model)", f"{fixed(energy)} µJ", f"{ratio(energy, ann)} {beside}"),
    ]


SECTIONS: dict[str, Callable[[Result, Sequence[Series], str], Section]] = {
    "conversion": _conversion,
    "training": _training,
    "evaluation": _training,
    "analysis": lambda result, _, key: describe_analysis(result, key),
}


def _headline(result: Result, row: Result, label: str) -> str:
    loss = loss_words(row.get("loss_pp"))
    return _unbroken(
        f"{result['model']} on {result['dataset']}: at T = {row['steps']}{label} the spiking network "
        f"{f'{loss} and ' if loss else ''}gives the same prediction as the ANN on {percent(row['agreement'])} of "
        f"{count(result['images'])} images, {row['latency']:g} steps after the image arrives."
    )


def _unbroken(text: str) -> str:
    """No line ends between a number and its unit."""
    return re.sub(r"(?<=\d) (?=[%a-z])|(?<=T) (?==)|(?<==) (?=\d)", "\u00a0", text)


def _caveat(row: Result) -> str:
    if row["agreement"] >= FAITHFUL:
        return ""
    return (
        f"No setting here keeps {100 * FAITHFUL:g} % of the ANN’s predictions; this one comes closest. More steps, one "
        "more silent step or more levels bring the two together."
    )


def _tiles(result: Result, row: Result) -> list[tuple[str, str, str]]:
    ann, energy, interval = result["ann"], row.get("energy_uj"), row.get("interval")
    tiles = [
        ("same predictions", percent(row["agreement"]), f"of {count(result['images'])} images"),
        ("accuracy", percent(row.get("accuracy")), f"ANN {percent(ann.get('accuracy'))}"),
        ("latency", f"{row['latency']:g} steps", f"a new image every {interval:g}" if interval else ""),
        (
            "spikes per neuron",
            fixed(row.get("spikes_per_neuron")),
            f"+ {fixed(row.get('positive_per_neuron'))}, − {fixed(row.get('negative_per_neuron'))}",
        ),
        ("energy (model)", f"{fixed(energy)} µJ", f"{ratio(energy, ann.get('energy_uj'))} the ANN’s"),
    ]
    return [tile for tile in tiles if not tile[1].startswith("–")]


def _curve_plots(series: Sequence[Series], key: str, place: str, note: str = "ANN") -> list[Plot]:
    labelled = all(row.get("loss_pp") is not None for one in series for row in one.rows)
    measure = "accuracy lost (pp)" if labelled else "predictions changed (%)"

    def lines(x: str, value: Callable[[Result], float]) -> list[plots.Line]:
        return [plots.Line(one.label, one.index, tuple((row[x], value(row)) for row in one.rows)) for one in series]

    def lost(row: Result) -> float:
        return float(row["loss_pp"]) if labelled else 100 * (1 - float(row["agreement"]))

    found = []
    for x, axis, words in (("steps", "T (steps)", "T"), ("latency", "latency (steps)", "latency")):
        alt = f"{place}: {measure} against {words}. {spoken(lines(x, lost), words)}"
        svg = plots.draw_lines(lines(x, lost), f"{key}-{x}", alt, titles=(axis, measure), scale="loss", note=note)
        found.append(Plot(Markup(svg), f"{measure.partition(' (')[0].capitalize()} against {words}"))
    if any((row.get("logit_error") or 0) > 0 for one in series for row in one.rows):
        errors = lines("steps", lambda row: 100 * float(row.get("logit_error") or 0))
        alt = f"{place}: logit error in percent against T. {spoken(errors, 'T')}"
        svg = plots.draw_lines(errors, f"{key}-logits", alt, titles=("T (steps)", "logit error (%)"), scale="log")
        note = "Falls with T until clipping or coupling, not the code’s resolution, makes the error."
        found.append(Plot(Markup(svg), "Logit error against T", note))
    return found


def _energy_plot(results: Sequence[Result], curves: Sequence[Sequence[Series]], key: str) -> list[Plot]:
    bars: list[plots.Bar] = []
    places = [f"{result['model']} on {result['dataset']}" for result in results]
    for result, series, place in zip(results, curves, places, strict=True):
        ann = result["ann"].get("energy_uj")
        whole = plots.Bar("ANN" if len(set(places)) == 1 else f"{place}, ANN", None, {"": ann}, f"{fixed(ann)} µJ")
        if ann and whole not in bars:
            bars.append(whole)
        for one in series:
            if (energy := one.best.get("energy_uj")) is not None:
                end = f"{fixed(energy)} µJ{f', {ratio(energy, ann)}' if ann else ''}"
                parts = one.best.get("energy_parts_uj") or {"": energy}
                bars.append(plots.Bar(f"{one.label}, T = {one.best['steps']}", one.index, parts, end))
    if all(bar.index is None for bar in bars):
        return []
    alt = "Energy per image. " + " ".join(f"{bar.label}: {bar.end}." for bar in bars)
    note = f"Each coding at its least latency with {100 * FAITHFUL:g} % same predictions, or else at its closest."
    named = [part for part in plots.PARTS if any(part in bar.parts for bar in bars)]
    if named:
        note += f" From full to faint: {', '.join(part.replace('_', ' ') for part in named)}."
    return [Plot(Markup(plots.draw_energy(bars, f"{key}-energy", alt)), "Energy per image, a model", note)]


def _layer_plots(layers: Sequence[Result], key: str, setting: str) -> list[Plot]:
    found = []
    if any(layer.get("error") for layer in layers):
        worst = max(layers, key=lambda layer: layer.get("error") or 0)
        alt = f"Decode error per layer ({setting}); largest in {worst['name']} with {fixed(worst['error'])} theta."
        note = (
            "Root mean square of what a layer’s spikes say less what they should, in units of the layer’s amplitude θ, "
            "and below it what makes it. Up to θ/2 it is the code’s own resolution, which another step refines."
        )
        svg = plots.draw_layer_errors(layers, f"{key}-errors", alt)
        colours = (("s1", "clipping by the percentile"), ("s0", "the code: resolution and coupling"))
        found.append(Plot(Markup(svg), f"Error by layer: {setting}", note, colours))
    if any(layer.get("positive_per_neuron") or layer.get("negative_per_neuron") for layer in layers):
        busiest = max(layers, key=lambda layer: layer.get("spikes_per_neuron") or 0)
        alt = f"Spikes per neuron in each layer ({setting}); most in {busiest['name']}."
        svg = plots.draw_rates(layers, f"{key}-rates", alt)
        colours = (("s0", "positive spikes"), ("s1", "negative spikes"))
        note = "Spikes that a neuron emits for one image, mean over neurons and images."
        found.append(Plot(Markup(svg), f"Firing by layer: {setting}", note, colours))
    return found


def _ann_cells(ann: Result) -> list[str]:
    energy = ann.get("energy_uj")
    work = [count(ann.get("macs")), fixed(energy), ratio(energy, energy), fixed(ann.get("images_per_second"), 0)]
    return [*"–––", percent(ann.get("accuracy")), *"––––", *work]


def _group(result: Result, series: Series, best: Result) -> dict[str, Any]:
    rows = [{"cells": _row_cells(result["ann"], row), "best": row is best} for row in series.rows]
    return {"label": series.label, "colour": f"s{series.index % 8}", "rows": rows}


def _row_cells(ann: Result, row: Result) -> list[str]:
    return [
        f"{row['steps']}",
        f"{row['latency']:g}",
        fixed(row.get("latency_zero_delay"), 0),
        fixed(row.get("interval"), 0),
        percent(row.get("accuracy")),
        fixed(row.get("loss_pp")),
        percent(row["agreement"]),
        percent(row.get("logit_error")),
        fixed(row.get("spikes_per_neuron")),
        count(row.get("synops")),
        fixed(row.get("energy_uj")),
        ratio(row.get("energy_uj"), ann.get("energy_uj")),
        fixed(row.get("images_per_second"), 0),
    ]


def _layer_cells(layer: Result) -> list[str]:
    return [
        str(layer["name"]),
        str(layer.get("function", "–")),
        str(layer.get("binding", "–")),
        count(layer.get("neurons")),
        fixed(layer.get("amplitude"), 4),
        fixed(layer.get("peak")),
        percent(layer.get("clipped")),
        percent(layer.get("coupled")),
        fixed(layer.get("error")),
        fixed(layer.get("positive_per_neuron")),
        fixed(layer.get("negative_per_neuron")),
        count(layer.get("synops")),
        fixed(layer.get("energy_uj"), 3),
        fixed(layer.get("delay"), 0),
    ]
