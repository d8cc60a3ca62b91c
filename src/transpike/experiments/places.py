"""Checks the folder that a verb receives by the names of its files, before PyTorch is imported."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from transpike.errors import ModelError

__all__ = ["PLACES", "check_converted", "check_exported", "check_measured"]

NETWORK, TRAINED = "network.json", "model.json"


def check_measured(folder: Path) -> None:
    """Check the folder of ``transpike evaluate``: a converted network, or a run of ``transpike train``.

    Raises:
        ModelError: It is neither.
    """
    if not os.path.isdir(folder):
        problem = "a file; give the folder" if os.path.lexists(folder) else "no such folder; give one"
        raise ModelError(f"{folder}: {problem} that `transpike convert` or `transpike train` wrote.")
    if not os.path.isfile(folder / NETWORK):
        _check_single(folder)
        if not os.path.isfile(folder / TRAINED):
            raise ModelError(f"{folder}: not the folder of a finished `transpike train` run, for it has no {TRAINED}.")


def check_exported(folder: Path) -> None:
    """Check the folder of ``transpike export``: a converted network.

    Raises:
        ModelError: It is not.
    """
    if not os.path.isdir(folder):
        raise ModelError(f"{folder}: no such folder; give one that `transpike convert` wrote, such as RUN/T8.")
    if not os.path.isfile(folder / NETWORK):
        _check_single(folder)


def check_converted(folder: Path) -> None:
    """Check the folder of ``transpike finetune``: a converted network.

    Raises:
        ModelError: It is not.
    """
    if not os.path.isfile(folder / NETWORK):
        remedy = f"give one of the networks in it: {', '.join(inner)}" if (inner := _inner(folder)) else ""
        raise ModelError(
            f"{folder}: no converted network ({NETWORK}) of `transpike convert` is there; "
            f"{remedy or 'give a folder such as RUN/T8'}."
        )


PLACES: Mapping[str, Callable[[Path], None]] = {
    "evaluate": check_measured, "export": check_exported, "finetune": check_converted,
}  # fmt: skip
"""The checks, by the verb whose first argument is such a folder."""


def _check_single(folder: Path) -> None:
    if inner := _inner(folder):
        raise ModelError(f"{folder}: holds several converted networks; give one of them: {', '.join(inner)}")


def _inner(folder: Path) -> list[str]:
    return sorted(str(path.parent) for path in folder.glob(f"*/{NETWORK}"))[:8]
