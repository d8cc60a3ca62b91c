"""The page's section of a conversion: its words, tables and plots."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from markupsafe import Markup

from transpike.report import plots
from transpike.report.early import early_groups
from transpike.report.layers import FEW, cause_plot, error_plot, layer_cells, rate_plot
from transpike.report.parts import Entry, Group, Layers, Plot, Section, Table, TableGroup, TableRow, legend, spoken
from transpike.report.series import FAITHFUL, Series, front, least, picked, representative
from transpike.report.wording import count, fixed, known, loss_words, microjoules, percent, ratio
from transpike.results import Ann, Conversion, Row, Try

__all__ = ["ROW_COLUMNS", "compare", "describe_conversion"]

ROW_COLUMNS = (
    *("T", "latency", "zero-delay", "interval", "T × bits", "accuracy", "loss (pp)", "same predictions", "logit error"),
    *("spikes per neuron", "SynOps or MACs", "energy (µJ)", "× ANN", "images/s"),
)
Named = Sequence[tuple[str, Series]]
"""Series, and their labels in this section."""


def describe_conversion(result: Conversion, series: Sequence[Series], key: str) -> Section:
    """Return the section of one conversion. `key` must be unique on the page."""
    rows = [row for one in series for row in one.rows]
    best = (picked(rows, result.limits) if result.limits else None) or representative(rows)
    label = next(one.short for one in series if best in one.rows)
    place, setting = f"{result.model} on {result.dataset}", f"{label}, T = {best.steps}"
    ann = f"ANN {percent(result.ann.accuracy)}".removesuffix(" –")
    named = [(one.short, one) for one in series]
    few = len(best.layers) <= FEW
    layers = [
        *cause_plot(best, key, setting),
        *error_plot(best.layers, key, setting),
        *rate_plot(best.layers, key, setting),
    ]
    return Section(
        headline=_headline(result, best, f" ({label})" if len(series) > 1 else ""),
        legend=_legend(named, key),
        plots=[
            *_curve_plots(named, key, place, ann),
            *_energy_plot([(result, named)], key),
            *(layers if few else ()),
        ],
        caveat=_caveat(best),
        tiles=_tiles(result, best),
        wide=[] if few else layers,
        table=Table([_group(result, label, one, best) for label, one in named], _ann_cells(result.ann)),
        layers=Layers(setting, [layer_cells(layer) for layer in best.layers]) if best.layers else None,
        groups=[
            *_outputs(result.ann, named, best),
            *_least(result, series),
            *_refused(result),
            *_searched(result),
            *early_groups(named, key),
        ],
    )


def _outputs(ann: Ann, named: Named, row: Row) -> list[Group]:
    """Return the outputs' figures beside classes: the task's measures of all rows, and each output's error for one."""
    rows = [(f"{label}, T = {one.steps}", one) for label, series in named for one in series.rows]
    measures = [
        (name, label, fixed(value, 4), fixed(one.label_measures.get(name), 4), fixed(ann.measures.get(name), 4))
        for label, one in rows
        for name, value in one.measures.items()
    ]
    columns = ("measure", "code", "beside the ANN’s outputs", "beside labels", "the ANN’s beside labels")
    groups = [Group("Outputs by the task’s measure", columns=columns, rows=measures)] if measures else []
    if len(row.output_errors) > 1:
        note = "Relative to the ANN’s outputs minus their mean over images. A softmax hides errors: look before it."
        errors = [(name, percent(value)) for name, value in row.output_errors.items()]
        groups.append(Group("Error of each output", note, columns=("output", "relative error"), rows=errors))
    return groups


def _least(result: Conversion, series: Sequence[Series]) -> list[Group]:
    """Return the fewest steps of each code that lose little enough."""
    if result.target_loss is None:
        return []
    rows = [(one.short, *_least_cells(result.ann, least(one.rows, result.target_loss))) for one in series]
    note = (
        "T × bits is T times the bits of a digit, where zero is one of the digit’s values. A value of an 8-bit "
        "quantised network takes 8. The test images choose the fewest steps, as in the tables of papers."
    )
    heading = f"Fewest steps that lose at most {result.target_loss:g} pp"
    columns = (
        *("code", "T", "latency", "zero-delay", "T × bits"),
        *("same predictions", "spikes per neuron", "energy (µJ)", "× ANN"),
    )
    return [Group(heading, note, columns=columns, rows=rows)]


def _least_cells(ann: Ann, row: Row | None) -> Sequence[str]:
    if row is None:
        return ["none here", *"–––––––"]
    steps = f"{row.steps}", f"{row.latency}", f"{row.latency_zero_delay}", fixed(row.train_bits, 1)
    energy = microjoules(row.energy_uj), ratio(row.energy_uj, ann.energy_uj)
    return [*steps, percent(row.agreement), fixed(row.spikes_per_neuron), *energy]


def _refused(result: Conversion) -> list[Group]:
    """Return the codes that have no neurons for the network."""
    rows = [(label, reason) for label, reason in result.refused.items()]
    return [Group("Codes that cannot compute this network", columns=("code", "why"), rows=rows)] if rows else []


def _searched(result: Conversion) -> list[Group]:
    """Return the networks that the search tried."""
    stops = any(one.mean_steps is not None for one in result.tries)

    def early(one: Try) -> Sequence[str]:
        return (fixed(one.mean_steps), fixed(one.mean_latency)) if stops else ()

    rows = [
        (f"{one.code}, T = {one.steps}", str(one.latency), str(one.payload_bits), count(one.images), percent(one.same),
         percent(one.kept), percent(one.error), fixed(one.loss_pp),
         *early(one), microjoules(one.energy_uj), _verdict(one))
        for one in result.tries
    ]  # fmt: skip
    if not rows:
        return []
    note = (
        f"The goal: {result.goal}. Calibration images that did not set the amplitudes judge it. A prediction is kept "
        "if it stays the same when the margin of the goal enlarges the deviation of the outputs, because a network is "
        "surer of images that it was trained on. A network that clearly misses the goal is judged on fewer images. A "
        "network that exceeds a limit, or is not shorter than one that meets the goal, is judged on none. In the first "
        "rows of a code all layers wait; these rows show whether T is large enough."
    )
    if stops:
        note += " Mean steps and mean latency hold if each image stops as soon as its answer is sure."
    columns = ("network", "latency", "payload bits", "images", "same", "kept", "error", "loss (pp)",
               *(("mean steps", "mean latency") if stops else ()), "energy (µJ)", "")  # fmt: skip
    return [Group("What the search tried", note, columns=columns, rows=rows)]


def _verdict(one: Try) -> str:
    if one.chosen:
        return "taken"
    if not one.fits:
        return "beyond a limit"
    return "meets the goal" if one.met else "misses the goal" if one.images else "not shorter"


def compare(results: Sequence[Conversion], curves: Sequence[Sequence[Series]]) -> Section:
    """Return all conversions' curves in one picture, and each at its representative setting in one table."""
    every = [(one.label, one) for series in curves for one in series]
    groups = [
        _group(result, one.label, one, one.best, only=True)
        for result, own in zip(results, curves, strict=True)
        for one in own
    ]
    sources = [(result, [(one.label, one) for one in own]) for result, own in zip(results, curves, strict=True)]
    one_network = len({(result.model, result.dataset) for result in results}) == 1
    return Section(
        headline=f"{len(every)} codings from {len(results)} results, side by side.",
        legend=_legend(every, "joint"),
        plots=[*_curve_plots(every, "joint", "All results", stair=one_network), *_energy_plot(sources, "joint")],
        table=Table(groups),
    )


def _legend(named: Named, key: str) -> list[Entry]:
    return legend(((label, one.index) for label, one in named), key)


def _headline(result: Conversion, row: Row, label: str) -> str:
    loss = loss_words(row.loss_pp)
    return _unbroken(
        f"{result.model} on {result.dataset}: at T = {row.steps}{label} the spiking network "
        f"{f'{loss} and ' if loss else ''}gives the same prediction as the ANN on {percent(row.agreement)} of "
        f"{count(result.images)} images, {row.latency} step{'s' * (row.latency != 1)} after the image arrives."
    )


def _unbroken(text: str) -> str:
    """Prevent line breaks between a number and its unit."""
    return re.sub(r"(?<=\d) (?=[%a-z])|(?<=T) (?==)|(?<==) (?=\d)", "\u00a0", text)


def _caveat(row: Row) -> str:
    if row.agreement >= FAITHFUL:
        return ""
    return (
        f"No setting on this page keeps {100 * FAITHFUL:g} % of the ANN’s predictions. This one comes closest. More "
        "steps help, or settings that reduce the errors of the layers below."
    )


def _tiles(result: Conversion, row: Row) -> list[tuple[str, str, str]]:
    negative = row.negative_per_neuron
    signs = f"+ {fixed(row.positive_per_neuron)}, − {fixed(negative)}" if known(negative) and negative else ""
    tiles = [
        ("same predictions", percent(row.agreement), f"of {count(result.images)} images"),
        ("accuracy", percent(row.accuracy), f"ANN {percent(result.ann.accuracy)}"),
        ("latency", f"{row.latency} step{'s' * (row.latency != 1)}", f"a new image every {row.interval}"),
        ("spikes per neuron", fixed(row.spikes_per_neuron), signs),
        (
            "energy (model)",
            f"{microjoules(row.energy_uj)} µJ",
            f"{ratio(row.energy_uj, result.ann.energy_uj)} the ANN’s",
        ),
    ]
    return [tile for tile in tiles if not tile[1].startswith("–")]


def _curve_plots(named: Named, key: str, place: str, note: str = "ANN", *, stair: bool = True) -> list[Plot]:
    """Plot loss and error against cost. Only with ``stair``, for a single network, the best points form a stair."""
    labelled = all(known(row.loss_pp) for _, one in named for row in one.rows)
    measure = "accuracy lost (pp)" if labelled else "predictions changed (%)"

    def lines(x: Callable[[Row], float], value: Callable[[Row], float | None]) -> list[plots.Line]:
        return [plots.curve(label, one.index, ((x(row), value(row)) for row in one.rows)) for label, one in named]

    def lost(row: Row) -> float | None:
        return row.loss_pp if labelled else 100 * (1 - row.agreement)

    stair &= len(named) > 1
    drawn = []
    costs: list[tuple[Callable[[Row], float], str, str, str]] = [
        (lambda row: row.steps, "steps", "T (steps)", "T"),
        (lambda row: row.latency, "latency", "latency (steps)", "latency"),
    ]
    if len({row.scheme["name"] for _, one in named for row in one.rows}) > 1:
        costs.append((lambda row: row.train_bits or math.nan, "bits", "T × bits", "T × bits"))
        costs.append((lambda row: row.energy_uj, "cost", "energy (µJ)", "energy"))
    for x, name, axis, words in costs:
        curves = lines(x, lost)
        if any(line.points for line in curves):
            alt = f"{place}: {measure} against {words}. {spoken(curves, words)}"
            svg = plots.draw_lines(
                curves,
                f"{key}-{name}",
                alt,
                titles=(axis, measure),
                scale="loss",
                note=note,
                whole=name in ("steps", "latency"),
                front=front(point for line in curves for point in line.points) if stair else [],
            )
            stairs = "The thin stairs join the points that no other point beats." if stair else ""
            drawn.append(Plot(Markup(svg), f"{measure.partition(' (')[0].capitalize()} against {words}", stairs))
    errors = lines(lambda row: row.steps, lambda row: 100 * row.logit_error if known(row.logit_error) else None)
    if any(y > 0 for line in errors for _, y in line.points):
        alt = f"{place}: logit error in percent against T. {spoken(errors, 'T')}"
        svg = plots.draw_lines(errors, f"{key}-logits", alt, titles=("T (steps)", "logit error (%)"), scale="log")
        note = "The error falls with T until clipping or coupling dominates it instead of the code’s resolution."
        drawn.append(Plot(Markup(svg), "Logit error against T", note))
    return drawn


def _energy_plot(sources: Sequence[tuple[Conversion, Named]], key: str) -> list[Plot]:
    bars: list[plots.Bar] = []
    places = [f"{result.model} on {result.dataset}" for result, _ in sources]
    for (result, named), place in zip(sources, places, strict=True):
        ann = result.ann.energy_uj
        whole = plots.Bar(
            "ANN" if len(set(places)) == 1 else f"{place}, ANN", None, {"": ann}, f"{microjoules(ann)} µJ"
        )
        if known(ann) and ann and whole not in bars:
            bars.append(whole)
        for label, one in named:
            if known(energy := one.best.energy_uj):
                end = f"{microjoules(energy)} µJ{f', {ratio(energy, ann)}' if known(ann) and ann else ''}"
                parts = {part: each for part, each in one.best.energy_parts_uj.items() if known(each)} or {"": energy}
                bars.append(plots.Bar(f"{label}, T = {one.best.steps}", one.index, parts, end))
    if all(bar.index is None for bar in bars):
        return []
    alt = "Energy per image. " + " ".join(f"{bar.label}: {bar.end}." for bar in bars)
    note = (
        f"Each coding at the least latency with {100 * FAITHFUL:g} % same predictions, or else at the setting that "
        "comes closest."
    )
    if named_parts := [part for part in plots.PARTS if any(part in bar.parts for bar in bars)]:
        note += f" From full to faint: {', '.join(part.replace('_', ' ') for part in named_parts)}."
    technologies = ", ".join(sorted({result.technology for result, _ in sources}))
    caption = f"Energy per image, a model ({technologies})"
    return [Plot(Markup(plots.draw_energy(bars, f"{key}-energy", alt)), caption, note)]


def _ann_cells(ann: Ann) -> list[str]:
    energy = ann.energy_uj
    work = [count(ann.macs), microjoules(energy), ratio(energy, energy), fixed(ann.images_per_second, 0)]
    return [*"––––", percent(ann.accuracy), *"––––", *work]


def _group(result: Conversion, label: str, series: Series, best: Row, *, only: bool = False) -> TableGroup:
    """Return the rows of a series; with ``only``, only the best of them."""
    shown = [row for row in series.rows if row is best or not only]
    rows = [TableRow(_row_cells(result.ann, row), row is best) for row in shown]
    return TableGroup(label, f"s{series.index % 8}", rows)


def _row_cells(ann: Ann, row: Row) -> list[str]:
    return [
        f"{row.steps}",
        f"{row.latency}",
        fixed(row.latency_zero_delay, 0),
        fixed(row.interval, 0),
        fixed(row.train_bits or None, 1),
        percent(row.accuracy),
        fixed(row.loss_pp),
        percent(row.agreement),
        percent(row.logit_error),
        fixed(row.spikes_per_neuron),
        count(row.synops),
        microjoules(row.energy_uj),
        ratio(row.energy_uj, ann.energy_uj),
        fixed(row.images_per_second, 0),
    ]
