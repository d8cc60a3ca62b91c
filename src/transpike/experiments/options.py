"""The options of a verb in its run.json: written when a run starts, and read when it continues."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from transpike.checks import near, refuse
from transpike.errors import ConfigError, TranspikeError
from transpike.files import plain
from transpike.results import read_run
from transpike.train.recorded import read_options

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from jsonargparse import ArgumentParser

__all__ = ["Paths", "begun_otherwise", "check_resumed", "parsed", "read_record", "record", "same"]

Options = TypeVar("Options", bound="DataclassInstance")

PLACES = ("resume", "out", "json")
"""The options with the place of results. run.json, which lies there, omits them."""


class Paths:
    """Base class of the options of a verb, so that Python code may pass text for a path, and a path for text.

    Example:
        >>> from transpike.experiments.convert import Convert
        >>> options = Convert(Path("runs/train"), out="runs/convert")
        >>> options.model, options.out
        ('runs/train', PosixPath('runs/convert'))
    """

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            if hint is not KW_ONLY:
                object.__setattr__(self, name, _placed(name, getattr(self, name), hint))


def record(options: DataclassInstance, **settled: object) -> dict[str, object]:
    """Return a verb's options in the form of run.json.

    Args:
        options: the verb's dataclass.
        settled: options whose values were derived since, such as the default epochs.
    """
    return {one.name: getattr(options, one.name) for one in fields(options) if one.name not in PLACES} | settled


def read_record(folder: Path, verb: str, kind: type[Options], *, renamed: Mapping[str, str] | None = None) -> Options:
    """Return the options with which a run started. Its files are found from any working directory.

    Args:
        folder: the run's folder.
        verb: the verb to which the run must belong.
        kind: the verb's dataclass.
        renamed: keys of run.json that have other names in the dataclass.

    Raises:
        DataError: Its run.json is damaged or of another version. The message has the file and the key.
        ConfigError: There is no run.json, it belongs to another verb, or an option is wrong. The message has file and
            key.
    """
    run = read_run(folder)
    if run is None:
        raise ConfigError(f"{folder}: no run to resume: there is no run.json.")
    if run.verb.startswith("transpike."):
        raise ConfigError(f"{folder}: a run of {run.verb} from Python: continue it there with resume=True.")
    if run.verb != verb:
        raise ConfigError(f"{folder}: a run of `transpike {run.verb}`, not of `transpike {verb}`.")
    found = dict(read_options(folder))
    found |= found.pop("options", {})  # training options are an object of their own
    found = {(renamed or {}).get(name, name): value for name, value in found.items()}
    names = [one.name for one in fields(kind) if one.name not in PLACES]
    missing, unknown = [name for name in names if name not in found], [name for name in found if name not in names]
    try:
        if unknown:
            raise ValueError(f"option {unknown[0]} is unknown.{near(unknown[0], names)}")
        if missing:
            raise ValueError(f"its options lack {', '.join(missing)}")
        hints = get_type_hints(kind)
        if empty := [name for name in names if found[name] is None and NoneType not in get_args(hints[name])]:
            raise ValueError(f"option {empty[0]} is null")
        return _instance(kind, found)
    except (TranspikeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        end = "" if reason.endswith((".", "?")) else "."
        raise ConfigError(f"{folder / 'run.json'}: {reason}{end} Start the training anew.") from error


def check_resumed(
    options: DataclassInstance, began: DataclassInstance, folder: Path, *, usual: DataclassInstance | None = None
) -> None:
    """Raise an error for options beside ``resume`` that differ from the run's own, because they would have no effect.

    ``usual`` are the default options, if the dataclass has fields without defaults.

    Raises:
        ConfigError: The message names the options.
    """
    if changed := list(_changed(options, usual or type(options)(), began)):
        raise begun_otherwise(folder, changed)


def begun_otherwise(folder: Path, changed: Sequence[str]) -> ConfigError:
    """Return the error for a run that should continue with other options than it started with."""
    return ConfigError(
        f"{folder}: the run began with other options ({', '.join(changed)}). Resume with the same options, or start a "
        "new run."
    )


def same(now: object, before: object) -> bool:
    """Whether two values of an option are equal: a file by two paths, a number alone or in a list."""
    if isinstance(now, str | Path) and isinstance(before, str | Path):
        both = os.path.exists(now) and os.path.exists(before)
        return str(now) == str(before) or (both and Path(now).samefile(before))
    return plain(now) in (plain(before), [plain(before)]) or [plain(now)] == plain(before)


def _placed(name: str, value: object, hint: object) -> object:
    """Return a value in which paths are paths and texts are texts, by the type of the option."""
    kinds = get_args(hint) or (hint,)
    if isinstance(value, list | tuple) and (inner := [get_args(one)[0] for one in kinds if get_origin(one) is list]):
        return [_placed(name, one, inner[0]) for one in value]
    if isinstance(value, str | os.PathLike) and (Path in kinds or str in kinds):
        return Path(value) if Path in kinds else os.fspath(value)
    if Path in kinds and value is not None:
        raise refuse(name, value, "a path")
    return value


def _changed(
    given: DataclassInstance, usual: DataclassInstance, began: DataclassInstance, outer: str = ""
) -> Iterator[str]:
    """Yield the options, also nested ones, that equal neither the default nor the value at the run's start."""
    for name in (one.name for one in fields(given) if one.name not in PLACES):
        value, default, before = (getattr(each, name) for each in (given, usual, began))
        if is_dataclass(value) and not isinstance(value, type):
            fresh = type(value)()  # if there is no default
            yield from _changed(value, default or fresh, before or fresh, f"{outer}{name}.")
        elif value != default and not same(value, before):
            yield f"{outer}{name}"


def parsed(kind: type[Options], found: Mapping[str, object]) -> Options:
    """Return a verb's dataclass with the options of a file. Missing options have their defaults.

    Raises:
        ValueError: An option is unknown (the message names the nearest) or has a wrong type.

    Example:
        >>> from transpike.train.options import Optim
        >>> parsed(Optim, {"lr": 1, "warm_up": 2})
        Traceback (most recent call last):
        ...
        ValueError: option warm_up is unknown. Did you mean warmup?
    """
    _check_names(kind, found)
    return _instance(kind, found)


def _check_names(kind: Any, found: Mapping[str, object], outer: str = "") -> None:
    hints = get_type_hints(kind)
    names = [one.name for one in fields(kind)]
    for name, value in found.items():
        if name not in names:
            raise ValueError(f"option {outer}{name} is unknown.{near(name, names)}")
        if is_dataclass(hints[name]) and isinstance(value, Mapping):
            _check_names(hints[name], value, f"{outer}{name}.")


@cache
def _parser(kind: type) -> ArgumentParser:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, as_group=False)
    return parser


def _instance(kind: type[Options], found: Mapping[str, object]) -> Options:
    """Return the dataclass, with its values checked like those of a command line."""
    from jsonargparse import ArgumentError

    parser = _parser(kind)
    try:
        return kind(**vars(parser.instantiate(parser.parse_object(dict(found)))))
    except ArgumentError as error:
        raise ValueError(f"{error!s:.400}") from error
