"""The page's section of answers that stop when they are sure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from markupsafe import Markup

from transpike.errors import DataError
from transpike.report import panels, plots
from transpike.report.parts import ADAPTED, Group, Plot, line_legend, spoken
from transpike.report.series import Series
from transpike.report.wording import count, fixed, microjoules, percent
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

BESIDE = (
    *("code", "changed", "accuracy", "full run", "mean steps", "mean latency", "full run", "energy (µJ)", "full run"),
)

Figure: TypeAlias = Callable[[Early], float | None]
DRAWN: tuple[tuple[Callable[[Early], float], str, Figure, str], ...] = (
    (lambda one: one.steps, "mean steps", lambda one: 100 * one.changed, "answers changed (%)"),
    (lambda one: one.latency, "mean latency (steps)", lambda one: 100 * one.changed, "answers changed (%)"),
    (lambda one: one.steps, "mean steps", lambda one: one.energy_uj, "energy (µJ)"),
)


ACROSS: tuple[tuple[Callable[[Early], float], Callable[[Row], float], str], ...] = (
    (lambda one: one.steps, lambda row: row.steps, "mean steps"),
    (lambda one: one.latency, lambda row: row.latency, "mean latency (steps)"),
)
TOGETHER: tuple[tuple[Figure, Callable[[Row], float | None], str], ...] = (
    (
        lambda one: None if one.accuracy is None else 100 * one.accuracy,
        lambda row: None if row.early[-1].accuracy is None else 100 * row.early[-1].accuracy,
        "accuracy (%)",
    ),
    (lambda one: one.energy_uj, lambda row: row.early[-1].energy_uj, "energy (µJ)"),
)


def early_groups(named: Sequence[tuple[str, Series]], key: str) -> list[Group]:
    """Return groups of rows with early answers: one of all rows if there are several, and one of each code's best."""
    every = [(label, row) for label, one in named for row in one.rows if row.early or row.unstreamed]
    rows = [(f"{label}, T = {row.steps}", row) for label, row in every if row.early]
    if len(every) < 2:
        return [_group(label, row, f"{key}-early-{k}") for k, (label, row) in enumerate(rows)]
    best = [(f"{label}, T = {one.best.steps}", one.best) for label, one in named if one.best.early]
    single = [_group(label, row, f"{key}-early-{k}") for k, (label, row) in enumerate(best)]
    return [_together(named, every, f"{key}-early"), *single]


def _together(named: Sequence[tuple[str, Series]], every: Sequence[tuple[str, Row]], key: str) -> Group:
    """Return all codes at the required agreement, compared with their full runs of T steps."""
    drawings, drawn = list[Plot](), list[plots.Line]()
    for value, fixed_value, measure in TOGETHER:
        for x, full, axis in ACROSS:
            lines = []
            for label, one in named:
                rows = [row for row in one.rows if row.early]
                points = ((x(row.early[0]), value(row.early[0])) for row in rows)
                lines.append(plots.curve(f"{label}, each when sure", one.index, points))
                points = ((full(row), fixed_value(row)) for row in rows)
                lines.append(plots.curve(f"{label}, full runs", one.index + ADAPTED, points))
            lines = [line for line in lines if line.points]
            if lines:
                drawn = lines
                alt = f"{measure} against {axis}. {spoken(lines, axis)}"
                svg = plots.draw_lines(lines, f"{key}-all-{len(drawings)}", alt, titles=(axis, measure), whole=False)
                drawings.append(Plot(Markup(svg), f"{measure.partition(' (')[0].capitalize()} against {axis}"))
    note = (
        "Each image stops as soon as its answer is sure, by the same rule for every code. Dashed lines: full runs of T "
        "steps. Held-out images set the thresholds, and the other images give the figures. Latency includes the waits "
        "of the layers."
    )
    cells = [(f"{label}, T = {row.steps}", *_beside(row)) for label, row in every]
    return Group("Answers before the last step, code beside code", note, legend=line_legend(drawn, f"{key}-all"),
                 plots=drawings, columns=BESIDE, rows=cells)  # fmt: skip


def _beside(row: Row) -> Sequence[str]:
    if not row.early:
        return row.unstreamed, *"–––––––"
    one, whole = row.early[0], row.early[-1]
    return (percent(one.changed), percent(one.accuracy), percent(whole.accuracy), fixed(one.steps), fixed(one.latency),
            f"{row.latency}", microjoules(one.energy_uj), microjoules(whole.energy_uj))  # fmt: skip


def _group(label: str, row: Row, key: str) -> Group:
    sure = sorted((one for one in row.early if one.agreement is not None), key=lambda one: one.steps)
    fixed_step = [one for one in row.early if one.agreement is None]
    drawings: list[Plot] = []
    for x, axis, value, measure in DRAWN:
        lines = [
            plots.curve(name, index, ((x(one), value(one)) for one in each))
            for index, (name, each) in enumerate((("each when sure", sure), ("one step for all", fixed_step)))
        ]
        if any(line.points for line in lines):
            alt = f"{label}: {measure} against {axis}. {spoken(lines, axis)}"
            scale = "loss" if "%" in measure else "linear"
            name = f"{key}-{len(drawings)}"
            svg = plots.draw_lines(lines, name, alt, titles=(axis, measure), scale=scale, whole=False)
            drawings.append(Plot(Markup(svg), f"{measure.partition(' (')[0].capitalize()} against {axis}"))
    note = (
        f"Each of {count(row.early[0].images)} images stops as soon as its answer is sure. Held-out images set the "
        "threshold: the expected share of answers that differ from those of full runs is at most one minus the "
        "agreement. In the last rows all images stop at the same step. Latency includes the waits of the layers."
    )
    return Group(f"Answers before the last step: {label}", note, legend=line_legend(lines, key), plots=drawings,
                 wide=_pictures(row, key),
                 columns=COLUMNS, rows=[_cells(one) for one in row.early])  # fmt: skip


def _pictures(row: Row, key: str) -> list[Plot]:
    """Return plots of the easiest and the hardest images."""
    half, drawings = len(row.pictured) // 2, []
    for name, some in (("Surest", row.pictured[:half]), ("Least sure", row.pictured[half:])):
        try:
            pictures = [panels.read_png(one.png) for one in some]
        except ValueError as error:
            raise DataError(f"pictured: a picture cannot be read: {error}") from error
        if pictures:
            titles = [f"{one.label}: {one.steps}" for one in some]
            svg = panels.draw_pictures(titles, [pictures], f"{key}-{name[:5].lower()}", f"{name}: {', '.join(titles)}.")
            drawings.append(Plot(Markup(svg), f"{name} images, and the steps that they took"))
    return drawings


def _cells(one: Early) -> Sequence[str]:
    name = f"step {one.steps:g} for all" if one.agreement is None else f"agreement {percent(one.agreement)}"
    stops = ", ".join(map(str, one.stopped)) if one.agreement is not None else ""
    error = fixed(100 * one.changed_error)
    return (name, percent(one.changed), error, percent(one.accuracy), fixed(one.steps), fixed(one.latency),
            microjoules(one.energy_uj), stops)  # fmt: skip
