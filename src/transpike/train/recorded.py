"""The options of an earlier run, as its run.json has them: what other commands go by is checked as it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from transpike.data import Loading
from transpike.errors import ConfigError, DataError
from transpike.files import Record, plain
from transpike.models import model_names
from transpike.results import located, read_run
from transpike.train.options import Arguments

__all__ = ["read_options", "recorded_loading"]


def read_options(folder: Path) -> Arguments:
    """The options of the run in ``folder``; empty if it holds none that can be read.

    Raises:
        ConfigError: one that other commands go by is of another type than a run writes; with the file and its name.
    """
    try:
        run = read_run(folder)
    except DataError:
        return {}
    if run is None:
        return {}
    found = located(run, names=model_names())
    options = Record(plain(found), folder / "run.json", remedy="Run the experiment again.", error=ConfigError)
    for name, read in READ.items():
        if options.has(name):
            read(options, name)
    return found


def recorded_loading(options: Mapping[str, Any], run: Path | str) -> Loading:
    """How a run loaded its images, of its `read_options`; by default where it does not say.

    Raises:
        ConfigError: for a value that cannot be, naming the run.
    """
    try:
        return Loading(**options.get("loading", {}))
    except ConfigError as error:
        raise ConfigError(f"{run}: in its run.json: {error}") from error


def _loading(options: Record, name: str) -> None:
    loading = options.record(name)
    loading.only(*(each.name for each in fields(Loading)))
    if loading.has("augment"):
        loading.text("augment")


def _training(options: Record, name: str) -> None:
    """How `train` and `distill` trained stands in an object of its own."""
    inner = options.record(name)
    if inner.has("machine"):
        inner.record("machine")


READ: dict[str, Callable[[Record, str], object]] = {
    **dict.fromkeys(("converted", "data", "model", "root", "scheme", "teacher", "teacher_weights"), Record.text),
    **dict.fromkeys(("machine", "network", "settings", "teacher_network"), Record.record),
    **dict.fromkeys(("teacher_size", "teacher_steps"), partial(Record.whole, least=1)),
    "loading": _loading,
    "options": _training,
}
"""Options of a run that other commands go by, and what reads each."""
