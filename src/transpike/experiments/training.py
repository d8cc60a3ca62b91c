"""What `transpike train` and `transpike distill` share: data and options, the run's folder, measures and results."""

from __future__ import annotations

import json as json_format
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transpike.data import EventSets, ImageSets, Loading, load_events, load_images
from transpike.data.event_files import EVENT_SOURCES
from transpike.errors import ConfigError
from transpike.experiments.runs import Run, located, resume_run, start_run, write_json
from transpike.train.options import Machine, Optim, Recipe, TrainOptions

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.data import DataLoader

    from transpike.train import Evaluation, Fitted

__all__ = ["EPOCHS", "STEPS", "Training", "asked_of_all", "first_process", "load_sets", "run_training", "student_steps"]

EPOCHS = {
    **{"digits": 40, "mnist": 10, "fashion_mnist": 30, "cifar10": 100, "cifar100": 200, "folder": 100},
    **{"nmnist": 20, "cifar10_dvs": 100, "dvs128_gesture": 100},
}
"""Epochs by data set where none are asked for: enough for the default network and optimiser."""

STEPS = 4
"""T of a spiking network where none is asked for."""

ASKED = (
    *("model", "network", "weights", "data", "root", "download", "loading"),
    *("split_by", "test_steps", "options", "seed"),
)
"""What run.json keeps of a command, and a resumed run needs; `transpike distill` keeps more."""


@dataclass(frozen=True)
class Training:
    """What a command trains: the network with new weights, its data and how."""

    asked: dict[str, Any]
    model: nn.Module
    sets: ImageSets | EventSets
    options: TrainOptions
    folder: Path
    resumed: bool


Learn = Callable[[Training], "tuple[Fitted, dict[str, Any]]"]


def asked_of_all(
    model: str,
    data: str,
    *,
    steps: int | None,
    epochs: int | None,
    seed: int,
    loading: Loading,
    test_steps: list[int] | int | None,
    options: Mapping[str, Any],
    **more: Any,
) -> dict[str, Any]:
    """A command's options as run.json keeps them.

    Raises:
        ConfigError: an option is out of range.
    """
    others = [test_steps] if isinstance(test_steps, int) else test_steps
    if min(others or [1]) < 1:
        raise ConfigError(f"test_steps={others}: each number of steps is at least 1.")
    chosen = TrainOptions(epochs=EPOCHS.get(data, 100) if epochs is None else epochs, seed=seed, steps=steps, **options)
    return {
        "model": model,
        "data": data,
        "loading": asdict(loading) | {"seed": seed},
        "test_steps": others,
        "options": asdict(chosen),
        "seed": seed,
        **more,
    }


def run_training(
    verb: str,
    asked: dict[str, Any],
    learn: Learn,
    *,
    frames: Callable[[dict[str, Any]], int | None] = lambda asked: asked["options"]["steps"],
    also: tuple[str, ...] = (),
    resume: Path | None,
    out: Path | None,
    json: Path | None,
) -> None:
    """Train, measure and write a run's folder, or continue one.

    Args:
        verb: the command.
        asked: its options, as `asked_of_all` gives them.
        learn: trains the network; gives what was fitted, and what else the results say of it.
        frames: how many frames the training needs of events.
        also: the names of the verb's own options, beside those of all.
        resume: the folder to continue; `asked` is then ignored.
        out: the run's folder; None for a new one.
        json: where to write results.json, too.

    Raises:
        TranspikeError: as the command.
    """
    if resume is not None:
        asked = _recorded(resume, verb, (*ASKED, *also))
        with resume_run(resume) if first_process() else nullcontext(Run(resume)) as run:
            results = _train(verb, asked, learn, frames, run, resumed=True)
    elif first_process():
        with start_run(verb, asked, out=out) as run:
            results = _train(verb, asked, learn, frames, run, resumed=False)
    else:
        results = _train(verb, asked, learn, frames, Run(out or Path("runs")), resumed=False)
    if first_process() and json is not None:
        write_json(json, results)


def _train(
    verb: str,
    asked: dict[str, Any],
    learn: Learn,
    frames: Callable[[dict[str, Any]], int | None],
    run: Run,
    *,
    resumed: bool,
) -> dict[str, Any]:
    import torch

    from transpike.models import create_model

    options = _options(asked["options"])
    sets = load_sets(asked, frames(asked))
    shape = {"num_classes": sets.classes, "in_channels": sets.channels, "image_size": sets.size}
    torch.manual_seed(options.seed)
    model = create_model(asked["model"], **shape, weights=asked["weights"], **asked["network"])
    training = Training(asked, model, sets, options, run.folder, resumed)
    try:
        fitted, more = learn(training)
    except KeyboardInterrupt:
        if first_process() and (run.folder / "last.ckpt").exists():
            print(f"Stopped. Continue: transpike {verb} --resume {run.folder}", file=sys.stderr)
        raise
    if first_process():
        _save(training, shape, run)
    tested, measured = _test(training, frames(asked))
    results = {
        "kind": "training",
        "version": 1,
        "model": asked["model"],
        "dataset": asked["data"],
        "images": tested.images,
        "accuracy": tested.accuracy,
        "loss": tested.loss,
        "weights_of_epoch": fitted.epoch,
        "validation_accuracy": fitted.validation_accuracy,
        "epochs": fitted.curves,
        **measured,
        **more,
    }
    if first_process():
        run.write("results.json", results)
        _tell(results, run.folder, options)
    return results


def _save(training: Training, shape: dict[str, Any], run: Run) -> None:
    from transpike.models import save_network

    asked, sets = training.asked, training.sets
    facts = {"data": sets.name, "class_names": sets.class_names, "steps": training.options.steps}
    facts |= {name: getattr(sets, name) for name in ("mean", "std", "split_by") if hasattr(sets, name)}
    save_network(training.model, {"name": asked["model"], "kwargs": asked["network"], **shape, **facts}, run.folder)


def _test(training: Training, frames: int | None) -> tuple[Evaluation, dict[str, Any]]:
    """Accuracy on the test images; of a spiking network at several T, with what it spends."""
    from transpike.experiments.spiking import measure_spiking
    from transpike.train import evaluate

    asked, sets, options = training.asked, training.sets, training.options
    if options.steps is None:
        return evaluate(training.model, sets.test, machine=options.machine), {}
    others = [1, 2, 2 * options.steps] if asked["test_steps"] is None else asked["test_steps"]

    def test(count: int) -> DataLoader[Any]:
        loaded = isinstance(sets, ImageSets) or count == frames
        return sets.test if loaded else load_sets(asked, count).test

    return measure_spiking(training.model, test, steps=options.steps, others=others, machine=options.machine)


def _tell(results: dict[str, Any], folder: Path, options: TrainOptions) -> None:
    from rich.console import Console

    from transpike.experiments.spiking import spiking_tables

    if "spiking" in results:
        Console(highlight=False).print(*spiking_tables(results), sep="\n")
    at = f" at T = {options.steps}" if options.steps else ""
    print(
        f"{results['model']} on {results['dataset']}: {results['accuracy']:.2%} of {results['images']} test images "
        f"right{at} after epoch {results['weights_of_epoch']} of {options.epochs}. Written to {folder}"
    )


def load_sets(asked: Mapping[str, Any], steps: int | None) -> ImageSets | EventSets:
    """The data that a command asks for; of events ``steps`` frames."""
    data, root, loading = asked["data"], asked["root"], Loading(**asked["loading"])
    if data in EVENT_SOURCES:
        return load_events(data, steps=steps or STEPS, split_by=asked["split_by"], root=root, loading=loading)
    return load_images(data, root=root, download=asked["download"], loading=loading)


def student_steps(model: str, data: str, steps: int | None) -> int | None:
    """T, or None for an artificial network.

    Raises:
        ConfigError: Network and data, or T, do not go together.
    """
    from transpike.models import check_name, read_description
    from transpike.models.zoo import SPIKING

    if Path(model).is_dir():
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
            raise ConfigError(f"{fact}, which is for spiking networks; {name} is none. Take {', '.join(SPIKING)}.")
    return None


def _options(recorded: dict[str, Any]) -> TrainOptions:
    nested = {"optim": Optim, "recipe": Recipe, "machine": Machine}
    return TrainOptions(
        **{name: nested[name](**value) if name in nested else value for name, value in recorded.items()}
    )


def _recorded(folder: Path, verb: str, names: tuple[str, ...]) -> dict[str, Any]:
    """The options a run began with."""
    path = folder / "run.json"
    try:
        recorded = json_format.loads(path.read_text())
        if recorded["verb"] != verb:
            raise ConfigError(f"{folder}: a run of `transpike {recorded['verb']}`, not of `transpike {verb}`.")
        options = located(recorded)
        asked: dict[str, Any] = {name: options[name] for name in names}
        Loading(**asked["loading"]), _options(asked["options"])
    except FileNotFoundError:
        raise ConfigError(f"{folder}: no run to resume, for it has no run.json.") from None
    except (KeyError, TypeError, UnicodeDecodeError, json_format.JSONDecodeError) as error:
        raise ConfigError(f"{path}: damaged, or of another version ({error!r}). Start the training anew.") from error
    return asked


def first_process() -> bool:
    """Whether this process is the one that writes and tells."""
    from lightning.pytorch.utilities import rank_zero_only

    return bool(getattr(rank_zero_only, "rank", 0) == 0)
