"""A conversion's rows as a table for other programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from transpike.files import check_target, csv_table, write_csv
from transpike.results import Conversion, Row

__all__ = ["check_rows", "write_rows"]

FIGURES = (
    *("steps", "latency", "latency_zero_delay", "interval", "spike_bits", "train_bits", "accuracy", "loss_pp"),
    *("agreement", "logit_error", "spikes_per_neuron", "synops", "energy_uj", "images_per_second"),
)
EARLY = ("agreement", "changed", "accuracy", "steps", "latency", "energy_uj")
HEADING = ("scheme", "settings", *FIGURES, "measures", "output_errors", *(f"early_{name}" for name in EARLY))


def check_rows(path: Path) -> None:
    """Check, before the work, that `write_rows` can write the file for its rows.

    Raises:
        ConfigError: It cannot be written, or is another kind of file.
    """
    check_target(path, csv_table(HEADING, [])[1])


def write_rows(result: Conversion, path: Path) -> Path:
    """Write a line for each network as CSV, the ANN first.

    A line has its scheme, its settings as JSON, and its figures as in `transpike.results.Row`, with those of outputs by
    name as JSON. Columns that begin with ``early_`` are those of `transpike.results.Early` at the required agreement.
    Figures that were not measured stay empty.

    Raises:
        ConfigError: The file cannot be written, or is another kind of file.
    """
    return write_csv(path, HEADING, _lines(result))


def _lines(result: Conversion) -> list[Sequence[object]]:
    ann = result.ann
    known = {"accuracy": ann.accuracy, "energy_uj": ann.energy_uj, "images_per_second": ann.images_per_second}
    return [["ann", "", *(known.get(name) for name in FIGURES), "", "", *("" for _ in EARLY)], *map(_line, result.rows)]


def _line(row: Row) -> Sequence[object]:
    settings = {name: value for name, value in row.scheme.items() if name != "name"}
    figures = [getattr(row, name) for name in FIGURES]
    early = [getattr(row.early[0], name) if row.early else "" for name in EARLY]
    return [row.scheme["name"], json.dumps(settings), *figures, *_objects(row.measures, row.output_errors), *early]


def _objects(*found: Mapping[str, float]) -> list[str]:
    return [json.dumps(dict(each)) if each else "" for each in found]
