"""What `transpike analyze` found, as tables for the terminal and curves as CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from transpike.experiments.stages import CUTOFF
from transpike.files import write_csv

__all__ = ["analysis_tables", "write_curves"]


def write_curves(results: Mapping[str, Any], folder: Path) -> None:
    """The curves as CSV: features.csv, stages.csv, similarity.csv, logits.csv, neurons.csv."""
    names = [network["label"] for network in results["networks"]]
    features = [
        [names[stage["student"]], stage["tap"], names[curve["network"]] + " adapted" * curve["adapted"], *point]
        for stage in results["features"]
        for curve in stage["curves"]
        for point in _points(curve, "frequency", "power")
    ]
    stages = [
        [names[stage["student"]], stage["tap"], names[curve["network"]] + " adapted" * curve["adapted"], band, energy]
        for stage in results["stages"]
        for curve in stage["curves"]
        for band, energy in zip(stage["bands"], curve["energy"].tolist(), strict=True)
    ]
    similarity = [
        [names[one["student"]], "adapted" if one["adapted"] else "", tap, other, value]
        for one in results["similarity"]
        for tap, values in zip(one["taps"], one["cka"].tolist(), strict=True)
        for other, value in zip(one["teacher_taps"], values, strict=True)
    ]
    logits = [
        [names[curve["network"]], rank, *point]
        for curve in results["logits"]["curves"]
        for rank, point in enumerate(_points(curve, "mean", "high"), 1)
    ]
    responses = [
        [neuron["type"], *point, spikes]
        for neuron in results["neurons"]
        for point, spikes in zip(
            _points(neuron, "frequency", "expected", "measured_amplitude", "measured_power"),
            neuron["spikes"]["power"].tolist(),
            strict=True,
        )
    ]
    for name, heading, rows in (
        ("features", ("student", "tap", "maps", "frequency", "power"), features),
        ("stages", ("student", "tap", "maps", "band", "energy"), stages),
        ("similarity", ("student", "maps", "tap", "teacher_tap", "cka"), similarity),
        ("logits", ("network", "rank", "mean", "rms_high"), logits),
        ("neurons", ("neuron", "frequency", "expected", "amplitude", "power", "spike_power"), responses),
    ):
        if rows:
            write_csv(folder / f"{name}.csv", heading, rows)


def _points(curve: Mapping[str, Any], *names: str) -> list[tuple[float, ...]]:
    return list(zip(*(curve[name].tolist() for name in names), strict=True))


def analysis_tables(results: Mapping[str, Any]) -> list[Table | str]:
    """The results in short, for the terminal.

    "left" is what of the teacher's power SRD or SFKD leaves to the difference from it; 100 % is as far as silence.
    """
    names = [network["label"] for network in results["networks"]]
    parts: list[Table | str] = [
        _table("Logits in the teacher's order" if names[0] == "teacher" else "Logits in the first student's order",
               ("network", "accuracy", "rms", "rms high", "high: distance"),
               [(names[curve["network"]], f"{results['networks'][curve['network']]['accuracy']:.2%}",
                 *(f"{curve[name]:.3f}" for name in ("rms", "rms_high", "distance_high")))
                for curve in results["logits"]["curves"]]),
    ]  # fmt: skip
    if results["features"]:
        parts.append(_table(f"Features: share of the variance above {CUTOFF} cycles per pixel",
                            ("student", "stage", "teacher", "student", "adapted", "white", "left: low", "high"),
                            [_feature_row(names, stage) for stage in results["features"]], names=2))  # fmt: skip
    if results["similarity"]:
        parts.append(_table("CKA with the teacher's stage", ("student", "stage", "as it is", "adapted"),
                            _similarities(names, results), names=2))  # fmt: skip
    elif any(stage["teacher_tap"] for stage in results["features"]):
        parts.append("CKA is left out: it takes a batch of four images or more.")
    if results["filters"]:
        rows = [
            (names[one["network"]], one["tap"], one["domain"], _told(one["high_over_low"]))
            for one in results["filters"]
        ]
        parts.append(_table("SRD's filters", ("student", "stage", "domain", "|W2| high / low"), rows, names=3))
    for neuron in results["neurons"]:
        off = float((neuron["measured_amplitude"] / neuron["expected"] - 1).abs().max())
        kind = f"decay {neuron['decay']:g}" if neuron["decay"] < 1 else "no leak: |H| is an integrator's, not Eq. 3's"
        parts.append(
            f"{neuron['type']} ({kind}): the membrane follows |H| within {off:.1e}; "
            f"{neuron['spikes']['rate']:.2f} spikes per step when driven above threshold."
        )
    return parts


def _feature_row(names: Sequence[str], stage: Mapping[str, Any]) -> tuple[str, ...]:
    shares = {("adapted" if curve["adapted"] else names[curve["network"]]): curve["high"] for curve in stage["curves"]}
    own = names[stage["student"]]
    left = (stage["left"] or {}).get("after", (None, None))
    cells = (shares.get("teacher"), shares[own], shares.get("adapted"), stage["white_high"], *left)
    return own, stage["tap"], *(_told(cell, "{:.1%}") for cell in cells)


def _similarities(names: Sequence[str], results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Of each stage with the one that it learned from."""
    found = {
        (one["student"], one["adapted"], tap, other): value
        for one in results["similarity"]
        for tap, values in zip(one["taps"], one["cka"].tolist(), strict=True)
        for other, value in zip(one["teacher_taps"], values, strict=True)
    }
    places = [(stage["student"], stage["tap"], stage["teacher_tap"]) for stage in results["features"]]
    return [
        (names[student], tap, *(_told(found.get((student, adapted, tap, other))) for adapted in (False, True)))
        for student, tap, other in places
    ]


def _told(value: float | None, form: str = "{:.3g}") -> str:
    return "" if value is None else form.format(value)


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place >= names else "left", no_wrap=place < names)
    for row in rows:
        table.add_row(*row)
    return table
