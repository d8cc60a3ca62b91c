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
    """Find out, before the work whose rows it is to hold, that `write_rows` could not write a file.

    Raises:
        ConfigError: it cannot be written, or another lies there.
    """
    check_target(path, csv_table(HEADING, [])[1])


def write_rows(result: Conversion, path: Path) -> Path:
    """Write a line a network as CSV: its scheme, its settings as JSON, and its figures as `transpike.results.Row` has
    them, those of outputs by name as JSON too; the ANN first. What was not measured is left empty. Columns that begin
    with ``early_`` are those of `transpike.results.Early` at the required agreement.

    Raises:
        ConfigError: the file cannot be written, or another lies there.
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
