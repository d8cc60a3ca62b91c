"""Computes a study's table from its runs: means and deviations over seeds, and differences paired by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from math import nan, sqrt
from pathlib import Path
from statistics import mean, stdev

from scipy.stats import t as student

from transpike.errors import DataError
from transpike.experiments.study_plan import Cell, Plan
from transpike.experiments.study_runs import finished, stopped
from transpike.results import Arm, Evaluation, Findings, Mean, MeanAt, Outcome, Training, read_result, read_run

__all__ = ["interval", "seeds_needed", "tabulate"]

POINT = 0.01


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of a mean by Student's t: mean -+ t(0.975, n - 1) * s / sqrt(n).

    Example:
        >>> [round(end, 4) for end in interval([1.0, 2.0, 3.0])]
        [-0.4841, 4.4841]
    """
    count = len(differences)
    half = float(student.ppf(0.975, count - 1)) * stdev(differences) / sqrt(count)
    return mean(differences) - half, mean(differences) + half


def seeds_needed(deviation: float, *, half: float = POINT, most: int = 1000) -> int:
    """Return the fewest seeds, at least two, whose `interval` extends at most ``half`` to either side.

    Example:
        >>> seeds_needed(0.01), seeds_needed(0.02)
        (7, 18)
    """
    return next((n for n in range(2, most) if student.ppf(0.975, n - 1) * deviation / sqrt(n) <= half), most)


def tabulate(plan: Plan, folder: Path, failures: Mapping[str, str]) -> Findings:
    """Return the table of the finished runs so far.

    Args:
        plan: the study's plan.
        folder: the study's folder.
        failures: why jobs failed, by name.
    """
    arms = []
    for setting, group in groupby(plan.cells, key=lambda cell: cell.setting):
        cells = list(group)
        cells_by_arm = {
            name: [cell for cell in cells if cell.arm == name] for name in dict.fromkeys(c.arm for c in cells)
        }
        rows = {name: [_outcome(cell, plan, folder, failures) for cell in own] for name, own in cells_by_arm.items()}
        base = _accuracies(rows[plan.baseline])
        arms += [_arm(plan, name, setting, runs, base, folder) for name, runs in rows.items()]
    return Findings(title=plan.title, measure=plan.measure, baseline=plan.baseline, arms=tuple(arms))


def _outcome(cell: Cell, plan: Plan, study: Path, failures: Mapping[str, str]) -> Outcome:
    """Return the outcome of a run."""
    if cell.job is None:
        assert cell.folder is not None
        result, run = _result(cell.folder), read_run(cell.folder)
        seed = run.seed if run is not None and run.seed is not None else 0
        return Outcome(seed=seed, state="finished", folder=str(cell.folder), **_figures(result, plan))  # type: ignore[arg-type]
    place, name = study / cell.job.name, cell.job.name
    if finished(place):
        return Outcome(seed=cell.seed, state="finished", folder=name, **_figures(_result(place), plan))  # type: ignore[arg-type]
    if reason := stopped(place, plan.stop if cell.arm != plan.baseline else None):
        return Outcome(seed=cell.seed, state="stopped", folder=name, note=reason)
    note = failures.get(name, "")
    return Outcome(seed=cell.seed, state="failed" if note else "waiting", folder=name, note=note)


def _result(folder: Path) -> Evaluation:
    result = read_result(folder)
    if not isinstance(result, Evaluation):
        raise DataError(f"{folder}: not the results of a trained network.")
    return result


def _figures(result: Evaluation, plan: Plan) -> dict[str, float | None]:
    seconds = sum(epoch.seconds for epoch in result.epochs) if isinstance(result, Training) else nan
    if plan.measure == "test":
        return {"accuracy": result.accuracy, "seconds": seconds}
    held_out = result.validation_accuracy if isinstance(result, Training) else None
    if held_out is None:
        raise DataError(f"{result.model} on {result.dataset}: no validation images, by which this study compares.")
    return {"accuracy": held_out, "seconds": seconds}


def _accuracies(runs: Sequence[Outcome]) -> dict[int, float]:
    return {run.seed: run.accuracy for run in runs if run.accuracy is not None}


def _arm(plan: Plan, name: str, setting: str, runs: Sequence[Outcome], base: Mapping[int, float], study: Path) -> Arm:
    own = _accuracies(runs)
    values = list(own.values())
    deviation = stdev(values) if len(values) > 1 else None
    pairs = [own[seed] - base[seed] for seed in own if seed in base] if name != plan.baseline else []
    low, high = interval(pairs) if len(pairs) > 1 else (None, None)
    spread = stdev(pairs) if len(pairs) > 1 else None
    if name == plan.baseline and deviation is not None:
        spread = sqrt(2) * deviation
    results = [_result(study / run.folder) for run in runs if run.state == "finished"]
    seconds = [run.seconds for run in runs if run.seconds is not None]
    return Arm(
        label=name,
        setting=setting,
        runs=tuple(runs),
        mean=mean(values) if values else None,
        deviation=deviation,
        difference=mean(pairs) if pairs else None,
        low=low,
        high=high,
        pairs=len(pairs),
        seeds_for_point=None if spread is None else seeds_needed(spread),
        seconds=mean(seconds) if seconds else None,
        curves=_curves([one for one in results if isinstance(one, Training)]),
        by_steps=_by_steps(results) if plan.measure == "test" else (),
    )


def _curves(results: Sequence[Training]) -> tuple[Mean, ...]:
    """Return means by epoch, for the epochs that all results have."""
    rows = []
    for epochs in zip(*(one.epochs for one in results), strict=False):
        held_out = [epoch.validation_accuracy for epoch in epochs if epoch.validation_accuracy is not None]
        rows.append(
            Mean(
                epoch=epochs[0].epoch,
                loss=mean(epoch.loss for epoch in epochs),
                train_accuracy=mean(epoch.train_accuracy for epoch in epochs),
                validation_accuracy=mean(held_out) if len(held_out) == len(epochs) else None,
            )
        )
    return tuple(rows)


def _by_steps(results: Sequence[Evaluation]) -> tuple[MeanAt, ...]:
    """Return means by T, for the T at which all were tested."""
    tested = [{row.steps: row.accuracy for row in one.by_steps} for one in results]
    common = [steps for steps in tested[0] if all(steps in one for one in tested)] if tested else []
    return tuple(MeanAt(steps=steps, accuracy=mean(one[steps] for one in tested)) for steps in common)
