"""Reads and checks a study's file: every run in it becomes options of `train`, `distill` or `hybrid`."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from yaml import YAMLError

from transpike.checks import choice, listed, near, number, refuse, shown, whole
from transpike.errors import ConfigError, TranspikeError
from transpike.experiments import hybrid_options, learning
from transpike.experiments.distill import Distill, Teaching, check_settings
from transpike.experiments.hybrid_options import Hybrid
from transpike.experiments.options import parsed
from transpike.experiments.train import Train
from transpike.files import plain, read_text
from transpike.files.yaml import LARGEST, first_line, load_yaml
from transpike.train.options import Arguments, checked_seed

__all__ = ["Cell", "Job", "Plan", "Stop", "Verb", "read_plan"]

Verb: TypeAlias = Train | Distill | Hybrid
VERBS: dict[str, type[Verb]] = {"train": Train, "distill": Distill, "hybrid": Hybrid}
KEYS = ("title", "verb", "options", "before", "over", "arms", "seeds", "baseline", "measure", "stop")
PLACES = ("resume", "out", "json", "root", "download", "cache")
"""The options that do not distinguish runs."""

OF_TEACHING = [one.name for one in fields(Teaching)]


@dataclass(frozen=True)
class Job:
    """A run: its options, except for its place.

    Attributes:
        name: the name of its folder in the study's folder. Equal options give equal names.
        verb: the command.
        options: the command's options. A value `$NAME` is the folder of the job with this name.
        needs: folders of jobs that must be finished before, by their names in the options.
    """

    name: str
    verb: str
    options: Arguments
    needs: Mapping[str, str] = field(default_factory=dict)

    def settled(self, folder: Path) -> Verb:
        """Return the command's options, with the folders of the jobs that it needs."""
        places = {f"${name}": str(folder / job) for name, job in self.needs.items()}
        return _parsed(self.verb, _filled(self.options, places), self.name)


@dataclass(frozen=True)
class Cell:
    """An arm at a setting and a seed. Its run is a job, or an existing folder."""

    arm: str
    setting: str
    seed: int
    job: Job | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class Stop:
    """A run is hopeless if it is `behind` points of validation accuracy below the baseline, from epoch `after` on."""

    after: int
    behind: float

    def __post_init__(self) -> None:
        whole("stop.after", self.after)
        number("stop.behind", self.behind, above=0)


@dataclass(frozen=True)
class Plan:
    """The content of a study's file.

    Attributes:
        title: the title of the study.
        measure: the figure that is compared.
        baseline: the label of an arm.
        before: jobs that others need, each after the jobs that it needs.
        cells: every run, by setting and seed. For each seed the baseline comes first.
        stop: when a run is hopeless. None for never.
    """

    title: str
    measure: Literal["test", "validation"]
    baseline: str
    before: tuple[Job, ...]
    cells: tuple[Cell, ...]
    stop: Stop | None


def read_plan(path: Path, *, root: Path | None = None) -> Plan:
    """Read the plan of a study's file. Every run's options are checked before anything runs.

    Args:
        path: the file.
        root: the folder of the data sets for all runs. None to use that of the file.

    Raises:
        ConfigError: The message names the file, the key or the arm, the problem, and for a wrong key the nearest.
    """
    text = read_text(path, error=ConfigError, largest=LARGEST)
    try:
        content = load_yaml(text)
    except YAMLError as error:
        raise ConfigError(f"{path}: {first_line(error)}") from error
    try:
        return _plan(_mapping("the file", content, KEYS), path.stem, {} if root is None else {"root": str(root)})
    except TranspikeError as error:
        raise type(error)(f"{path}: {error}") from error


def _plan(content: Arguments, stem: str, always: Arguments) -> Plan:
    verb = choice("verb", content.get("verb", "distill"), VERBS)
    common = _mapping("options", content.get("options", {}))
    arms = {
        str(name): _mapping(f"arms.{name}", arm or {}) for name, arm in _mapping("arms", content.get("arms")).items()
    }
    if not arms:
        raise refuse("arms", arms, "a mapping of labels to options")
    baseline = choice("baseline", content.get("baseline", next(iter(arms))), arms)
    measure = choice("measure", content.get("measure", "test"), ("test", "validation"))
    seeds = _seeds(content.get("seeds", 1))
    stop = content.get("stop")
    rule = Stop(**_mapping("stop", stop, ("after", "behind"), whole=True)) if stop is not None else None
    before = _mapping("before", content.get("before", {}))
    maker = _Maker(verb, {name: _mapping(f"before.{name}", job) for name, job in before.items()}, always)
    cells = []
    ordered = sorted(arms, key=lambda name: name != baseline)
    for setting, chosen, values in _settings(_mapping("over", content.get("over", {}))):
        for seed in seeds:
            for name in ordered:
                if "runs" not in arms[name]:
                    job = maker.job(name, _merged(common, chosen, arms[name]), values, seed)
                    cells.append(Cell(name, setting, seed, job))
        for name in ordered:
            if "runs" in arms[name]:
                _mapping(f"arms.{name}", arms[name], ("runs",))
                cells += [Cell(name, setting, -1, folder=Path(str(run))) for run in _list(name, arms[name]["runs"])]
    if rule is not None and any(cell.job is not None and cell.job.verb == "hybrid" for cell in cells):
        raise ConfigError("stop: runs of `transpike hybrid` are trained to the end; omit it.")
    return Plan(str(content.get("title", stem)), measure, baseline, tuple(maker.before.values()), tuple(cells), rule)  # type: ignore[arg-type]


class _Maker:
    """Creates jobs, and each job that they need once."""

    def __init__(self, verb: str, needed: Mapping[str, Arguments], always: Arguments) -> None:
        self.verb, self.needed, self.always = verb, needed, always
        self.before: dict[str, Job] = {}

    def job(self, label: str, options: Arguments, values: Mapping[str, object], seed: int, *, main: bool = True) -> Job:
        """Return a job. ``values`` are those of the study's settings, by name."""
        options = {**options, **self.always}
        verb = choice(f"{label}: verb", options.pop("verb", self.verb if main else "train"), VERBS)
        if main:
            options.setdefault("seed", seed)
            if verb == "train" and self.verb == "distill":  # a student without its teacher
                options = {"model": options.get("student", Distill.student), **options}
                options = {name: value for name, value in options.items() if name not in OF_TEACHING}
        options = _filled(options, {f"${name}": value for name, value in values.items()} | {"$seed": seed})
        needs = {name: self._needed(name, values, seed, label) for name in _names(options)}
        settled = _parsed(verb, options, label)
        record = json.dumps([verb, _changed(settled), needs], sort_keys=True)
        slug = _slug(_kind(settled) if main else label)  # an arm of another label with the same options is the same run
        name = f"{slug}-seed{settled.seed}-{hashlib.sha256(record.encode()).hexdigest()[:8]}"
        return Job(name, verb, options, needs)

    def _needed(self, name: str, values: Mapping[str, object], seed: int, label: str) -> str:
        if name not in self.needed:
            known = ["seed", *values, *self.needed]
            raise ConfigError(f"{label}: ${name} is not in this file.{near(name, known)} There is {listed(known)}.")
        job = self.job(name, self.needed[name], values, seed, main=False)
        return self.before.setdefault(job.name, job).name


def _settings(over: Mapping[str, object]) -> Iterator[tuple[str, Arguments, Arguments]]:
    """Yield each combination of the settings: its label, its options, and its values by name.

    Example:
        >>> [label for label, _, _ in _settings({"steps": [2, 4], "net": {"slim": {"network": {"width": 4}}}})]
        ['steps 2, slim', 'steps 4, slim']
    """
    axes = []
    for name, values in over.items():
        if isinstance(values, Mapping):
            axes.append([(str(label), _mapping(f"over.{name}", one), (name, label)) for label, one in values.items()])
        else:
            axes.append([(f"{name} {value}", {name: value}, (name, value)) for value in _list(f"over.{name}", values)])
    for chosen in itertools.product(*axes):
        label = ", ".join(one[0] for one in chosen)
        yield label, _merged(*(one[1] for one in chosen)), dict(one[2] for one in chosen)


def _parsed(verb: str, options: Arguments, where: str) -> Verb:
    """Return options of a command, checked like its own."""
    try:
        chosen = parsed(VERBS[verb], options)
        if isinstance(chosen, Hybrid):
            return hybrid_options.settled(chosen) if not _names(options) else chosen
        if isinstance(chosen, Distill):
            if not _names({"student": chosen.student}):
                check_settings(learning.settled(chosen))
            return chosen
        return learning.settled(chosen) if not _names({"model": chosen.model}) else chosen
    except (TranspikeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{where} (`transpike {verb}`): {reason}") from error


def _changed(options: Any) -> Arguments:
    """Return the options that differ from the defaults. Later additions to a command leave a study's runs as is."""
    record: Arguments = {}
    for one in fields(options):
        value = getattr(options, one.name)
        default = one.default if one.default_factory is MISSING else one.default_factory()
        if one.name in PLACES:
            continue
        if is_dataclass(value) and not isinstance(value, type):
            if inner := _changed(value):
                record[one.name] = inner
        elif plain(value) != plain(default) and value is not None and value != {}:
            record[one.name] = plain(value)
    return record


def _filled(value: Any, names: Mapping[str, object]) -> Any:
    if isinstance(value, Mapping):
        return {name: _filled(item, names) for name, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value


def _names(value: object) -> list[str]:
    """Return the `$NAME` placeholders in options."""
    if isinstance(value, Mapping):
        return [name for item in value.values() for name in _names(item)]
    return [value[1:]] if isinstance(value, str) and re.fullmatch(r"\$\w+", value) else []


def _merged(*all_: Mapping[str, Any]) -> Arguments:
    """Merge options. Nested options are merged one by one.

    Example:
        >>> _merged({"settings": {"alpha": 1.0}, "epochs": 2}, {"settings": {"beta": 2.0}})
        {'settings': {'alpha': 1.0, 'beta': 2.0}, 'epochs': 2}
    """
    merged: Arguments = {}
    for options in all_:
        for name, value in options.items():
            inner = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
            merged[name] = _merged(merged[name], value) if inner else value
    return merged


def _mapping(name: str, value: object, keys: Sequence[str] = (), *, whole: bool = False) -> Arguments:
    if not isinstance(value, Mapping):
        raise refuse(name, value, "names with values, one per line")
    for key, inner in value.items():
        if key is None or isinstance(key, bool):
            raise ConfigError(f"{name} has the name {key}: YAML does not read it as text; write it in quotes.")
        if isinstance(inner, Mapping):
            _mapping(f"{name}.{key}", inner)
    if keys:
        for key in value:
            if key not in keys:
                raise ConfigError(f"{name} has no {shown(key)}.{near(str(key), keys)} It takes {', '.join(keys)}.")
        if whole and (missing := [key for key in keys if key not in value]):
            raise ConfigError(f"{name} lacks {', '.join(missing)}.")
    return {str(key): one for key, one in value.items()}


def _list(name: str, value: object) -> list[object]:
    if not isinstance(value, list) or not value:
        raise refuse(name, value, "a list of values, or labels with options")
    return value


def _seeds(value: object) -> list[int]:
    """Return seeds as a list. A number n stands for the seeds from 0 to n - 1."""
    if not isinstance(value, list):
        return list(range(whole("seeds", value, most=1000)))
    seeds = [checked_seed(seed) for seed in value]
    if not seeds or len(set(seeds)) < len(seeds):
        raise refuse("seeds", value, "a number of seeds, or a list of different seeds")
    return seeds


def _kind(options: Verb) -> str:
    """Return the part of a folder's name that says what kind of run it holds."""
    if isinstance(options, Distill):
        return options.method
    return f"hybrid {options.encoder}" if isinstance(options, Hybrid) else options.model


def _slug(label: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", label.lower()).strip("-.") or "arm"
