"""Results as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

__all__ = ["analysis_tables", "conversion_table", "levels_name", "operations_table", "spiking_tables", "summary"]

HEADINGS = (
    *("T", "lat-\nency", "accu-\nracy%", "loss\npp", "same\npred.%"),
    *("spikes\n/neur.", "Syn-\nOps", "energy\nµJ", "of\nANN", "img/s"),
)
COLUMNS = ("macs", "accumulates", "multiplications", "shifts")
CUTOFF = 0.25
"""Cycles per pixel above which `transpike analyze` calls frequencies high."""


def conversion_table(results: Mapping[str, Any]) -> Table:
    """The rows of a conversion, the ANN first; counts and energy are means per image."""
    ann, rows = results["ann"], results["rows"]
    betas = sorted({row["scheme"]["beta"] for row in rows})
    table = Table(
        title=f"{results['model']} on {results['dataset']}, {results['images']} test images; "
        f"beta {', '.join(f'{beta:g}' for beta in betas)}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
        pad_edge=False,
    )
    table.caption = f"spikes, SynOps and energy are means over the first {rows[0]['layer_images']} images"
    table.caption_justify = "left"
    table.add_column("", no_wrap=True)
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True, min_width=max(map(len, heading.split("\n"))))
    speed = f"{ann['images_per_second']:.0f}"
    table.add_row("ANN", "", "", _percent(ann["accuracy"]), "", "", "", "", f"{ann['energy_uj']:.3g}", "", speed)
    for row in rows:
        table.add_row(
            _name(row["scheme"], betas),
            str(row["steps"]),
            str(row["latency"]),
            _percent(row["accuracy"]),
            "" if row["loss_pp"] is None else f"{row['loss_pp']:.2f}",
            _percent(row["agreement"]),
            f"{row['spikes_per_neuron']:.2f}",
            _count(row["synops"]),
            f"{row['energy_uj']:.3g}",
            f"{row['energy_uj'] / ann['energy_uj']:.0%}",
            f"{row['images_per_second']:.0f}",
        )
    return table


def levels_name(levels: Sequence[int]) -> str:
    """``1,2,4,8``; the integers from 1 to 64 are ``1..64``."""
    consecutive = len(levels) > 3 and levels[-1] == len(levels)
    return f"1..{levels[-1]}" if consecutive else ",".join(map(str, levels))


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _count(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def _name(scheme: Mapping[str, Any], betas: list[float]) -> str:
    """What sets a row apart: its spikes, silent steps and, where they differ, beta."""
    levels = "ternary" if list(scheme["levels"]) == [1] else levels_name(scheme["levels"])
    beta = f" β{scheme['beta']:g}" if len(betas) > 1 else ""
    return f"{levels}{'' if scheme['signed'] else ' unsigned'} Ts={scheme['silent']}{beta}"


def summary(results: Mapping[str, Any]) -> str:
    """The accuracy of a trained network as the beginning of a sentence."""
    at = f" at T = {results['spiking']['steps']}" if "spiking" in results else ""
    right = f"{results['accuracy']:.2%} of {results['images']} test images right{at}"
    return f"{results['model']} on {results['dataset']}: {right}"


def spiking_tables(results: Mapping[str, Any]) -> list[Table | str]:
    """Firing by layer, operations and accuracy by T, of the results of `transpike train`, for the terminal."""
    spiking = results["spiking"]
    firing = Table(title=f"Firing at T = {spiking['steps']}", title_justify="left", box=box.SIMPLE_HEAD)
    firing.add_column("layer")
    for heading in ("neurons", "spikes per neuron and step"):
        firing.add_column(heading, justify="right")
    for layer in [*spiking["layers"], {"name": "all", **spiking}]:
        firing.add_row(layer["name"], str(layer["neurons"]), f"{layer['rate']:.3f}")
    work = (
        f"An image takes {spiking['synops'] / 1e6:.3g} M SynOps and {spiking['macs'] / 1e6:.3g} M MACs, "
        f"{spiking['energy_uj']:.3g} µJ; as an ANN {spiking['ann_macs'] / 1e6:.3g} M MACs, "
        f"{spiking['ann_energy_uj']:.3g} µJ (45 nm model)."
    )
    steps = Table(box=box.SIMPLE_HEAD)
    for row in results["by_steps"]:
        steps.add_column(f"T = {row['steps']}", justify="right")
    steps.add_row(*(f"{row['accuracy']:.2%}" for row in results["by_steps"]))
    return [firing, work, steps]


def operations_table(operations: Mapping[str, Any]) -> Table:
    """For the terminal: one image's operations in millions, and their energy in microjoules."""
    (_, *image), (_, *laid_out) = operations["image"], operations["input"]
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
    for row in operations["rows"]:
        counts = (f"{row[column] / 1e6:.3g}" if row[column] else "" for column in COLUMNS)
        name = names.get(row["part"], f"spiking: {row['part']}")
        table.add_row(name, *counts, f"{row['energy_uj']:.3g}")
    return table


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
