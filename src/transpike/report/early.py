"""What the page says of answers that are taken as soon as they are sure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from markupsafe import Markup

from transpike.report import plots
from transpike.report.parts import Group, Plot, line_legend, spoken
from transpike.report.series import Series
from transpike.report.wording import count, fixed, percent
from transpike.results import Early, Row

__all__ = ["early_groups"]

COLUMNS = (
    "answers",
    "changed",
    "± (pp)",
    "accuracy",
    "mean steps",
    "mean latency",
    "energy (µJ)",
    "stopped after step 1, 2, …",
)

Figure: TypeAlias = Callable[[Early], float | None]
DRAWN: tuple[tuple[Callable[[Early], float], str, Figure, str], ...] = (
    (lambda one: one.steps, "mean steps", lambda one: 100 * one.changed, "answers changed (%)"),
    (lambda one: one.latency, "mean latency (steps)", lambda one: 100 * one.changed, "answers changed (%)"),
    (lambda one: one.steps, "mean steps", lambda one: one.energy_uj, "energy (µJ)"),
)


def early_groups(named: Iterable[tuple[str, Series]], key: str) -> list[Group]:
    """A group for each row that was measured so; `key` is the section's own on the page."""
    rows = [(f"{label}, T = {row.steps}", row) for label, one in named for row in one.rows if row.early]
    return [_group(label, row, f"{key}-early-{k}") for k, (label, row) in enumerate(rows)]


def _group(label: str, row: Row, key: str) -> Group:
    sure = sorted((one for one in row.early if one.agreement is not None), key=lambda one: one.steps)
    fixed_step = [one for one in row.early if one.agreement is None]
    found: list[Plot] = []
    for x, axis, value, measure in DRAWN:
        lines = [
            plots.curve(name, index, ((x(one), value(one)) for one in each))
            for index, (name, each) in enumerate((("each when sure", sure), ("one step for all", fixed_step)))
        ]
        if any(line.points for line in lines):
            alt = f"{label}: {measure} against {axis}. {spoken(lines, axis)}"
            scale = "loss" if "%" in measure else "linear"
            name = f"{key}-{len(found)}"
            svg = plots.draw_lines(lines, name, alt, titles=(axis, measure), scale=scale, whole=False)
            found.append(Plot(Markup(svg), f"{measure.partition(' (')[0].capitalize()} against {axis}"))
    note = (
        f"Each of {count(row.early[0].images)} images stops when its answer is sure. Held-out ones set the threshold, "
        "so that the expected share of answers that differ from those of full runs is at most what was asked. In the "
        "last rows all images stop at one step. Latency includes the waits of the layers."
    )
    return Group(f"Answers before the last step: {label}", note, legend=line_legend(lines, key), plots=found,
                 columns=COLUMNS, rows=[_cells(one) for one in row.early])  # fmt: skip


def _cells(one: Early) -> Sequence[str]:
    name = f"step {one.steps:g} for all" if one.agreement is None else f"agreement {percent(one.agreement)}"
    stops = ", ".join(map(str, one.stopped)) if one.agreement is not None else ""
    error = fixed(100 * one.changed_error)
    return (name, percent(one.changed), error, percent(one.accuracy), fixed(one.steps), fixed(one.latency),
            fixed(one.energy_uj), stops)  # fmt: skip
