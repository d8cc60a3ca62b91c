"""What the page says of networks behind an input encoder: the images it shows, accuracy by steps, operations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean

from markupsafe import Markup

from transpike.errors import DataError
from transpike.report import panels, plots
from transpike.report.parts import Group, Plot, Section, legend, spoken
from transpike.report.results import Result, label_schemes
from transpike.report.wording import count, fixed, percent, ratio

__all__ = ["compare_encodings", "compared", "describe_encoding"]

WORK = {
    "ann_image": "artificial network, images as they are",
    "ann": "artificial network",
    "synapses": "spiking network: synapses",
    "neurons": "spiking network: neurons",
    "encoder": "spiking network: its encoder",
    "spiking": "spiking network: all",
}
COUNTS = ("macs", "accumulates", "multiplications", "shifts")


def compared(operations: Result) -> tuple[float, Sequence[int]]:
    """The artificial network that energies are compared with: its own in microjoules, and its input, [C, H, W].

    It is the one for the image itself; where its poolings leave nothing of that, the one for the image as laid out.
    """
    energies = {row["part"]: row["energy_uj"] for row in operations["rows"]}
    own, size = ("ann_image", "image") if "ann_image" in energies else ("ann", "input")
    return energies[own], operations[size]


def describe_encoding(result: Result, key: str) -> list[Group]:
    """The groups of one run; `key` is its own on the page.

    Raises:
        DataError: a picture is damaged.
    """
    return [
        *([_shown(result, key)] if "encoding" in result else []),
        *([_operations(result, key)] if "operations" in result else []),
    ]


def _shown(result: Result, key: str) -> Group:
    encoding, place = result["encoding"], f"{result['model']} on {result['dataset']}"
    steps, scheme = encoding["steps"], encoding["scheme"]
    rows = []
    for number, image in enumerate(encoding["images"]):
        try:
            rows.append([panels.read_png(each) for each in (image["png"], *image["rebuilt"])])
        except (ValueError, OSError) as error:
            raise DataError(f"encoding.images[{number}]: damaged ({error}). Run the experiment again.") from error
    titles = ["image", *(f"{taken} step{'s' * (taken > 1)}" for taken in steps)]
    labels = ", ".join(image["label"] for image in encoding["images"])
    alt = f"{place}: test images {labels} rebuilt after {', '.join(map(str, steps))} steps."
    errors = [plots.Line("error", 0, tuple(zip(steps, encoding["error"], strict=False)))]
    return Group(
        f"What the encoder shows: {scheme['name']}, T = {scheme['steps']}",
        wide=[
            Plot(
                Markup(panels.draw_pictures(titles, rows, f"{key}-rebuilt", alt)),
                "Images rebuilt from the spikes so far",
                "What the encoder’s spikes tell of each image, decoded; the network itself sees the spikes.",
            )
        ],
        plots=[
            Plot(
                Markup(
                    plots.draw_lines(
                        errors, f"{key}-error", f"{place}: error of rebuilt images. {spoken(errors, 'step')}",
                        titles=("steps shown", "root mean square (pixels 0 to 1)"),
                    )
                ),
                "Error of the rebuilt images",
                "Over 64 test images.",
            ),
            _steps_plot(result, key, place),
        ],
    )  # fmt: skip


def _steps_plot(result: Result, key: str, place: str) -> Plot:
    steps = result["encoding"]["scheme"]["steps"]
    lines = [
        plots.Line(f"read out before T = {steps}", 3, _after(result)),
        plots.Line("encoded in T steps", 2, tuple((row["steps"], 100 * row["accuracy"]) for row in result["by_steps"])),
    ]
    alt = f"{place}: accuracy (%) by steps. {spoken(lines, 'step')}"
    svg = plots.draw_lines(lines, f"{key}-by-steps", alt, titles=("steps shown", "accuracy (%)"))
    colours = tuple((f"s{line.index}", line.label) for line in lines)
    return Plot(
        Markup(svg), "Accuracy by steps shown", f"Thresholds, and training if any, are those of T = {steps}.", colours
    )


def _after(result: Result) -> tuple[tuple[float, float], ...]:
    return tuple((step, 100 * accuracy) for step, accuracy in enumerate(result["accuracy_after"], 1))


def _operations(result: Result, key: str) -> Group:
    work = result["operations"]
    found = {row["part"]: row for row in work["rows"]}
    (_, *image), (_, *laid_out) = work["image"], work["input"]
    own, (_, *size) = compared(work)
    rows = [
        (WORK.get(part, part), *(count(row.get(name)) if row.get(name) else "–" for name in COUNTS),
         fixed(row["energy_uj"], 3), ratio(row["energy_uj"], own))
        for part, row in found.items()
    ]  # fmt: skip
    return Group(
        "Operations and energy for one image",
        _told(result, found, image, laid_out),
        plots=_energy_plot(result, found, image, laid_out, key),
        columns=(
            *("", "MACs", "additions, comparisons", "products", "shifts", "energy (µJ)"),
            f"× artificial at {size[0]} × {size[1]}",
        ),
        rows=rows,
        about=(
            "4.6 pJ for a multiply-accumulate, 0.9 pJ for an addition or a comparison, 3.7 pJ for a product, 0.1 pJ "
            "for a shift (45 nm); memory is not counted. Neurons add, compare and leak at every step."
        ),
    )


def _told(result: Result, found: Result, image: Sequence[int], laid_out: Sequence[int]) -> str:
    """Eq. 13 in words, and what a larger input does to it."""
    work, macs = result["operations"], found["ann"]["macs"]
    told = [f"DCT-SNN’s Eq. 13 counts {count(macs)} multiply-accumulates for the artificial network"]
    if image != laid_out:
        told.append(
            f", as its encoder lays an image of {image[0]} × {image[1]} out as {laid_out[0]} × {laid_out[1]}, "
            f"{fixed(math.prod(laid_out) / math.prod(image))} times as large. "
        )
        told.append(_beside_own(found, work.get("poolings", 0), (*image, *laid_out)))
    if "synapses" in found:
        told.append(
            f". In {work['steps']} steps the spiking network’s synapses make {count(found['synapses']['accumulates'])} "
            "additions: Eq. 13 times the measured rate of each layer’s input times T"
        )
        if work.get("input_rate") is not None:
            told.append(f"; on average over operations this rate is {fixed(work['input_rate'], 3)}")
    return "".join(told) + "."


def _beside_own(found: Result, poolings: int, sides: Sequence[int]) -> str:
    """Eq. 13 beside that of the same network for the image itself."""
    if "ann_image" not in found:
        return "For the image itself there is no such network: its poolings leave nothing of it"
    own, macs = found["ann_image"]["macs"], found["ann"]["macs"]
    told = f"That is {fixed(macs / own)} times the {count(own)} of the same network for the image itself"
    return told + ", whose poolings round otherwise" * any(side % 2**poolings for side in sides)


def _energy_plot(result: Result, found: Result, image: Sequence[int], laid_out: Sequence[int], key: str) -> list[Plot]:
    if "spiking" not in found:
        return []
    own, _ = compared(result["operations"])
    bars = []
    for part, side in (("ann_image", image), ("ann", laid_out)):
        if part in found:
            energy = found[part]["energy_uj"]
            end = f"{fixed(energy, 3)} µJ" + (f", {ratio(energy, own)}" if energy != own else "")
            bars.append(plots.Bar(f"artificial, {side[0]} × {side[1]}", None, {"": energy}, end))
    parts = {part: found[part]["energy_uj"] for part in ("synapses", "neurons", "encoder")}
    energy = found["spiking"]["energy_uj"]
    end = f"{fixed(energy, 3)} µJ, {ratio(energy, own)}"
    bars.append(plots.Bar(f"spiking, T = {result['operations']['steps']}", 2, parts, end))
    alt = "Energy for one image. " + " ".join(f"{bar.label}: {bar.end}." for bar in bars)
    note = "From full to faint: synapses, neurons, encoder."
    return [Plot(Markup(plots.draw_energy(bars, f"{key}-energy", alt)), "Energy per image, a model", note)]


def compare_encodings(results: Sequence[Result]) -> Section:
    """Several runs behind an encoder: accuracy by T and by epoch, a curve each, and a table."""
    schemes = [result["encoding"]["scheme"] | {"tuned": "epochs" in result} for result in results]
    places = [f"{result['model']} on {result['dataset']}" for result in results]
    labels = [
        label + f" ({result.get('folder', f'result {number}')})" * (every.count(label) > 1)
        for every in (label_schemes(places, schemes),)
        for number, (label, result) in enumerate(zip(every, results, strict=True), 1)
    ]
    return Section(
        headline=f"{len(results)} runs behind an encoder, side by side.",
        groups=[*_by_steps(results, places, schemes), _run_by_run(results, labels)],
    )


def _by_steps(results: Sequence[Result], places: Sequence[str], schemes: Sequence[Result]) -> list[Group]:
    """Accuracy against T of codings that were run at several T."""
    timeless = [{name: value for name, value in scheme.items() if name != "steps"} for scheme in schemes]
    curves: dict[str, dict[int, list[float]]] = {}
    for label, result, scheme in zip(label_schemes(places, timeless), results, schemes, strict=True):
        if result.get("accuracy") is not None:
            curves.setdefault(label, {}).setdefault(scheme["steps"], []).append(100 * result["accuracy"])
    if all(len(points) == 1 for points in curves.values()):
        return []
    lines = [
        plots.Line(label, index, tuple((steps, mean(found)) for steps, found in sorted(points.items())))
        for index, (label, points) in enumerate(curves.items())
    ]
    alt = f"Accuracy (%) against T. {spoken(lines, 'T')}"
    svg = plots.draw_lines(lines, "encodings-steps", alt, titles=("T (steps)", "accuracy (%)"))
    return [
        Group(
            "Accuracy against T",
            "Test images; each network as it was made for its T, the mean of several.",
            legend=legend(lines, "encodings-steps"),
            plots=[Plot(Markup(svg), "A curve for each encoder and its settings")],
        )
    ]


def _run_by_run(results: Sequence[Result], labels: Sequence[str]) -> Group:
    named = list(zip(labels, results, strict=True))
    after = [plots.Line(label, index, _after(result)) for index, (label, result) in enumerate(named)]
    found = []
    for lines, name, caption, x in (
        (after, "after", "Accuracy by steps shown", "steps shown"),
        (_epochs(results, labels, "train_accuracy"), "train", "Training accuracy by epoch", "epoch"),
        (_epochs(results, labels, "validation_accuracy"), "validation", "Validation accuracy by epoch", "epoch"),
    ):
        if lines:
            alt = f"{caption} (%). {spoken(lines, x)}"
            svg = plots.draw_lines(lines, f"encodings-{name}", alt, titles=(x, "accuracy (%)"))
            note = "Test images; each network read out before its last step." if lines is after else ""
            found.append(Plot(Markup(svg), caption, note))
    return Group(
        "Run by run",
        legend=legend(after, "encodings"),
        plots=found,
        columns=("run", "T", "accuracy", "artificial network", "thresholds balanced", "spikes per neuron", "SynOps",
                 "energy (µJ)", "× artificial, image as it is"),
        rows=[_run_row(label, result) for label, result in named],
    )  # fmt: skip


def _epochs(results: Sequence[Result], labels: Sequence[str], name: str) -> list[plots.Line]:
    lines = [
        plots.Line(label, index, tuple((row["epoch"], 100 * row[name]) for row in epochs))
        for index, (label, result) in enumerate(zip(labels, results, strict=True))
        if (epochs := [row for row in result.get("epochs", ()) if row.get(name) is not None])
    ]
    return lines


def _run_row(label: str, result: Result) -> tuple[str, ...]:
    stages, spiking = result.get("stages", {}), result["spiking"]
    energy, own = _energies(result)
    return (
        label,
        str(spiking["steps"]),
        percent(result.get("accuracy")),
        percent(stages.get("ann", {}).get("accuracy")),
        percent(stages.get("balanced", {}).get("accuracy")),
        fixed(spiking["spikes_per_neuron"]),
        count(spiking["synops"]),
        fixed(energy, 3),
        ratio(energy, own),
    )


def _energies(result: Result) -> tuple[float, float | None]:
    """Of the spiking network, and of the artificial one for the image itself; None where there is none."""
    spiking = result["spiking"]
    if "operations" not in result:
        return spiking["energy_uj"], spiking["ann_energy_uj"]
    parts = {row["part"]: row["energy_uj"] for row in result["operations"]["rows"]}
    own, size = compared(result["operations"])
    return parts.get("spiking", spiking["energy_uj"]), own if size == result["operations"]["image"] else None
