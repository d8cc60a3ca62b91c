"""The page's section of networks with an input encoder: its images, accuracy by steps, operations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from transpike.errors import DataError
from transpike.report import panels, plots
from transpike.report.parts import Group, Plot, spoken
from transpike.report.wording import count, fixed, known, ratio
from transpike.results import Encoding, Evaluation, Operations, Part

__all__ = ["after_line", "compared", "describe_encoding"]

WORK = {
    "ann_image": "artificial network, images as they are",
    "ann": "artificial network",
    "synapses": "spiking network: synapses",
    "neurons": "spiking network: neurons",
    "encoder": "spiking network: its encoder",
    "spiking": "spiking network: all",
}


def compared(operations: Operations) -> tuple[float, tuple[int, int, int]]:
    """Return the energy, in microjoules, and the input [C, H, W] of the artificial network to compare energies with.

    It is the network for the original image. If its poolings would leave nothing of that, it is the one for the
    enlarged image.
    """
    parts = operations.by_part
    if "ann_image" in parts:
        return parts["ann_image"].energy_uj, operations.image
    return parts["ann"].energy_uj, operations.input


def describe_encoding(result: Evaluation, key: str) -> list[Group]:
    """Return the groups of one run. `key` must be unique on the page.

    Raises:
        DataError: A picture is damaged.
    """
    return [
        *([_shown(result, result.encoding, key)] if result.encoding else []),
        *([_operations(result.operations, key)] if result.operations else []),
    ]


def _shown(result: Evaluation, encoding: Encoding, key: str) -> Group:
    place, steps = f"{result.model} on {result.dataset}", encoding.steps
    rows = []
    for number, image in enumerate(encoding.images):
        try:
            rows.append([panels.read_png(each) for each in (image.png, *image.rebuilt)])
        except ValueError as error:
            raise DataError(f"encoding.images[{number}]: damaged ({error}). Run the experiment again.") from error
    titles = ["image", *(f"{taken} step{'s' * (taken > 1)}" for taken in steps)]
    labels = ", ".join(image.label for image in encoding.images)
    alt = f"{place}: test images {labels} rebuilt after {', '.join(map(str, steps))} steps."
    errors = [plots.curve("error", 0, zip(steps, encoding.error, strict=True))]
    return Group(
        f"What the encoder shows: {encoding.scheme['name']}, T = {steps[-1]}",
        wide=[
            Plot(
                Markup(panels.draw_pictures(titles, rows, f"{key}-rebuilt", alt)),
                "Images rebuilt from the spikes so far",
                "Each image, decoded from the encoder’s spikes. The network itself sees the spikes.",
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
            _steps_plot(result, steps[-1], key, place),
        ],
    )  # fmt: skip


def _steps_plot(result: Evaluation, steps: int, key: str, place: str) -> Plot:
    lines = [
        after_line(f"read out before T = {steps}", 3, result),
        plots.curve("encoded in T steps", 2, ((row.steps, 100 * row.accuracy) for row in result.by_steps)),
    ]
    alt = f"{place}: accuracy (%) by steps. {spoken(lines, 'step')}"
    svg = plots.draw_lines(lines, f"{key}-by-steps", alt, titles=("steps shown", "accuracy (%)"))
    colours = tuple((f"s{line.index}", line.label) for line in lines)
    return Plot(
        Markup(svg),
        "Accuracy by steps shown",
        f"The thresholds were set, and the network was trained, for T = {steps}.",
        colours,
    )


def after_line(label: str, index: int, result: Evaluation) -> plots.Line:
    """Return accuracy in percent if the network is read after 1, 2, ... steps."""
    return plots.curve(label, index, ((step, 100 * share) for step, share in enumerate(result.accuracy_after, 1)))


def _operations(work: Operations, key: str) -> Group:
    parts = work.by_part
    own, (_, *size) = compared(work)
    rows = [
        (WORK[row.part], *(count(each) if each else "–" for each in _counts(row)), fixed(row.energy_uj, 3),
         ratio(row.energy_uj, own))
        for row in work.rows
    ]  # fmt: skip
    return Group(
        "Operations and energy for one image",
        _in_words(work, parts),
        plots=_energy_plot(work, parts, key),
        columns=(
            *("", "MACs", "additions, comparisons", "products", "shifts", "energy (µJ)"),
            f"× artificial at {size[0]} × {size[1]}",
        ),
        rows=rows,
        about=(
            "4.6 pJ for a multiply-accumulate, 0.9 pJ for an addition or a comparison, 3.7 pJ for a product, 0.1 pJ "
            "for a shift (45 nm). Memory is not counted. Neurons add, compare and leak at every step."
        ),
    )


def _counts(part: Part) -> tuple[float, ...]:
    return part.macs, part.accumulates, part.multiplications, part.shifts


def _in_words(work: Operations, found: Mapping[str, Part]) -> str:
    """Return Eq. 13 in words, and the effect of a larger input on it."""
    macs, (_, *image), (_, *laid_out) = found["ann"].macs, work.image, work.input
    sentences = [f"DCT-SNN’s Eq. 13 counts {count(macs)} multiply-accumulates for the artificial network"]
    if image != laid_out:
        sentences.append(
            f", as its encoder lays an image of {image[0]} × {image[1]} out as {laid_out[0]} × {laid_out[1]}, "
            f"{fixed(math.prod(laid_out) / math.prod(image))} times as large. "
        )
        sentences.append(_beside_own(found, work.poolings, (*image, *laid_out)))
    if "synapses" in found:
        sentences.append(
            f". In {work.steps} steps the spiking network’s synapses make {count(found['synapses'].accumulates)} "
            "additions: Eq. 13 times the measured rate of each layer’s input times T"
        )
        if known(work.input_rate):
            sentences.append(f"; on average over operations this rate is {fixed(work.input_rate, 3)}")
    return "".join(sentences) + "."


def _beside_own(found: Mapping[str, Part], poolings: int, sides: Sequence[int]) -> str:
    """Return a comparison of Eq. 13 with that of the same network for the original image, in words."""
    if "ann_image" not in found:
        return "For the image itself there is no such network: its poolings leave nothing of it"
    own, macs = found["ann_image"].macs, found["ann"].macs
    times = ratio(macs, own).removesuffix(" ×")
    sentence = f"That is {times} times the {count(own)} of the same network for the image itself"
    return sentence + ", whose poolings round otherwise" * any(side % 2**poolings for side in sides)


def _energy_plot(work: Operations, found: Mapping[str, Part], key: str) -> list[Plot]:
    if "spiking" not in found:
        return []
    own, _ = compared(work)
    bars = []
    for part, (_, *side) in (("ann_image", work.image), ("ann", work.input)):
        if part in found:
            energy = found[part].energy_uj
            end = f"{fixed(energy, 3)} µJ" + (f", {ratio(energy, own)}" if energy != own else "")
            bars.append(plots.Bar(f"artificial, {side[0]} × {side[1]}", None, {"": energy}, end))
    parts = {part: found[part].energy_uj for part in ("synapses", "neurons", "encoder")}
    energy = found["spiking"].energy_uj
    end = f"{fixed(energy, 3)} µJ, {ratio(energy, own)}"
    bars.append(plots.Bar(f"spiking, T = {work.steps}", 2, parts, end))
    alt = "Energy for one image. " + " ".join(f"{bar.label}: {bar.end}." for bar in bars)
    note = "From full to faint: synapses, neurons, encoder."
    return [Plot(Markup(plots.draw_energy(bars, f"{key}-energy", alt)), "Energy per image, a model", note)]
