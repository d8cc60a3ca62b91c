"""The common parts of `transpike train` and `distill`: create the network, and test the trained one."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from transpike.data import ImageSets
from transpike.errors import ConfigError
from transpike.experiments.learning import Learning
from transpike.experiments.source import Sets
from transpike.models import create_model, save_network
from transpike.report.terminal import spiking_tables, summary
from transpike.results import Distillation, Evaluation, RunFolder, Training
from transpike.train.options import Arguments
from transpike.train.processes import first_process
from transpike.train.runs import checked_steps

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.data import DataLoader

    from transpike.train import Fitted
    from transpike.train.stages import Shape

__all__ = ["check_outputs", "finish", "make_student"]

CALIBRATION = 128
"""The number of training images that set the thresholds, if a network starts from the ANN with the same layers."""


def check_outputs(sets: Sets) -> None:
    """Check ``outputs`` against the number of classes that a network trained on these images has.

    Raises:
        ConfigError: The numbers differ. The message has the number of classes.
    """
    wanted = sets.loading.outputs
    if wanted is not None and wanted != sets.classes:
        raise ConfigError(
            f"loading.outputs={wanted}: {sets.name} has {sets.classes} classes, and so a network that is trained on it "
            "has as many outputs. Omit the option. Only folders named by ImageNet's synsets take 1000."
        )


def make_student(options: Learning, sets: Sets) -> nn.Module:
    """Return the network with its initial weights: the seed determines them, or `Learning.start` gives them.

    Raises:
        ConfigError: As for `check_outputs`.
        ModelError: As for `create_model` and `start_from`.
    """
    check_outputs(sets)
    torch.manual_seed(options.seed)
    kwargs = options.network or {}
    model = create_model(options.learner, **_shape(sets), weights=options.weights, **kwargs)
    if options.start is not None and isinstance(sets, ImageSets):
        from transpike.train.start import create_twin, start_from

        twin = create_twin(options.learner, options.start, _shape(sets), kwargs)
        start_from(model, twin, sets.calibration(CALIBRATION), steps=options.steps or 1)
    return model


def finish(
    options: Learning, sets: Sets, fitted: Fitted, run: RunFolder, *, distillation: Distillation | None = None
) -> Training:
    """Save the trained network, test it, and write and print its results."""
    from transpike.train.record import after_training, image_facts

    if first_process():
        kwargs = {**(options.network or {}), **({} if options.start is None else _thresholds(fitted.model))}
        about = {"name": options.learner, "kwargs": kwargs, **_shape(sets), **image_facts(sets)}
        save_network(fitted.model, {**about, "steps": options.steps}, run.folder)
    results = after_training(_test(options, sets, fitted.model), fitted, distillation=distillation)
    if first_process():
        run.write(results)
        Console(highlight=False).print(*spiking_tables(results), sep="\n", end="\n" * (results.spiking is not None))
        after = f"after epoch {fitted.epoch} of {options.training.epochs}"
        print(f"{summary(results)} {after}. Written to {run.folder}")
    return results


def _test(options: Learning, sets: Sets, model: nn.Module) -> Evaluation:
    """Return accuracy on the test images; for a spiking network at several T, with its operations and energy."""
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


def _thresholds(model: nn.Module) -> Arguments:
    """Return the argument that gives a new network these thresholds."""
    return {"v_threshold": [node.v_threshold for node in model.modules() if hasattr(node, "v_threshold")]}


def _shape(sets: Sets) -> Shape:
    return {"num_classes": sets.classes, "in_channels": sets.channels, "image_size": sets.size}
