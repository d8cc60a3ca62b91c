"""What `transpike train` and `distill` share: their options, a student, and the results in the end."""

from __future__ import annotations

from dataclasses import Field, asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

import torch
from rich.console import Console

from transpike.data import ImageSets, Loading
from transpike.experiments.options import record
from transpike.experiments.source import Data, Sets
from transpike.models import create_model, save_network
from transpike.report.terminal import spiking_tables, summary
from transpike.results import Distillation, Evaluation, RunFolder, Training
from transpike.train.options import Arguments, Machine, Optim, Recipe, TrainOptions, epochs_for
from transpike.train.processes import first_process
from transpike.train.runs import checked_steps, student_steps

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.data import DataLoader

    from transpike.train import Fitted
    from transpike.train.stages import Shape

__all__ = ["Learning", "finish", "make_student", "recorded", "settled"]

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


def make_student(options: Learning, sets: Sets) -> nn.Module:
    """The network with its first weights, which the seed fixes."""
    torch.manual_seed(options.seed)
    return create_model(options.learner, **_shape(sets), weights=options.weights, **(options.network or {}))


def finish(
    options: Learning, sets: Sets, fitted: Fitted, run: RunFolder, *, distillation: Distillation | None = None
) -> Training:
    """Save the trained network, test it, and write and print its results."""
    from transpike.measure.training import after_training

    if first_process():
        facts = {"data": sets.name, "class_names": sets.class_names, "steps": options.steps}
        facts |= {name: getattr(sets, name) for name in ("mean", "std", "split_by") if hasattr(sets, name)}
        about = {"name": options.learner, "kwargs": options.network or {}, **_shape(sets), **facts}
        save_network(fitted.model, about, run.folder)
    results = after_training(_test(options, sets, fitted.model), fitted, distillation=distillation)
    if first_process():
        run.write(results)
        Console(highlight=False).print(*spiking_tables(results), sep="\n", end="\n" * (results.spiking is not None))
        after = f"after epoch {fitted.epoch} of {options.training.epochs}"
        print(f"{summary(results)} {after}. Written to {run.folder}")
    return results


def _test(options: Learning, sets: Sets, model: nn.Module) -> Evaluation:
    """Accuracy on the test images; of a spiking network at several T, with what it spends."""
    from transpike.measure.spiking import measure_spiking
    from transpike.train import evaluate

    about, machine, steps = {"model": options.learner, "dataset": options.data}, options.machine, options.steps
    if steps is None:
        return Evaluation(**about | asdict(evaluate(model, sets.test, machine=machine)))
    others = checked_steps(options.test_steps)

    def test(count: int) -> DataLoader[tuple[Tensor, Tensor]]:
        loaded = isinstance(sets, ImageSets) or count == options.frames
        return sets.test if loaded else options.images.load(count).test

    others = [1, 2, 2 * steps] if others is None else others
    tested, by_steps, spiking = measure_spiking(model, test, steps=steps, others=others, machine=machine)
    return Evaluation(**about | asdict(tested), by_steps=by_steps, spiking=spiking)


def _shape(sets: Sets) -> Shape:
    return {"num_classes": sets.classes, "in_channels": sets.channels, "image_size": sets.size}
