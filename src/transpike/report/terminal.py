"""Results as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table

from transpike.report.finetuning import HOW, finetuning_words, schedule_rows
from transpike.report.series import find_series, least, picked, representative
from transpike.report.wording import known, percent
from transpike.results import (
    Analysis,
    Ann,
    Conversion,
    Evaluation,
    Features,
    FiringLayer,
    Neuron,
    Operations,
    Row,
    Spiking,
    Training,
)

__all__ = [
    "analysis_tables",
    "conversion_table",
    "early_tables",
    "finetuning_table",
    "least_table",
    "operations_table",
    "spiking_tables",
    "stops_tables",
    "summary",
]

HEADINGS = (
    *("T", "lat-\nency", "accu-\nracy%", "loss\npp", "same\npred.%"),
    *("spikes\n/neur.", "Syn-\nOps", "energy\nµJ", "of\nANN", "img/s"),
)


def conversion_table(result: Conversion) -> Table:
    """Return the rows of a conversion, the ANN first. Counts and energy are means over images."""
    table = Table(
        title=f"{result.model} on {result.dataset}, {result.images} test images",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
        pad_edge=False,
    )
    best = representative(result.rows)
    table.caption = f"spikes, SynOps and energy are means over the first {result.rows[0].layer_images} images"
    table.caption += _shares(result.rows)
    if result.limits is not None:
        picked_row = picked(result.rows, result.limits)
        named = f"{_name(picked_row)}, T = {picked_row.steps}, keeps the most predictions" if picked_row else "no row"
        table.caption += f"\nwithin {result.limits}: {named}"
    if best.diagnosis:
        table.caption += f"\n{best.label or best.scheme['name']}, T = {best.steps}: {best.diagnosis}"
    table.caption += "".join(f"\n{line}" for line in _outputs(result.rows, best, result.ann))
    table.caption_justify = "left"
    ann = result.ann
    speed = f"{ann.images_per_second:.0f}"
    rows = [["ANN", "", "", _percent(ann.accuracy), "", "", "", "", f"{ann.energy_uj:.3g}", "", speed]]
    rows += [list(_cells(row, ann.energy_uj)) for row in result.rows]
    table.add_column("")  # in a narrow terminal names are cut, but figures never
    for heading, *cells in zip(HEADINGS, *(row[1:] for row in rows), strict=True):
        widest = max(map(len, [*heading.split("\n"), *cells]))
        table.add_column(heading, justify="right", no_wrap=True, min_width=widest)
    for row in rows:
        table.add_row(*row)
    return table


def _outputs(rows: Sequence[Row], best: Row, ann: Ann) -> Iterator[str]:
    """Yield the outputs' figures beside classes: the task's measures of all rows, and the best row's errors."""
    for name in best.measures:
        yield f"{name}: {_values([(row, row.measures.get(name)) for row in rows])} beside the ANN's outputs"
        if name in best.label_measures:
            text = _values([(row, row.label_measures.get(name)) for row in rows])
            yield f"{name} beside labels: {text}, the ANN's {ann.measures.get(name, 0.0):.4g}"
    if len(best.output_errors) > 1:
        errors = (f"{name} {100 * value:.3g} %" for name, value in best.output_errors.items())
        yield f"relative error: {', '.join(errors)}"


def _values(found: Sequence[tuple[Row, float | None]]) -> str:
    """Return numbers; if there are several, each with its row."""
    several = len(found) > 1
    words = (f"{value:.4g}" + (f" ({_name(row)}, T = {row.steps})" if several else "") for row, value in found
             if value is not None)  # fmt: skip
    return ", ".join(words)


def early_tables(result: Conversion) -> Iterator[Table]:
    """Yield a table of early answers for each row that has some."""
    for row in result.rows:
        if not row.early:
            continue
        table = Table(title="answers before the last step", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for heading in ("", "changed\n%", "accu-\nracy%", "mean\nsteps", "mean\nlatency", "energy\nµJ"):
            table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
        for one in row.early:
            name = f"step {one.steps:g} for all" if one.agreement is None else f"agreement {one.agreement:g}"
            changed = f"{100 * one.changed:.2f} ± {100 * one.changed_error:.2f}"
            energy = f"{one.energy_uj:.3g}" if known(one.energy_uj) else ""
            table.add_row(name, changed, _percent(one.accuracy), f"{one.steps:.2f}", f"{one.latency:.2f}", energy)
        yield table


def stops_tables(result: Conversion) -> Iterator[Table]:
    """Yield tables of answers that stop when they are sure, a line for each code and T. None if not measured."""
    rows = [row for row in result.rows if row.early]
    if not rows:
        return
    title = f"Each image stops when its answer is sure (agreement {rows[0].early[0].agreement:g})"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for heading in ("T", "changed\n%", "accu-\nracy%", "mean\nsteps", "mean\nlatency", "energy\nµJ", "of full\nrun's"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        one, whole = row.early[0], row.early[-1].energy_uj
        energy = f"{one.energy_uj:.3g}" if known(one.energy_uj) else ""
        share = f"{one.energy_uj / whole:.0%}" if known(one.energy_uj) and known(whole) and whole else ""
        figures = (f"{100 * one.changed:.2f}", _percent(one.accuracy), f"{one.steps:.2f}", f"{one.latency:.2f}")
        table.add_row(_name(row), str(row.steps), *figures, energy, share)
    yield table


def least_table(result: Conversion) -> Table:
    """Return the fewest steps at which each code loses no more than the target."""
    title = f"Fewest steps that lose at most {result.target_loss:g} pp"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("")
    for heading in ("T", "lat-\nency", "zero-\ndelay", "T ×\nbits", "same\npred.%", "spikes\n/neur.", "energy\nµJ"):
        table.add_column(heading, justify="right")
    for one in find_series([(result, "")])[0]:
        row = least(one.rows, result.target_loss or 0.0)
        if row is None:
            table.add_row(one.short, "none here")
            continue
        figures = (
            f"{row.train_bits:.1f}",
            _percent(row.agreement),
            f"{row.spikes_per_neuron:.2f}",
            f"{row.energy_uj:.3g}",
        )
        table.add_row(one.short, str(row.steps), str(row.latency), str(row.latency_zero_delay), *figures)
    return table


def _name(row: Row) -> str:
    return row.label or str(row.scheme["name"])


def _shares(rows: Sequence[Row]) -> str:
    """Return the share of functions and products in the energy, if a network has such."""
    energies = {
        part: [100 * row.energy_parts_uj.get(part, 0.0) / row.energy_uj for row in rows if row.energy_uj]
        for part in ("functions", "products")
    }
    parts = (f"{part} {min(shares):.0f} to {max(shares):.0f} %" for part, shares in energies.items() if any(shares))
    text = " and ".join(parts)
    return f"\nof the energy, {text}: what neurons evaluate at every step, and products of two trains" if text else ""


def _cells(row: Row, energy: float) -> Iterator[str]:
    yield _name(row)
    yield from (str(row.steps), str(row.latency), _percent(row.accuracy))
    yield f"{row.loss_pp:.2f}" if known(row.loss_pp) else ""
    yield from (_percent(row.agreement), f"{row.spikes_per_neuron:.2f}", _count(row.synops))
    yield from (
        f"{row.energy_uj:.3g}",
        f"{row.energy_uj / energy:.0%}" if energy else "",
        f"{row.images_per_second:.0f}",
    )


def _percent(value: float | None) -> str:
    return f"{100 * value:.2f}" if known(value) else ""


def _count(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def summary(result: Evaluation) -> str:
    """Return the accuracy of a trained network, as the beginning of a sentence.

    Example:
        >>> summary(Evaluation(model="resnet20", dataset="digits", images=360, accuracy=0.95, loss=0.2))
        'resnet20 on digits: 95.00% of 360 test images right'
    """
    at = f" at T = {result.spiking.steps}" if result.spiking else ""
    return f"{result.model} on {result.dataset}: {result.accuracy:.2%} of {result.images} test images right{at}"


def finetuning_table(result: Training) -> Table:
    """Return the judged choices of silent steps; ">" marks the chosen one, and the result stands below."""
    tuned = result.finetuning
    assert tuned is not None
    headings = ("weights, silent steps", "latency", "silent", "accuracy", "same pred.")
    table = _table(f"{tuned.images} validation images", headings, schedule_rows(tuned))
    tested = f" Test accuracy {percent(tuned.before.accuracy)} before, {percent(tuned.after.accuracy)} after."
    tested = tested if known(tuned.after.accuracy) else ""
    table.caption = f"{finetuning_words(tuned)}{tested}\n{HOW}"
    table.caption_justify = "left"
    return table


def spiking_tables(result: Evaluation) -> tuple[Table, str, Table] | tuple[()]:
    """Return firing by layer, operations and accuracy by T of a spiking network. Empty for another network."""
    spiking = result.spiking
    if spiking is None:
        return ()
    firing = Table(title=f"Firing at T = {spiking.steps}", title_justify="left", box=box.SIMPLE_HEAD)
    firing.add_column("layer")
    for heading in ("neurons", "spikes per neuron and step"):
        firing.add_column(heading, justify="right")
    layers: list[tuple[str, FiringLayer | Spiking]] = [(layer.name, layer) for layer in spiking.layers]
    for name, layer in [*layers, ("all", spiking)]:
        firing.add_row(name, str(layer.neurons), f"{layer.rate:.3f}")
    work = (
        f"An image takes {spiking.synops / 1e6:.3g} M SynOps and {spiking.macs / 1e6:.3g} M MACs, "
        f"{spiking.energy_uj:.3g} µJ; as an ANN {spiking.ann_macs / 1e6:.3g} M MACs, "
        f"{spiking.ann_energy_uj:.3g} µJ (45 nm model)."
    )
    steps = Table(box=box.SIMPLE_HEAD)
    for row in result.by_steps:
        steps.add_column(f"T = {row.steps}", justify="right")
    steps.add_row(*(f"{row.accuracy:.2%}" for row in result.by_steps))
    return firing, work, steps


def operations_table(operations: Operations) -> Table:
    """Return one image's operations in millions, and their energy in microjoules."""
    (_, *image), (_, *laid_out) = operations.image, operations.input
    names = {
        "ann_image": f"artificial, at {image[0]} x {image[1]}",
        "ann": f"artificial, at {laid_out[0]} x {laid_out[1]}",
        "spiking": "spiking: all three",
    }
    title = "Operations for one image, in millions, and energy (45 nm model)"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("part")
    for heading in ("MACs", "additions", "products", "shifts", "µJ"):
        table.add_column(heading, justify="right")
    for row in operations.rows:
        numbers = (row.macs, row.accumulates, row.multiplications, row.shifts)
        counts = (f"{number / 1e6:.3g}" if number else "" for number in numbers)
        table.add_row(names.get(row.part, f"spiking: {row.part}"), *counts, f"{row.energy_uj:.3g}")
    return table


def analysis_tables(result: Analysis) -> Iterator[Table | str]:
    """Yield the results in short form.

    "left" is the difference from the teacher after a method, as a share of the teacher's power. 100 % is the difference
    of a silent student.
    """
    names = [network.label for network in result.networks]
    logits = [
        (names[curve.network], f"{result.networks[curve.network].accuracy:.2%}",
         *(f"{value:.3f}" for value in (curve.rms, curve.rms_high, curve.distance_high)))
        for curve in result.logits.curves
    ]  # fmt: skip
    order = "the teacher's" if names[0] == "teacher" else "the first student's"
    yield _table(f"Logits in {order} order", ("network", "accuracy", "rms", "rms high", "high: distance"), logits)
    if result.features:
        headings = ("student", "stage", "teacher", "student", "adapted", "white", "left: low", "high")
        features = [_feature_row(names, stage) for stage in result.features]
        yield _table("Features: share of the variance above 0.25 cycles per pixel", headings, features, names=2)
    if result.similarity:
        rows = _similarities(names, result)
        yield _table("CKA with the teacher's stage", ("student", "stage", "as it is", "adapted"), rows, names=2)
    elif any(stage.teacher_tap for stage in result.features):
        yield "CKA is left out: it takes a batch of four images or more."
    if result.filters:
        filters = [(names[one.network], one.tap, one.domain, _optional(one.high_over_low)) for one in result.filters]
        yield _table("SRD's filters", ("student", "stage", "domain", "|W2| high / low"), filters, names=3)
    yield from map(_neuron, result.neurons)


def _neuron(neuron: Neuron) -> str:
    pairs = zip(neuron.measured_amplitude, neuron.expected, strict=True)
    off = max(abs(measured / expected - 1) for measured, expected in pairs)
    kind = f"decay {neuron.decay:g}" if neuron.decay < 1 else "no leak: |H| is an integrator's, not Eq. 3's"
    return (
        f"{neuron.type} ({kind}): the membrane follows |H| within {off:.1e}; "
        f"{neuron.spikes.rate:.2f} spikes per step when driven above threshold."
    )


def _feature_row(names: Sequence[str], stage: Features) -> tuple[str, ...]:
    shares = {("adapted" if curve.adapted else names[curve.network]): curve.high for curve in stage.curves}
    own = names[stage.student]
    left = stage.left.after if stage.left else (None, None)
    cells = (shares.get("teacher"), shares[own], shares.get("adapted"), stage.white_high, *left)
    return own, stage.tap, *(_optional(cell, "{:.1%}") for cell in cells)


def _similarities(names: Sequence[str], result: Analysis) -> list[tuple[str, ...]]:
    """Return the similarity of each stage with the teacher's stage from which it learned."""
    similarities = {
        (one.student, one.adapted, tap, other): value
        for one in result.similarity
        for tap, values in zip(one.taps, one.cka, strict=True)
        for other, value in zip(one.teacher_taps, values, strict=True)
    }
    places = [(stage.student, stage.tap, stage.teacher_tap or "") for stage in result.features]
    return [
        (
            names[student],
            tap,
            *(_optional(similarities.get((student, adapted, tap, other))) for adapted in (False, True)),
        )
        for student, tap, other in places
    ]


def _optional(value: float | None, form: str = "{:.3g}") -> str:
    return "" if value is None else form.format(value)


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place >= names else "left", no_wrap=place < names)
    for row in rows:
        table.add_row(*row)
    return table
