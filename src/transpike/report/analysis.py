"""What the page says of an analysis: where student and teacher differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from transpike.errors import DataError
from transpike.report import panels, plots
from transpike.report.parts import ADAPTED, Group, Plot, Section, adapted_index, curve_label, legend, spoken
from transpike.report.results import Result
from transpike.report.stages import describe_stages
from transpike.report.wording import count, fixed, percent

__all__ = ["describe_analysis"]

GAUSSIAN = 23
"""The index of GFFL's Gaussian: dotted."""

CYCLES = "cycles per pixel"


def describe_analysis(result: Result, key: str) -> Section:
    """The section of one analysis; `key` is its own on the page.

    Raises:
        DataError: a picture is damaged.
    """
    networks = result["networks"]
    teacher = networks[0] if networks[0]["role"] == "teacher" else None
    beside = f" beside its teacher {teacher['model']}" if teacher else ""
    part = "validation" if result["part"] == "validation" else "test"
    groups = [
        _features(result, key),
        *describe_stages(result, key),
        _logits(result, key),
        _filters(result, key),
        *(_neuron(neuron, result, f"{key}-n{number}") for number, neuron in enumerate(result["neurons"])),
        _saliency(result, key),
    ]
    return Section(
        headline=f"{result['model']} on {result['dataset']}{beside}: {count(result['images'])} {part} images.",
        tiles=[
            (
                network["label"],
                percent(network.get("accuracy")),
                network["model"] + (f", {network['method']}" if network.get("method") else ""),
            )
            for network in networks
        ],
        groups=[group for group in groups if group is not None],
    )


def _lines(result: Result, curves: Sequence[Result], x: str, y: str, scale: str = "") -> list[plots.Line]:
    """Curves of networks, each divided by its own entry `scale`."""
    lines = []
    for curve in curves:
        whole = curve.get(scale, 0) if scale else 1
        places = curve[x] if x else range(1, 1 + len(curve[y]))
        points = zip(places, curve[y], strict=False)
        numbers = tuple((px, py / whole) for px, py in points if py is not None) if whole else ()
        lines.append(plots.Line(curve_label(result, curve), adapted_index(curve), numbers))
    return lines


def _plot(
    lines: Sequence[plots.Line], key: str, caption: str, titles: tuple[str, str], *, note: str = "", **how: Any
) -> list[Plot]:
    """A plot, if there are curves to draw."""
    lines = [line for line in lines if sum(py > 0 or how.get("scale") != "log" for _, py in line.points) > 1]
    if not lines:
        return []
    alt = f"{caption}. {spoken(lines, titles[0].partition(' (')[0])}"
    return [Plot(Markup(plots.draw_lines(lines, key, alt, titles=titles, **how)), caption, note)]


def _legend(lines: Sequence[plots.Line], key: str) -> Sequence[Mapping[str, Any]]:
    return legend(
        list({line.index: line for line in sorted(lines, key=lambda line: line.index % ADAPTED)}.values()), key
    )


def _features(result: Result, key: str) -> Group | None:
    stages: dict[tuple[Any, ...], list[Result]] = {}
    for stage in result["features"]:
        stages.setdefault((stage["tap"], stage.get("teacher_tap"), *stage["size"]), []).append(stage)
    found, every, rows = [], [], []
    for number, ((tap, other, height, width), alike) in enumerate(stages.items()):
        # The teacher is the same beside all students.
        curves = {(curve["network"], bool(curve.get("adapted"))): curve for stage in alike for curve in stage["curves"]}
        lines = _lines(result, [curves[place] for place in sorted(curves)], "frequency", "power", "variance")
        if any(len(line.points) > 1 for line in lines):
            lines += _gaussians([stage.get("sigma") for stage in alike])
        every += lines
        name = f"{tap}, teacher’s {other}" if other else tap
        found += _plot(
            lines, f"{key}-features-{number}", f"{name} ({height} × {width})",
            (f"frequency ({CYCLES})", "power (white = 1)"), scale="log", whole=False,
        )  # fmt: skip
        rows += [_feature_row(result, stage, name) for stage in alike]
    if not rows:
        return None
    return Group(
        "Features: power by frequency",
        "Of the maps, averaged over time and, where they are compared, on a common grid: mean power by distance from "
        "zero frequency, which is left out, divided by the maps’ variance. White noise is 1 everywhere. Adapted: the "
        "student’s maps as SRD or SFKD compares them, projected to the teacher’s channels and, if it has one, with its "
        "residual or refinement (DS2S). The teacher’s are as they are, although SFKD may standardize their channels "
        "before it compares. Dotted: the weight that SFKD’s Gaussian, squared, gives to the power of the difference.",
        legend=_legend(every, f"{key}-features"),
        plots=found,
        about=(
            "The share of the variance above ¼ cycle per pixel, which of white noise depends on the grid; and what SRD "
            "or SFKD leaves between student and teacher, as a share of the teacher’s power below and above ¼: all of "
            "it is as far as silence."
        ),
        columns=(*("stage", "student", "teacher", "student", "adapted", "white noise"), "left, low", "left, high"),
        rows=rows,
    )


def _gaussians(sigmas: Sequence[float | None]) -> list[plots.Line]:
    """What GFFL's filter leaves of power, H^2, by frequency."""
    frequencies = [place / 64 for place in range(2, 33)]
    return [
        plots.Line("Gaussian, squared", GAUSSIAN, tuple((f, math.exp(-((f / sigma) ** 2))) for f in frequencies))
        for sigma in dict.fromkeys(sigmas)
        if sigma is not None
    ]


def _feature_row(result: Result, stage: Result, name: str) -> tuple[str, ...]:
    own, teacher, adapted = None, None, None
    for curve in stage["curves"]:
        if curve.get("adapted"):
            adapted = curve.get("high")
        elif curve["network"] == stage["student"]:
            own = curve.get("high")
        else:
            teacher = curve.get("high")
    left = stage.get("left") or {}
    gaps = left.get("after") or (None, None)
    student = result["networks"][stage["student"]]["label"]
    return name, student, *(percent(share) for share in (teacher, own, adapted, stage["white_high"], *gaps))


def _logits(result: Result, key: str) -> Group | None:
    curves = result["logits"]["curves"]
    titles = ("rank", "logit less its mean")
    means, high = (_lines(result, curves, "", name) for name in ("mean", "high"))
    edge = (
        "Above ¼ cycle per class. To the transform the last rank lies beside the first: part of what stands at both "
        "ends is the step between them."
    )
    found = [
        *_plot(means, f"{key}-logits", "Sorted logits, mean over images", titles),
        *_plot(high, f"{key}-high", "Their high frequencies", ("rank", "root mean square"), note=edge),
    ]
    if not found:
        return None
    taught = result["networks"][0]["role"] == "teacher"
    first = "the teacher’s" if taught else "the first student’s"
    singles = [
        (f"image {number}", _lines(result, rows, "", "logits"), _lines(result, rows, "", "high"))
        for number, rows in enumerate(result["logits"].get("single", ()), 1)
    ]
    drawn = []
    if singles:
        alt = f"Logits of {len(singles)} images in {first} order, and their high frequencies."
        svg = panels.draw_singles(singles, f"{key}-singles", alt)
        drawn = [
            Plot(Markup(svg), "Some images alone", "The same order; above the logits, below their high frequencies.")
        ]
    return Group(
        f"Logits in {first} order",
        f"For each image the classes are sorted by {first} logits, from the largest to the least.",
        legend=_legend(means, f"{key}-logits"),
        plots=found,
        wide=drawn,
        columns=("network", "root mean square", "of the high frequencies", f"their distance from {first}"),
        rows=[
            (line.label, *(fixed(curve.get(name), 3) for name in ("rms", "rms_high", "distance_high")))
            for line, curve in zip(means, curves, strict=True)
        ],
    )


def _filters(result: Result, key: str) -> Group | None:
    rows: dict[int, list[panels.Panel]] = {}
    for one in result["filters"]:
        rows.setdefault(one["network"], []).append((one["tap"], np.asarray(one["weights"], float)))
    if not rows:
        return None
    domains = {one["network"]: one["domain"] for one in result["filters"]}
    named = [(f"{result['networks'][number]['label']} ({domains[number]})", found) for number, found in rows.items()]
    told = [one for one in result["filters"] if one.get("high_over_low") is not None]
    alt = "Magnitudes of W2. " + " ".join(
        f"{one['tap']}: {one['high_over_low']:.2g} times as large at high." for one in told
    )
    caption = "|W₂| of each stage" + ("" if len(named) > 1 else f", {domains[next(iter(rows))]} domain")
    note = (
        "Of a filter in the frequency domain over all frequencies, zero in the middle, ½ cycle per pixel at the edges; "
        "of one in the spatial domain over the places of the map. It began as zero."
    )
    return Group(
        "What SRD learned",
        wide=[Plot(Markup(panels.draw_filters(named, f"{key}-filters", alt)), caption, note)],
        columns=("stage", "student", "|W₂| above ¼ cycle per pixel, relative to below"),
        rows=[(one["tap"], result["networks"][one["network"]]["label"], fixed(one["high_over_low"])) for one in told],
    )


def _neuron(neuron: Result, result: Result, key: str) -> Group:
    def points(name: str, power: int = 1, every: int = 1) -> tuple[tuple[float, float], ...]:
        pairs = list(zip(neuron["frequency"], neuron[name], strict=False))[::every]
        return tuple((px, py**power) for px, py in pairs if py is not None)

    lines = [
        plots.Line("|H|", 0, points("expected")),
        plots.Line("amplitude, measured", 0, points("measured_amplitude", every=4), dots=True),
        plots.Line("|H|²", 1, points("expected", 2)),
        plots.Line("power, measured", 1, points("measured_power", every=4), dots=True),
    ]
    spikes = neuron["spikes"]
    train = plots.Line("spikes", 2, tuple(zip(spikes.get("frequency", ()), spikes.get("power", ()), strict=False)))
    leaks = neuron["decay"] < 1
    factor = "" if math.isclose(neuron.get("gain", 1.0), 1 - neuron["decay"]) else " but for the factor"
    gain = f"{neuron.get('gain', 1.0):.4g}"
    note = (
        f"Lines: |H(f)| = {gain} / |1 − {neuron['decay']:.4g} exp(−2πjf)| and its square (BSD, Eq. 3"
        f"{factor if leaks else ', without a leak: an integrator'}). Dots: measured, the amplitude with sinusoids, the "
        "power with white noise. |H|² relates powers."
    )
    titles, how = ("frequency (cycles per step)", "gain"), {"scale": "log", "whole": False}
    who = ", ".join(result["networks"][number]["label"] for number in neuron["networks"])
    kind = f"{neuron['type']} of {who}"
    return Group(
        f"The neuron as a filter: {kind}",
        "" if leaks else "This neuron does not leak: its membrane is an integrator, and BSD’s Eq. 3 is not about it.",
        legend=legend([plots.Line("|H|, amplitude", 0, ()), plots.Line("|H|², power", 1, ())], key),
        plots=[
            *_plot(lines, f"{key}-membrane", "Membrane, driven below threshold", titles, note=note, **how),
            *_plot(
                [train], f"{key}-spikes", "Spikes, driven above threshold", (titles[0], "power (white = 1)"),
                note=f"By white noise around a constant; {fixed(spikes.get('rate'))} spikes per step.", **how,
            ),
        ],
    )  # fmt: skip


def _saliency(result: Result, key: str) -> Group | None:
    images, found = result["saliency"]["images"], result["saliency"]["panels"]
    if not images:
        return None
    networks = [network["label"] for network in result["networks"]]
    rows = []
    for number, image in enumerate(images):
        by_network = {panel["network"]: panel for panel in found if panel["image"] == number}
        heats = [
            (f"says {by_network[place]['prediction']}", np.asarray(by_network[place]["map"], float))
            for place in range(len(networks))
        ]
        try:
            rows.append((image["label"], panels.read_png(image["png"]), heats))
        except (ValueError, OSError) as error:
            raise DataError(f"saliency.images[{number}]: damaged ({error}). Run the experiment again.") from error
    taps = ", ".join(f"{label} {tap}" for label, tap in zip(networks, result["saliency"].get("taps", ()), strict=False))
    alt = "Grad-CAM of " + "; ".join(
        f"{label}: " + ", ".join(f"{who} {told}" for who, (told, _) in zip(networks, heats, strict=True))
        for label, _, heats in rows
    )
    note = (
        f"Grad-CAM at {taps}: what of the maps speaks for the image’s label, from none (blue) to most (red); below, "
        "what the network says. Blue all over: nothing there speaks for it. A spiking network’s maps and logits are "
        "averaged over time."
    )
    return Group(
        "Where they look",
        wide=[
            Plot(Markup(panels.draw_saliency(networks, rows, f"{key}-saliency", alt)), "Evidence for the label", note)
        ],
    )
