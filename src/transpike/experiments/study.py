"""``transpike study``: methods, settings, seeds, networks and data from one file; a queue of runs, a table, a page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from transpike.checks import whole
from transpike.errors import ConfigError
from transpike.experiments.options import Paths
from transpike.experiments.study_plan import Plan, read_plan
from transpike.experiments.study_runs import Task, run_all
from transpike.experiments.study_table import tabulate
from transpike.report import findings_table, write_arms, write_report
from transpike.results import Findings, RunFolder, copy_results, read_run, resume_run, start_run

__all__ = ["Study", "study"]


@dataclass(frozen=True)
class Study(Paths):
    """Run a study from one file. It compares methods, settings, networks or data in many runs, paired by seed.

    The file lists arms. An arm is one of the things that the study compares, with options of `transpike distill`,
    `train` or `hybrid`. `options` holds the options that all arms share. `over` holds options with several values:
    every arm runs with each combination of these values. `before` holds the runs that others need, such as a teacher.

    The study's folder has a subfolder for each run. Use the same command again to continue a stopped study, or to run
    the new runs of a changed file. Runs with unchanged options are not repeated. The folder receives results.json,
    arms.csv, runs.csv, and report.html with a table and the curves of all arms. The table shows each arm's mean
    accuracy over the seeds, the standard deviation, and the difference from the baseline with its 95 % interval
    (Student's t of the differences at each seed). The baseline is the arm that `baseline` names. The default is the
    first arm.

    Examples:
      transpike study studies/kd-seeds.yaml
      transpike study studies/bsd-controls.yaml --root ~/data --processes 4 --out runs/controls

    Attributes:
        file: The file of the study.
        processes: The number of runs at the same time.
        root: The folder of the data sets. The default is the root in the study's file.
        out: The study's folder. The default is a folder under runs/ with the file's name.
        json: Write a copy of results.json to this path.
    """

    file: Path
    processes: int = 1
    root: Path | None = None
    out: Path | None = None
    json: Path | None = None


def study(options: Study) -> Findings:
    """Run the unfinished runs of a study, and write its table and page.

    Returns:
        The content of results.json.

    Raises:
        ConfigError: The file or an option in it is wrong. Or a run failed; its name and the reason come after all other
            runs.
    """
    whole("processes", options.processes)
    plan = read_plan(options.file, root=options.root)
    folder = options.out or Path("runs") / options.file.stem
    failures: dict[str, str] = {}
    with _opened(folder, options, plan) as run, _going_on(folder):
        findings = _write(plan, run, failures)
        for tasks in _rounds(plan, folder):
            ready = [task for task in tasks if not _blocked(task, failures)]
            for task, failure in run_all(ready, options.processes):
                if failure:
                    failures[task.job.name] = failure
                findings = _write(plan, run, failures)
                _tell(task, findings, failure)
    Console(highlight=False).print(findings_table(findings))
    print(f"Written to {folder}; its page is {folder / 'report.html'}")
    copy_results(findings, options.json)
    if failures:
        name, reason = next(iter(failures.items()))
        raise ConfigError(f"{len(failures)} of the runs failed. {folder / name}: {reason}")
    return findings


def _opened(folder: Path, options: Study, plan: Plan) -> AbstractContextManager[RunFolder]:
    """Open the study's folder: a new one, or that of an earlier start of the study."""
    if not (folder / "run.json").is_file():
        return start_run(
            "study", {"file": options.file, "title": plan.title, "processes": options.processes}, out=folder
        )
    run = read_run(folder)
    if run is None or run.verb != "study":
        raise ConfigError(f"out={folder}: holds another run; name a new folder, or that of a study.")
    return resume_run(folder)


@contextmanager
def _going_on(folder: Path) -> Iterator[None]:
    """Print how to continue, if the user interrupts a study."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.add_note(f"Finished runs lie in {folder}. To continue: the same command.")
        raise


def _rounds(plan: Plan, folder: Path) -> list[list[Task]]:
    """Rounds of tasks that need only earlier rounds: first needed runs, then baselines if runs may be stopped."""
    rounds, placed = list[list[Task]](), set[str]()
    waiting = list(plan.before)
    while waiting:
        ready = [job for job in waiting if set(job.needs.values()) <= placed]
        rounds.append([Task(job, folder) for job in ready])
        placed |= {job.name for job in ready}
        waiting = [job for job in waiting if job not in ready]
    jobs = [(cell, cell.job) for cell in plan.cells if cell.job is not None]
    rivals = {(cell.setting, cell.seed): job.name for cell, job in jobs if cell.arm == plan.baseline}
    first = [Task(job, folder) for cell, job in jobs if cell.arm == plan.baseline or plan.stop is None]
    rest = [
        Task(job, folder, plan.stop, rivals.get((cell.setting, cell.seed)))
        for cell, job in jobs
        if cell.arm != plan.baseline and plan.stop is not None
    ]
    return [*rounds, first, rest]


def _blocked(task: Task, failures: dict[str, str]) -> bool:
    """Whether a task needs a failed one. Then it fails too."""
    for name, job in task.job.needs.items():
        if job in failures:
            failures[task.job.name] = f"${name} failed: {failures[job]}"
            return True
    return False


def _write(plan: Plan, run: RunFolder, failures: dict[str, str]) -> Findings:
    findings = tabulate(plan, run.folder, failures)
    run.write(findings)
    write_arms(findings, run.folder)
    write_report([run.folder], run.folder / "report.html", title=plan.title)
    return findings


def _tell(task: Task, findings: Findings, failure: str) -> None:
    """Print a line about a run that has ended."""
    outcomes = [(arm, one) for arm in findings.arms for one in arm.runs]
    left = f"{findings.state('waiting')} to go"
    for arm, one in outcomes:
        if one.folder == task.job.name:
            what = f"{100 * one.accuracy:.2f} %, {one.seconds or 0:.0f} s" if one.accuracy is not None else one.state
            print(f"{arm.label}{', ' * bool(arm.setting)}{arm.setting}, seed {one.seed}: {what}; {left}", flush=True)
            return
    print(f"{task.job.name}: {'failed' if failure else 'finished'}; {left}", flush=True)
