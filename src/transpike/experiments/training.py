"""What `transpike train` and `distill` share: options, the run's folder, and what is measured in the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import Field, asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

from transpike.data import ImageSets, Loading
from transpike.data.event_files import EVENT_SOURCES
from transpike.errors import ConfigError
from transpike.experiments.options import record
from transpike.experiments.runs import Run, resume_run, start_run
from transpike.experiments.source import STEPS, Data, Sets
from transpike.results import AtSteps, Distillation, Epoch, Spiking, Training
from transpike.train.options import Arguments, Machine, Optim, Recipe, TrainOptions, epochs_for
from transpike.train.processes import first_process

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.data import DataLoader

    from transpike.train import Evaluation, Fitted
    from transpike.train.stages import Shape

__all__ = [
    "Learning",
    "checked_steps",
    "epochs_of",
    "finish",
    "make_student",
    "recorded",
    "settled",
    "student_steps",
    "training_run",
]

Options = TypeVar("Options", bound="Learning")


class Learning:
    """Options that `transpike train` and `distill` share; the dataclass of each says what they mean."""

    if TYPE_CHECKING:  # at run time the dataclass says it
        __dataclass_fields__: ClassVar[dict[str, Field[object]]]

    data: str
    root: Path
    download: bool
    loading: Loading
    network: Arguments | None
    weights: Path | None
    steps: int | None
    split_by: Literal["number", "time"]
    test_steps: list[int] | int | None
    epochs: int | None
    seed: int
    keep: Literal["last", "best"]
    optim: Optim
    recipe: Recipe
    machine: Machine

    @property
    def learner(self) -> str:
        """The network that is trained: its name, or the folder of a run that has one like it."""
        raise NotImplementedError

    @property
    def frames(self) -> int | None:
        """Of events: T, or a multiple of it."""
        return self.steps

    @property
    def images(self) -> Data:
        """What it is trained and tested on."""
        return Data(self.data, self.root, self.download, self.loading, self.split_by)

    @property
    def training(self) -> TrainOptions:
        """How it is trained."""
        epochs = epochs_for(self.data, self.epochs)
        return TrainOptions(epochs, self.seed, self.keep, self.steps, self.optim, self.recipe, self.machine)


def settled(options: Options) -> Options:
    """The options with what follows from them: T, the seed of the images.

    Raises:
        ConfigError: network and data, or T, do not go together; an option is out of range.
    """
    chosen = replace(
        options,
        loading=replace(options.loading, seed=options.seed),
        network=options.network or {},
        steps=student_steps(options.learner, options.data, options.steps),
        test_steps=checked_steps(options.test_steps),
    )
    _ = chosen.training
    return chosen


def recorded(options: Learning, **more: object) -> dict[str, object]:
    """What run.json says of the options: how to train stands in an object of its own."""
    how = asdict(options.training)
    rest = {name: value for name, value in record(options).items() if name == "seed" or name not in how}
    return {**rest, "options": how, **more}


@contextmanager
def training_run(verb: str, options: Mapping[str, object], *, resume: Path | None, out: Path | None) -> Iterator[Run]:
    """The folder of a run that trains: a new one, or the one that continues. After Ctrl-C it tells how to go on.

    Args:
        verb: the command.
        options: what run.json says of them.
        resume: the folder to continue.
        out: the folder to make; None for one under runs/.

    Raises:
        ConfigError: as `start_run`.
    """
    opened: AbstractContextManager[Run] = nullcontext(Run(resume or out or Path("runs")))
    if first_process():
        opened = start_run(verb, options, out=out) if resume is None else resume_run(resume)
    with opened as run:
        try:
            yield run
        except KeyboardInterrupt:
            if first_process() and any(run.folder.glob("**/last.ckpt")):
                print(f"Stopped. Continue: transpike {verb} --resume {run.folder}", file=sys.stderr)
            raise


def make_student(options: Learning, sets: Sets) -> nn.Module:
    """The network with its first weights, which the seed fixes."""
    import torch

    from transpike.models import create_model

    torch.manual_seed(options.seed)
    return create_model(options.learner, **_shape(sets), weights=options.weights, **(options.network or {}))


def finish(
    options: Learning, sets: Sets, fitted: Fitted, run: Run, *, distillation: Distillation | None = None
) -> Training:
    """Save the trained network, test it, and write and print its results."""
    from rich.console import Console

    from transpike.models import save_network
    from transpike.report.terminal import spiking_tables, summary

    if first_process():
        facts = {"data": sets.name, "class_names": sets.class_names, "steps": options.steps}
        facts |= {name: getattr(sets, name) for name in ("mean", "std", "split_by") if hasattr(sets, name)}
        about = {"name": options.learner, "kwargs": options.network or {}, **_shape(sets), **facts}
        save_network(fitted.model, about, run.folder)
    tested, by_steps, spiking = _test(options, sets, fitted.model)
    results = Training(
        model=options.learner,
        dataset=options.data,
        images=tested.images,
        accuracy=tested.accuracy,
        loss=tested.loss,
        by_steps=by_steps,
        spiking=spiking,
        weights_of_epoch=fitted.epoch,
        validation_accuracy=fitted.validation_accuracy,
        epochs=epochs_of(fitted),
        distillation=distillation,
    )
    if first_process():
        run.write(results)
        Console(highlight=False).print(*spiking_tables(results), sep="\n", end="\n" * (spiking is not None))
        after = f"after epoch {fitted.epoch} of {options.training.epochs}"
        print(f"{summary(results)} {after}. Written to {run.folder}")
    return results


def epochs_of(fitted: Fitted) -> tuple[Epoch, ...]:
    """What results say of every epoch; a loss of several terms has each by name."""
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
        for row in fitted.curves
    )


def _test(options: Learning, sets: Sets, model: nn.Module) -> tuple[Evaluation, tuple[AtSteps, ...], Spiking | None]:
    """Accuracy on the test images; of a spiking network at several T, with what it spends."""
    from transpike.measure.spiking import measure_spiking
    from transpike.train import evaluate

    if options.steps is None:
        return evaluate(model, sets.test, machine=options.machine), (), None
    others = checked_steps(options.test_steps)

    def test(count: int) -> DataLoader[tuple[Tensor, Tensor]]:
        loaded = isinstance(sets, ImageSets) or count == options.frames
        return sets.test if loaded else options.images.load(count).test

    others = [1, 2, 2 * options.steps] if others is None else others
    return measure_spiking(model, test, steps=options.steps, others=others, machine=options.machine)


def _shape(sets: Sets) -> Shape:
    return {"num_classes": sets.classes, "in_channels": sets.channels, "image_size": sets.size}


def checked_steps(test_steps: list[int] | int | None) -> list[int] | None:
    """Numbers of steps as a list.

    Raises:
        ConfigError: one is below 1.
    """
    counts = [test_steps] if isinstance(test_steps, int) else test_steps
    if min(counts or [1]) < 1:
        raise ConfigError(f"test_steps={counts}: each number of steps is at least 1.")
    return counts


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
