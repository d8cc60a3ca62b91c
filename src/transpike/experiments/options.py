"""The options of a verb in its run.json: what is written when a run begins, and read when it continues."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from transpike.errors import ConfigError, TranspikeError
from transpike.experiments.runs import located

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["Arguments", "read_record", "record"]

Arguments = dict[str, Any]
"""What a network, a neuron, an encoder or a method takes by keyword, as YAML or JSON write it."""

Options = TypeVar("Options", bound="DataclassInstance")

PLACES = ("resume", "out", "json")
"""Options that say where results go: run.json, which lies there, leaves them out."""


def record(options: DataclassInstance, **settled: object) -> dict[str, object]:
    """What run.json says of a verb's options.

    Args:
        options: the verb's dataclass.
        settled: options whose value has been settled since, such as the epochs where none were given.
    """
    return {one.name: getattr(options, one.name) for one in fields(options) if one.name not in PLACES} | settled


def read_record(folder: Path, verb: str, kind: type[Options], *, renamed: Mapping[str, str] | None = None) -> Options:
    """The options that a run began with; files are found from any working directory.

    Args:
        folder: the run's.
        verb: whose run it must be.
        kind: the verb's dataclass.
        renamed: keys of run.json that the dataclass calls otherwise.

    Raises:
        ConfigError: the run is none of the verb's, or its run.json is missing, damaged or of another version; with the
            file and the key.
    """
    path = folder / "run.json"
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
        began = recorded["verb"]
    except FileNotFoundError:
        raise ConfigError(f"{folder}: no run to resume, for it has no run.json.") from None
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(path, repr(error)) from error
    if began != verb:
        raise ConfigError(f"{folder}: a run of `transpike {began}`, not of `transpike {verb}`.")
    try:
        found = located(recorded)
        found |= found.pop("options", {})  # how to train stands in an object of its own
        found = {(renamed or {}).get(name, name): value for name, value in found.items()}
        if missing := [one.name for one in fields(kind) if one.name not in PLACES and one.name not in found]:
            raise ValueError(f"without {', '.join(missing)}")
        return _parsed(kind, found)
    except KeyError as error:
        raise _unreadable(path, f"without {error.args[0]}") from error
    except (TranspikeError, AttributeError, TypeError, ValueError) as error:
        raise _unreadable(path, " ".join(str(error).split())) from error


def _parsed(kind: type[Options], found: Mapping[str, object]) -> Options:
    """The dataclass, its values checked as those of a command line are."""
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, as_group=False)
    try:
        return kind(**vars(parser.instantiate(parser.parse_object(dict(found)))))
    except ArgumentError as error:
        raise ValueError(str(error)) from error


def _unreadable(path: Path, reason: str) -> ConfigError:
    return ConfigError(f"{path}: damaged, or of another version ({reason}). Start the training anew.")
