"""The page's section of an analysis: how student and teacher differ."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from markupsafe import Markup

from transpike.errors import DataError
from transpike.report import panels, plots
from transpike.report.parts import ADAPTED, Entry, Group, Plot, Section, line_legend, network_line, spoken
from transpike.report.stages import describe_stages
from transpike.report.wording import count, fixed, known, percent
from transpike.results import Analysis, Features, LogitCurve, LogitRow, Network, Neuron, Spectrum

__all__ = ["describe_analysis"]

GAUSSIAN = 23
"""The index of a Gaussian's line, which is dotted."""

CYCLES = "cycles per pixel"


def describe_analysis(result: Analysis, key: str) -> Section:
    """Return the section of one analysis. `key` must be unique on the page.

    Raises:
        DataError: A picture is damaged.
    """
    networks = result.networks
    beside = f" beside its teacher {networks[0].model}" if networks[0].role == "teacher" else ""
    groups = [
        _features(result, key),
        *describe_stages(result, key),
        _logits(result, key),
        _filters(result, key),
        *(_neuron(neuron, networks, f"{key}-n{number}") for number, neuron in enumerate(result.neurons)),
        _saliency(result, key),
    ]
    return Section(
        headline=f"{result.model} on {result.dataset}{beside}: {count(result.images)} {result.part} images.",
        tiles=[
            (network.label, percent(network.accuracy), ", ".join(filter(None, (network.model, network.method))))
            for network in networks
        ],
        groups=[group for group in groups if group is not None],
    )


def _plot(
    lines: Sequence[plots.Line],
    key: str,
    caption: str,
    titles: tuple[str, str],
    *,
    scale: str = "linear",
    note: str = "",
    whole: bool = True,
) -> list[Plot]:
    """Return a plot, if there are curves to draw."""
    lines = [line for line in lines if sum(y > 0 or scale != "log" for _, y in line.points) > 1]
    if not lines:
        return []
    alt = f"{caption}. {spoken(lines, titles[0].partition(' (')[0])}"
    svg = plots.draw_lines(lines, key, alt, titles=titles, scale=scale, whole=whole)
    return [Plot(Markup(svg), caption, note)]


def _legend(lines: Iterable[plots.Line], key: str) -> list[Entry]:
    ordered = sorted(lines, key=lambda line: line.index % ADAPTED)
    return line_legend({line.index: line for line in ordered}.values(), key)


def _features(result: Analysis, key: str) -> Group | None:
    stages: dict[tuple[str, str | None, tuple[int, int]], list[Features]] = {}
    for stage in result.features:
        stages.setdefault((stage.tap, stage.teacher_tap, stage.size), []).append(stage)
    drawings, every, rows = [], [], []
    for number, ((tap, other, (height, width)), alike) in enumerate(stages.items()):
        # The teacher is the same for all students.
        curves = {(curve.network, curve.adapted): curve for stage in alike for curve in stage.curves}
        lines = [_spectrum(curves[place], result.networks) for place in sorted(curves)]
        if any(len(line.points) > 1 for line in lines):
            lines += _gaussians(stage.sigma for stage in alike)
        every += lines
        name = f"{tap}, teacher’s {other}" if other else tap
        drawings += _plot(
            lines, f"{key}-features-{number}", f"{name} ({height} × {width})",
            (f"frequency ({CYCLES})", "power (white = 1)"), scale="log", whole=False,
        )  # fmt: skip
        rows += [_feature_row(result, stage, name) for stage in alike]
    if not rows:
        return None
    adapted = any(curve.adapted for stage in result.features for curve in stage.curves)
    columns = ("stage", "student", "teacher", "student", "white noise")
    weighted = any(known(stage.sigma) for stage in result.features)
    return Group(
        "Features: power by frequency",
        "".join(_feature_note(result.networks, adapted=adapted, weighted=weighted)),
        legend=_legend(every, f"{key}-features"),
        plots=drawings,
        about="The share of the variance above ¼ cycle per pixel. For white noise this share depends on the grid."
        + (
            " The last columns show the difference that a method leaves between student and teacher, as a share of "
            "the teacher’s power below and above ¼. 100 % is as far from the teacher as a student that is all zero."
            if adapted
            else ""
        ),
        columns=(*columns, "adapted", "left, low", "left, high") if adapted else columns,
        rows=rows if adapted else [row[: len(columns)] for row in rows],
    )


def _feature_note(networks: Sequence[Network], *, adapted: bool, weighted: bool) -> Iterator[str]:
    """Yield sentences on how to read the spectra, with the notes of the methods on this page."""
    yield (
        "Mean power of the maps against the distance from zero frequency, divided by the maps’ variance. The maps are "
        "averaged over time; compared maps are on a common grid. Zero frequency is left out. White noise is 1 "
        "everywhere."
    )
    if adapted:
        yield " Adapted: the student’s maps in the form that its method compares."
        yield from (f" {note}" for note in dict.fromkeys(network.adapts for network in networks) if note)
    if weighted:
        yield " Dotted: the weight of the difference’s power in the loss, the square of the method’s Gaussian."


def _spectrum(curve: Spectrum, networks: Sequence[Network]) -> plots.Line:
    """Return power divided by the variance, without points if there is no variance."""
    points = zip(curve.frequency, curve.power, strict=True)
    scaled = ((x, y / curve.variance) for x, y in points) if known(curve.variance) and curve.variance else ()
    return network_line(networks, curve.network, scaled, adapted=curve.adapted)


def _gaussians(sigmas: Iterable[float | None]) -> list[plots.Line]:
    """Return the factor of a Gaussian filter on power, H^2, by frequency."""
    frequencies = [place / 64 for place in range(2, 33)]
    return [
        plots.curve("Gaussian, squared", GAUSSIAN, ((f, math.exp(-(min(f / sigma, 30.0) ** 2))) for f in frequencies))
        for sigma in dict.fromkeys(sigmas)
        if known(sigma) and sigma > 0
    ]


def _feature_row(result: Analysis, stage: Features, name: str) -> tuple[str, ...]:
    own, teacher, adapted = None, None, None
    for curve in stage.curves:
        if curve.adapted:
            adapted = curve.high
        elif curve.network == stage.student:
            own = curve.high
        else:
            teacher = curve.high
    gaps = stage.left.after if stage.left else (None, None)
    student = result.networks[stage.student].label
    return name, student, *(percent(share) for share in (teacher, own, stage.white_high, adapted, *gaps))


def _ranked(networks: Sequence[Network], curve: LogitCurve | LogitRow, values: Sequence[float]) -> plots.Line:
    return network_line(networks, curve.network, enumerate(values, 1))


def _logits(result: Analysis, key: str) -> Group | None:
    networks, curves = result.networks, result.logits.curves
    titles = ("rank", "logit minus its mean")
    means = [_ranked(networks, one, one.mean) for one in curves]
    high = [_ranked(networks, one, one.high) for one in curves]
    edge = (
        "Above ¼ cycle per class. The transform treats the last rank as the neighbour of the first, so both ends "
        "contain the step between them."
    )
    drawings = [
        *_plot(means, f"{key}-logits", "Sorted logits, mean over images", titles),
        *_plot(high, f"{key}-high", "Their high frequencies", ("rank", "root mean square"), note=edge),
    ]
    if not drawings:
        return None
    first = "the teacher’s" if networks[0].role == "teacher" else "the first student’s"
    singles = [
        (
            f"image {number}",
            [_ranked(networks, row, row.logits) for row in rows],
            [_ranked(networks, row, row.high) for row in rows],
        )
        for number, rows in enumerate(result.logits.single, 1)
    ]
    drawn = []
    if singles:
        alt = f"Logits of {len(singles)} images in {first} order, and their high frequencies."
        svg = panels.draw_singles(singles, f"{key}-singles", alt)
        drawn = [Plot(Markup(svg), "Single images", "The same order. Top: the logits. Bottom: their high frequencies.")]
    return Group(
        f"Logits in {first} order",
        f"For each image the classes are sorted by {first} logits, from the largest to the smallest.",
        legend=_legend(means, f"{key}-logits"),
        plots=drawings,
        wide=drawn,
        columns=("network", "root mean square", "of the high frequencies", f"their distance from {first}"),
        rows=[
            (networks[one.network].label, *(fixed(value, 3) for value in (one.rms, one.rms_high, one.distance_high)))
            for one in curves
        ],
    )


def _filters(result: Analysis, key: str) -> Group | None:
    rows: dict[int, list[panels.Panel]] = {}
    for one in result.filters:
        rows.setdefault(one.network, []).append((one.tap, np.asarray(one.weights, float)))
    if not rows:
        return None
    domains = {one.network: one.domain for one in result.filters}
    named = [(f"{result.networks[number].label} ({domains[number]})", found) for number, found in rows.items()]
    filters = [one for one in result.filters if known(one.high_over_low)]
    alt = "Magnitudes of W2. " + " ".join(
        f"{one.tap}: {one.high_over_low:.2g} times as large at high." for one in filters
    )
    caption = "|W₂| of each stage" + ("" if len(named) > 1 else f", {domains[next(iter(rows))]} domain")
    note = (
        "A filter in the frequency domain is drawn over all frequencies: zero in the middle, ½ cycle per pixel at the "
        "edges. A filter in the spatial domain is drawn over the positions of the map. Training began with zeros."
    )
    return Group(
        "What SRD learned",
        wide=[Plot(Markup(panels.draw_filters(named, f"{key}-filters", alt)), caption, note)],
        columns=("stage", "student", "|W₂| above ¼ cycle per pixel, relative to below"),
        rows=[(one.tap, result.networks[one.network].label, fixed(one.high_over_low)) for one in filters],
    )


def _neuron(neuron: Neuron, networks: Sequence[Network], key: str) -> Group:
    def line(label: str, index: int, values: Sequence[float], power: int = 1) -> plots.Line:
        return plots.curve(label, index, ((x, y**power) for x, y in zip(neuron.frequency, values, strict=True)))

    def dots(label: str, index: int, values: Sequence[float]) -> plots.Line:
        some = zip(neuron.frequency[::4], values[::4], strict=True)
        return plots.curve(label, index, some, dots=True)

    lines = [
        line("|H|", 0, neuron.expected),
        dots("amplitude, measured", 0, neuron.measured_amplitude),
        line("|H|²", 1, neuron.expected, 2),
        dots("power, measured", 1, neuron.measured_power),
    ]
    spikes = neuron.spikes
    train = plots.curve("spikes", 2, zip(spikes.frequency, spikes.power, strict=True))
    leaks = neuron.decay < 1
    factor = "" if math.isclose(neuron.gain, 1 - neuron.decay) else " but for the factor"
    note = (
        f"Lines: |H(f)| = {neuron.gain:.4g} / |1 − {neuron.decay:.4g} exp(−2πjf)| and its square (BSD, Eq. 3"
        f"{factor if leaks else ', without a leak: an integrator'}). Dots: measured values. Sinusoids measure the "
        "amplitude, white noise measures the power. |H|² is the ratio of powers."
    )
    titles = ("frequency (cycles per step)", "gain")
    who = ", ".join(networks[number].label for number in neuron.networks)
    return Group(
        f"The neuron as a filter: {neuron.type} of {who}",
        "" if leaks else "This neuron does not leak. Its membrane is an integrator, and BSD’s Eq. 3 does not apply.",
        legend=line_legend([plots.Line("|H|, amplitude", 0, ()), plots.Line("|H|², power", 1, ())], key),
        plots=[
            *_plot(
                lines, f"{key}-membrane", "Membrane, driven below threshold", titles, note=note, scale="log",
                whole=False,
            ),
            *_plot(
                [train], f"{key}-spikes", "Spikes, driven above threshold", (titles[0], "power (white = 1)"),
                note=f"Input: white noise around a constant. {fixed(spikes.rate)} spikes per step.", scale="log",
                whole=False,
            ),
        ],
    )  # fmt: skip


def _saliency(result: Analysis, key: str) -> Group | None:
    images, overlays = result.saliency.images, result.saliency.panels
    if not images:
        return None
    networks = [network.label for network in result.networks]
    maps = {(panel.image, panel.network): panel for panel in overlays}
    rows = []
    for number, image in enumerate(images):
        own = [maps[number, place] for place in range(len(networks))]
        heats = [(f"says {panel.prediction}", np.asarray(panel.map, float)) for panel in own]
        try:
            rows.append((image.label, panels.read_png(image.png), heats))
        except ValueError as error:
            raise DataError(f"saliency.images[{number}]: damaged ({error}). Run the experiment again.") from error
    taps = ", ".join(f"{label} {tap}" for label, tap in zip(networks, result.saliency.taps, strict=False))
    alt = "Grad-CAM of " + "; ".join(
        f"{label}: " + ", ".join(f"{who} {caption}" for who, (caption, _) in zip(networks, heats, strict=True))
        for label, _, heats in rows
    )
    note = (
        f"Grad-CAM at {taps}: the parts of the image that support its label, from none (blue) to most (red). The text "
        "below is the network’s prediction. A map that is blue everywhere supports the label nowhere. The maps and "
        "logits of a spiking network are averaged over time."
    )
    return Group(
        "Where they look",
        wide=[
            Plot(Markup(panels.draw_saliency(networks, rows, f"{key}-saliency", alt)), "Evidence for the label", note)
        ],
    )
