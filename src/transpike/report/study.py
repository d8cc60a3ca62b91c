"""The page's section of a study: arms side by side, their differences from the baseline, their curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

from markupsafe import Markup
from rich import box
from rich.markup import escape
from rich.table import Table

from transpike.files import write_csv
from transpike.report import plots
from transpike.report.intervals import Difference, draw_differences
from transpike.report.parts import Group, Plot, Section, line_legend, spoken
from transpike.report.wording import ABSENT, count, fixed, known
from transpike.results import Arm, Findings, Outcome

__all__ = ["ARM_COLUMNS", "arm_cells", "describe_study", "findings_table", "write_arms"]

ARM_COLUMNS = (
    "",
    "seeds",
    "accuracy (%)",
    "minus the baseline (points)",
    "95 % interval",
    "seeds for ±1 point",
    "clock, s a run",
)
NUMBERS = ("mean", "deviation", "difference", "low", "high", "pairs", "seeds_for_point", "seconds")


def describe_study(result: Findings, key: str) -> Section:
    """Return the section of a study. `key` must be unique on the page."""
    runs = [run for arm in result.arms for run in arm.runs]
    states = [f"{result.state(state)} {state}" for state in ("stopped", "failed", "waiting") if result.state(state)]
    done = f"{result.state('finished')} of {len(runs)} runs finished{''.join(f', {state}' for state in states)}"
    groups = []
    for number, (setting, group) in enumerate(groupby(result.arms, key=lambda arm: arm.setting)):
        arms = list(group)
        groups.append(_group(result, setting, arms, f"{key}-{number}"))
        groups += _at_steps(setting, arms)
    if noted := [run for run in runs if run.note]:
        rows = [(run.folder, str(run.seed), run.state, run.note) for run in noted]
        groups.append(Group("Runs without a result", columns=("run", "seed", "state", "why"), rows=rows))
    colon = "" if result.title.endswith(("?", "!", ".")) else ":"
    return Section(headline=f"{result.title}{colon} {done}.", groups=groups)


def _group(result: Findings, setting: str, arms: Sequence[Arm], key: str) -> Group:
    lines = {
        "accuracy": [
            _line(arm, index, lambda epoch: _percent(epoch.validation_accuracy)) for index, arm in enumerate(arms)
        ],
        "training": [_line(arm, index, lambda epoch: _percent(epoch.train_accuracy)) for index, arm in enumerate(arms)],
        "loss": [_line(arm, index, lambda epoch: epoch.loss) for index, arm in enumerate(arms)],
    }
    titles = {
        "accuracy": "validation accuracy (%)",
        "training": "training accuracy (%)",
        "loss": "loss, all terms together",
    }
    drawn = [
        _plot(lines[name], key, name, ("epoch", titles[name]), "log" if name == "loss" else "linear")
        for name in lines
        if any(line.points for line in lines[name])
    ]
    by_steps = [
        plots.curve(arm.label, index, ((row.steps, 100 * row.accuracy) for row in arm.by_steps))
        for index, arm in enumerate(arms)
    ]
    if any(len(line.points) > 1 for line in by_steps):
        drawn.append(_plot(by_steps, key, "by-steps", ("T at the test", "accuracy (%)"), "linear"))
    if differences := _differences(result, arms):
        drawn.insert(0, _plot_differences(differences, result.baseline, key))
    return Group(
        heading=setting or "Arms",
        note=f"{_verdict(result, arms)}Accuracy on {result.measure} images, mean ± sample deviation over seeds. "
        f"Differences are those from {result.baseline} at the same seed; the interval is Student’s t of them, at 95 %: "
        "of twenty arms that differ in nothing, about one leaves out 0. “Seeds for ±1 point” are as many as give an "
        "interval of that width; the baseline’s number is for two arms that are not paired. The clock’s seconds depend "
        "on what else the machine did. Curves are means over finished runs.",
        legend=line_legend(by_steps, key),
        plots=drawn,
        columns=ARM_COLUMNS,
        rows=[arm_cells(arm) for arm in arms],
    )


def _at_steps(setting: str, arms: Sequence[Arm]) -> list[Group]:
    """Return a table of the spiking arms' accuracies at each T, or nothing if all are tested at one T."""
    numbers = sorted({row.steps for arm in arms for row in arm.by_steps})
    if len(numbers) < 2:
        return []
    rows = []
    for arm in arms:
        found = {row.steps: _percent(row.accuracy) for row in arm.by_steps}
        if found:
            rows.append((arm.label, *(fixed(found.get(steps)) for steps in numbers)))
    heading = f"Accuracy by T{f', {setting}' if setting else ''}"
    note = "Test accuracy (%), mean over seeds, of networks that were trained once, run for each number of steps."
    return [Group(heading, note, columns=("", *(f"T = {steps}" for steps in numbers)), rows=rows)]


def _verdict(result: Findings, arms: Sequence[Arm]) -> str:
    """Return which arms differ from the baseline. The text is empty if no interval is known."""
    compared = [arm for arm in arms if known(arm.low) and known(arm.high)]
    if not compared:
        return ""
    above = [arm.label for arm in compared if arm.low is not None and arm.low > 0]
    below = [arm.label for arm in compared if arm.high is not None and arm.high < 0]
    if not above and not below:
        return f"These runs show no difference from {result.baseline}: every interval contains 0. "
    parts = [
        f"{where} {result.baseline}: {', '.join(names)}."
        for where, names in (("Above", above), ("Below", below))
        if names
    ]
    return f"{' '.join(parts)} "


def _differences(result: Findings, arms: Sequence[Arm]) -> list[Difference]:
    """Return the differences of the arms that share seeds with the baseline, in percentage points."""
    base = {run.seed: run.accuracy for arm in arms if arm.label == result.baseline for run in arm.runs}
    rows = []
    for index, arm in enumerate(arms):
        if arm.difference is None:
            continue
        own = ((run.accuracy, base.get(run.seed)) for run in arm.runs)
        seeds = tuple(100 * (one - other) for one, other in own if one is not None and other is not None)
        ends = (100 * arm.low, 100 * arm.high) if arm.low is not None and arm.high is not None else None
        rows.append(Difference(arm.label, index, seeds, 100 * arm.difference, ends))
    return rows


def _plot_differences(rows: Sequence[Difference], baseline: str, key: str) -> Plot:
    told = (f"{row.label}: {row.mean:+.2f}" for row in rows)
    alt = f"Difference from {baseline} in points, mean over seeds. {'; '.join(told)}."
    return Plot(
        Markup(draw_differences(rows, f"{key}-differences", alt)),
        f"Points above {baseline}, each seed’s and 95 % interval",
    )


def arm_cells(arm: Arm) -> tuple[str, ...]:
    """Return an arm's row, with the columns of `ARM_COLUMNS`.

    Example:
        >>> arm_cells(Arm(label="kd", runs=(), mean=0.5, deviation=0.01))
        ('kd', '0', '50.00 ± 1.00', '–', '–', '–', '–')
    """
    finished = sum(run.state == "finished" for run in arm.runs)
    mean = fixed(_percent(arm.mean)) + (f" ± {fixed(_percent(arm.deviation))}" if known(arm.deviation) else "")
    ends = f"{_signed(arm.low)} to {_signed(arm.high)}" if known(arm.low) and known(arm.high) else ABSENT
    needed = ABSENT if arm.seeds_for_point is None else str(arm.seeds_for_point)
    return arm.label, str(finished), mean, _signed(arm.difference), ends, needed, count(arm.seconds)


def findings_table(result: Findings) -> Table:
    """Return the arms for the terminal, by setting."""
    table = Table(title=f"{result.title}: {result.measure} images", title_justify="left", box=box.SIMPLE_HEAD)
    table.caption = f"differences are from {result.baseline}, paired by seed; ± is the deviation over seeds"
    for index, column in enumerate(ARM_COLUMNS):
        table.add_column(column, justify="right" if index else "left")
    for setting, group in groupby(result.arms, key=lambda arm: arm.setting):
        if setting:
            table.add_row(f"[bold]{escape(setting)}")
        for arm in group:
            name, *cells = arm_cells(arm)
            table.add_row(escape(name), *cells)
    return table


def write_arms(result: Findings, folder: Path) -> None:
    """Write arms.csv, runs.csv and, of spiking networks, steps.csv into a study's folder.

    They have a line for each arm, for each run, and for each arm and T.

    Raises:
        ConfigError: A file cannot be written, or is another kind of file.
    """
    heading = ("setting", "arm", "seeds", *NUMBERS)
    lines = [
        (arm.setting, arm.label, len(_finished(arm)), *(getattr(arm, name) for name in NUMBERS)) for arm in result.arms
    ]
    write_csv(folder / "arms.csv", heading, lines)
    names = ("seed", "state", "accuracy", "seconds", "folder", "note")
    rows = [
        (arm.setting, arm.label, *(getattr(run, name) for name in names)) for arm in result.arms for run in arm.runs
    ]
    write_csv(folder / "runs.csv", ("setting", "arm", *names), rows)
    if steps := [(arm.setting, arm.label, row.steps, row.accuracy) for arm in result.arms for row in arm.by_steps]:
        write_csv(folder / "steps.csv", ("setting", "arm", "steps", "accuracy"), steps)


def _finished(arm: Arm) -> list[Outcome]:
    return [run for run in arm.runs if run.state == "finished"]


def _line(arm: Arm, index: int, value: Callable[..., float | None]) -> plots.Line:
    return plots.curve(arm.label, index, ((epoch.epoch, value(epoch)) for epoch in arm.curves))


def _plot(lines: Sequence[plots.Line], key: str, name: str, titles: tuple[str, str], scale: str) -> Plot:
    x, y = titles
    alt = f"{y} by {x}. {spoken(lines, x)}"
    svg = plots.draw_lines(lines, f"{key}-{name}", alt, titles=titles, scale=scale)
    return Plot(Markup(svg), f"{y[0].upper()}{y[1:]} by {x}")


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _signed(share: float | None) -> str:
    if not known(share):
        return ABSENT
    return f"{'+' if share > 0 else ''}{fixed(100 * share)}"
