"""Writes a training's results; for runs from Python, also the record that a command writes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path

from torch import Tensor, nn

from transpike.checks import few
from transpike.data import EventSets, ImageSets
from transpike.errors import ConfigError
from transpike.models import describe_network, save_network
from transpike.results import Distillation, Epoch, Evaluation, RunFolder, Training
from transpike.train import fitted as values
from transpike.train.classify import Classifier
from transpike.train.fitted import Fitted, Loaders
from transpike.train.options import TrainOptions
from transpike.train.processes import first_process
from transpike.train.runs import training_run

__all__ = ["after_training", "check_folder", "epochs_of", "image_facts", "leave", "network_name", "python_run"]

UNTESTED = values.Evaluation(math.nan, math.nan, 0)


@contextmanager
def python_run(
    verb: str,
    model: nn.Module,
    loaders: Loaders,
    options: TrainOptions,
    *,
    folder: Path,
    resume: bool,
    more: dict[str, object] | None = None,
) -> Iterator[RunFolder]:
    """Open the folder of a run that Python code begins or continues. run.json has the data that the commands need.

    Args:
        verb: the function, "fit" or "distill".
        model: the network.
        loaders: its images.
        options: how it is trained.
        folder: the folder of the run.
        resume: whether it continues.
        more: further data for run.json.

    Raises:
        ConfigError: As for `check_folder` and `training_run`.
    """
    check_folder(folder, resume=resume)
    if resume and not (folder / "run.json").is_file():  # only the checkpoint was copied here
        yield RunFolder(folder)
        return
    sets = loaders.sets
    record: dict[str, object] = {"model": network_name(model), "seed": options.seed, "steps": options.steps}
    if sets is not None and sets.root is not None:
        record |= {"data": sets.name, "root": sets.root, "loading": sets.loading}
    record |= {"options": asdict(options), **(more or {})}
    again = f"{verb}(..., folder={str(folder)!r}, resume=True)"
    with training_run(
        f"transpike.train.{verb}", record, resume=folder if resume else None, out=folder, again=again
    ) as run:
        yield run


def check_folder(folder: Path, *, resume: bool) -> None:
    """Check that no checkpoint in the folder would be lost and, to resume, that there is one.

    Raises:
        ConfigError: The message says what to do.
    """
    if resume and not (folder / "last.ckpt").is_file():
        raise ConfigError(f"{folder}: nothing to resume (no last.ckpt). Remove the folder and start a new run.")
    earlier = [name for name in ("last.ckpt", "best.ckpt") if (folder / name).exists()]
    if earlier and not resume:
        raise ConfigError(
            f"{folder}: holds an earlier training ({earlier[0]}). Continue it with resume=True, or name another folder."
        )


def leave(
    run: RunFolder,
    fitted: Fitted,
    tested: values.Evaluation | None,
    *,
    loaders: Loaders,
    classifier: Classifier,
    distillation: Distillation | None = None,
) -> None:
    """Write the trained network and the results into the folder of a run from Python.

    Args:
        run: the folder.
        fitted: the result of training.
        tested: its test. None without test images.
        loaders: the loaders of the training.
        classifier: the trained classifier.
        distillation: the settings of its distillation. None if it learned only from labels.
    """
    if not first_process():
        return
    model = _own(fitted.model)
    # The commands know only the default input code.
    made = describe_network(model) if classifier.encode is None else None
    about = made or {"name": network_name(model), "own": True}
    if odd := [name for name, value in model.state_dict().items() if not isinstance(value, Tensor)]:
        warnings.warn(
            f"{run.folder}: only the checkpoints hold the weights, because {few(odd)} is not a tensor.", stacklevel=3
        )
    else:
        save_network(model, {**about, **image_facts(loaders.sets), "steps": classifier.options.steps}, run.folder)
    named = {"model": about["name"], "dataset": _dataset(loaders)}
    run.write(after_training(Evaluation(**named, **asdict(tested or UNTESTED)), fitted, distillation=distillation))


def image_facts(sets: ImageSets | EventSets | None) -> dict[str, object]:
    """Return what model.json contains about the images of a network: their set, classes and normalisation."""
    if sets is None:
        return {}
    facts = {name: getattr(sets, name) for name in ("class_names", "mean", "std", "split_by") if hasattr(sets, name)}
    return facts if sets.root is None else {"data": sets.name, **facts}


def after_training(results: Evaluation, fitted: Fitted, *, distillation: Distillation | None = None) -> Training:
    """Return the results of a test, and of the training before it.

    Args:
        results: the test of the trained network.
        fitted: the result of training.
        distillation: the settings of its distillation. None if it learned only from labels.
    """
    return Training(
        **{one.name: getattr(results, one.name) for one in fields(results)},
        weights_of_epoch=fitted.epoch,
        validation_accuracy=fitted.validation_accuracy,
        epochs=epochs_of(fitted.curves),
        distillation=distillation,
    )


def epochs_of(curves: list[dict[str, float]]) -> tuple[Epoch, ...]:
    """Return a row for each epoch of the curves. A loss with several terms has each of them by name.

    Example:
        >>> row = {"epoch": 1, "loss": 2.0, "train_accuracy": 0.5, "cross_entropy": 1.5, "kd": 0.5, "lr": 0.1}
        >>> row["seconds"] = 3
        >>> epochs_of([row])[0].terms
        {'cross_entropy': 1.5, 'kd': 0.5}
    """
    known = {one.name for one in fields(Epoch)}
    return tuple(
        Epoch(
            epoch=int(row["epoch"]),
            loss=row["loss"],
            train_accuracy=row["train_accuracy"],
            validation_loss=row.get("validation_loss"),
            validation_accuracy=row.get("validation_accuracy"),
            lr=row["lr"],
            seconds=row["seconds"],
            terms={name: value for name, value in row.items() if name not in known},
        )
        for row in curves
    )


def _own(model: nn.Module) -> nn.Module:
    """Return the module inside the result of torch.compile."""
    inner: nn.Module = getattr(model, "_orig_mod", model)
    return inner


def network_name(model: nn.Module) -> str:
    """Return the network's name in `create_model`, or the name of its class."""
    model = _own(model)
    return str((describe_network(model) or {}).get("name", type(model).__name__))


def _dataset(loaders: Loaders) -> str:
    """Return the set's name, or the name of the object that holds the images."""
    if loaders.sets is not None:
        return loaders.sets.name
    return type(getattr(loaders.train, "dataset", loaders.train)).__name__
