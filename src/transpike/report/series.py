"""The curves of a conversion's rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from transpike.report.labels import label_schemes
from transpike.results import Conversion, Limits, Row

__all__ = ["FAITHFUL", "Series", "Source", "find_series", "front", "least", "picked", "representative"]

FAITHFUL = 0.995
"""The share of predictions equal to the ANN's from which a conversion is called faithful."""

Source = tuple[Conversion, str]
"""A conversion, and the folder that distinguishes it from similar ones."""


@dataclass(frozen=True)
class Series:
    """Rows that differ only in their number of steps, and so form one curve.

    Attributes:
        label: a label that distinguishes it from all other series of the page.
        short: a label that distinguishes it from those of the same network and images.
        rows: the rows by increasing steps.
        index: its position on the page, which determines its colour and marker.
    """

    label: str
    short: str
    rows: tuple[Row, ...]
    index: int

    @property
    def best(self) -> Row:
        """The row that represents the series, see `representative`."""
        return representative(self.rows)


def representative(rows: Iterable[Row]) -> Row:
    """Return the faithful row of least latency or, if none is faithful, the one with the most equal predictions."""

    def order(row: Row) -> tuple[float, int, float]:
        share = -1.0 if math.isnan(row.agreement) else row.agreement
        return -min(share, FAITHFUL), row.latency, -share

    return min(rows, key=order)


def picked(rows: Iterable[Row], limits: Limits) -> Row | None:
    """Return the row within limits with the most equal predictions, of several the one of least latency.

    The result is None if all exceed the limits.
    """
    within = (
        row for row in rows if limits.keep(latency=row.latency, payload_bits=row.spike_bits, energy=row.energy_uj)
    )
    return min(within, key=lambda row: (-row.agreement, row.latency), default=None)


def least(rows: Iterable[Row], loss_pp: float) -> Row | None:
    """Return the row of fewest steps that loses at most so many percentage points of accuracy, or None."""
    return min(
        (row for row in rows if row.loss_pp is not None and row.loss_pp <= loss_pp),
        key=lambda row: row.steps,
        default=None,
    )


def front(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points (cost, loss) that no other point beats in one and equals in the other, by increasing cost.

    Example:
        >>> front([(8, 1.0), (4, 2.0), (12, 1.5), (12, 0.5), (4, 3.0)])
        [(4, 2.0), (8, 1.0), (12, 0.5)]
    """
    best: list[tuple[float, float]] = []
    for cost, loss in sorted(points):
        if not best or loss < best[-1][1]:
            best.append((cost, loss))
    return best


def find_series(sources: Sequence[Source]) -> list[list[Series]]:
    """Return the series of each conversion, with labels from the differences between them. No label occurs twice."""
    groups: list[tuple[int, dict[str, object], list[Row]]] = []
    for number, (result, _) in enumerate(sources):
        rows_by_label: dict[str, list[Row]] = {}
        for row in result.rows:
            scheme = {**{name: value for name, value in row.scheme.items() if name != "steps"}, "spikes": row.spikes}
            rows_by_label.setdefault(json.dumps(scheme, sort_keys=True), []).append(row)
        groups += [(number, json.loads(key), rows) for key, rows in rows_by_label.items()]
    schemes, words = [scheme for _, scheme, _ in groups], [rows[0].words for _, _, rows in groups]
    places = [f"{sources[number][0].model} on {sources[number][0].dataset}" for number, _, _ in groups]
    labels, shorts = label_schemes(schemes, words, places), label_schemes(schemes, words)
    series: list[list[Series]] = [[] for _ in sources]
    for index, (number, _, rows) in enumerate(groups):
        label = labels[index]
        if labels.count(label) > 1:
            label += f" ({sources[number][1] or f'result {number + 1}'})"
        ordered = tuple(sorted(rows, key=lambda row: row.steps))
        series[number].append(Series(label, shorts[index], ordered, index))
    return series
