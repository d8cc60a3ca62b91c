"""Reads the options of an earlier run from its run.json, and checks those that other commands use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from transpike.data import Loading
from transpike.errors import ConfigError, DataError
from transpike.files import Record, plain
from transpike.models import model_names
from transpike.results import located, read_run
from transpike.train.options import Arguments

__all__ = ["filled_loading", "read_options", "recorded_loading", "same_split"]


def read_options(folder: Path) -> Arguments:
    """Return the options of the run in ``folder``. Empty if it has none that can be read.

    Raises:
        ConfigError: An option that other commands use has a wrong type. The message names the file and the option.
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
    """Return how a run loaded its images, from its `read_options`, with defaults for missing entries.

    Raises:
        ConfigError: A value is not valid. The message names the run.
    """
    try:
        return Loading(**options.get("loading", {}))
    except ConfigError as error:
        raise ConfigError(f"{run}: in its run.json: {error}") from error


def filled_loading(loading: Loading, known: Loading) -> Loading:
    """Return ``loading``, with missing facts about the network's images taken from ``known``.

    Example:
        >>> filled_loading(Loading(batch_size=32), Loading(mean=(0.3,), std=(0.4,), batch_size=64)).mean
        (0.3,)
    """
    open_, facts = asdict(loading), asdict(known)
    names = ("mean", "std", "size", "crop", "interpolation", "outputs")
    return replace(loading, **{name: facts[name] for name in names if open_[name] is None})


def same_split(loading: Loading, known: Loading) -> Loading:
    """Return ``loading`` with the validation split of ``known``, unless it sets another: so no training image is in it.

    Example:
        >>> same_split(Loading(batch_size=32), Loading(seed=3, validation=0.2)).validation
        0.2
    """
    usual = Loading()
    names = [name for name in ("seed", "validation", "train_images") if getattr(loading, name) == getattr(usual, name)]
    return replace(loading, **{name: getattr(known, name) for name in names})


def _loading(options: Record, name: str) -> None:
    loading = options.record(name)
    loading.only(*(each.name for each in fields(Loading)))
    if loading.has("augment"):
        loading.text("augment")


def _training(options: Record, name: str) -> None:
    """Read how `train` and `distill` trained, which is an object of its own."""
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
"""The options of a run that other commands use, and the reader of each."""
