"""The start of runs that train: their folder, T, and the numbers of steps for tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from transpike.checks import refuse
from transpike.data.event_files import EVENT_SOURCES
from transpike.errors import ConfigError
from transpike.models import check_name, is_run, read_description
from transpike.models.zoo import SPIKING
from transpike.results import RunFolder, resume_run, start_run
from transpike.train.processes import first_process

__all__ = ["STEPS", "checked_steps", "has_epochs", "student_steps", "training_run"]

STEPS = 4
"""The default T of a spiking network."""


@contextmanager
def training_run(
    verb: str,
    options: Mapping[str, object],
    *,
    resume: Path | None,
    out: Path | None,
    again: str | None = None,
    subject: str = "",
) -> Iterator[RunFolder]:
    """Open the folder of a run that trains, a new one or one that continues. After Ctrl-C it prints how to continue.

    Args:
        verb: the command.
        options: the options for run.json.
        resume: the folder to continue.
        out: the folder to create. None for one under runs/.
        again: what continues the run. The default is the command.
        subject: the first argument of the command.

    Raises:
        ConfigError: As for `start_run`.
    """
    opened: AbstractContextManager[RunFolder] = nullcontext(RunFolder(resume or out or Path("runs")))
    if first_process():
        opened = start_run(verb, options, out=out) if resume is None else resume_run(resume)
    with opened as run:
        try:
            yield run
        except KeyboardInterrupt:
            resumed = " ".join(filter(None, ["transpike", verb, subject, "--resume", str(run.folder)]))
            if first_process() and any(run.folder.glob("**/last.ckpt")):
                print(f"Stopped. Continue: {again or resumed}", file=sys.stderr)
            raise


def has_epochs(folder: Path) -> bool:
    """Whether a resumed run has a checkpoint to continue from. If it was killed in its first epoch, it starts again."""
    if any(os.path.lexists(folder / name) for name in ("last.ckpt", "weights.safetensors", "results.json")):
        return True
    (folder / "best.ckpt").unlink(missing_ok=True)  # written just before last.ckpt; it will be written again
    return False


def checked_steps(test_steps: list[int] | int | None) -> list[int] | None:
    """Return numbers of steps as a list.

    Raises:
        ConfigError: One is below 1.
    """
    counts = [test_steps] if isinstance(test_steps, int) else test_steps
    if min(counts or [1]) < 1:
        raise refuse("test_steps", counts, "numbers of steps, each of at least 1")
    return counts


def student_steps(model: str, data: str, steps: int | None) -> int | None:
    """Return T, or None for an artificial network.

    Raises:
        ConfigError: Network and data, or network and T, do not fit together.
    """
    if is_run(model):
        about = read_description(model)
        if about.get("encoder"):
            raise ConfigError(
                f"{model}: a network of `transpike hybrid` takes encoded images: train it by that command."
            )
        name = about["name"]
    else:
        check_name(name := model)
    if name in SPIKING:
        return STEPS if steps is None else steps
    for fact, holds in ((f"{data} gives frames of events", data in EVENT_SOURCES), (f"steps={steps}", steps)):
        if holds:
            raise ConfigError(
                f"{fact}, which is for spiking networks; {name} does not spike. Take {', '.join(SPIKING)}."
            )
    return None
