"""Results as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

__all__ = ["conversion_table", "levels_name"]

HEADINGS = (
    *("T", "lat-\nency", "accu-\nracy%", "loss\npp", "same\npred.%"),
    *("spikes\n/neur.", "Syn-\nOps", "energy\nµJ", "of\nANN", "img/s"),
)


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
