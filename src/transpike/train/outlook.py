"""Estimates the time of a training before it is spent, and warns if a network does not learn."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import lightning as L

from transpike.train.callbacks import Curves, OneBar
from transpike.train.classify import Classifier
from transpike.train.options import TrainOptions

__all__ = ["Outlook", "at_chance", "span"]

SOON = 20.0
"""Seconds above which the time of the whole training is printed. A shorter training prints none."""

PATIENCE = 3
"""Epochs that a network has to become better than chance, in addition to the warm-up."""


class Outlook(L.Callback):
    """Prints the number of parameters, the size of a checkpoint and the training's time; warns if it stays at chance.

    Args:
        curves: the rows of the epochs. Its callback must come before this one.
        bar: the progress bar, above which the lines are printed.
        clock: returns seconds.

    Attributes:
        started: whether the training has begun. Before that, a checkpoint is read.
    """

    def __init__(self, curves: Curves, bar: OneBar, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self.curves, self.bar, self.clock = curves, bar, clock
        self._began = clock()
        self._batches = 0
        self._silent = False
        self.started = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        self.started = True
        self._silent = not trainer.is_global_zero
        self._began = self.clock()
        count = sum(parameter.numel() for parameter in pl_module.model.parameters())
        self._say(f"{count:,} parameters; a checkpoint takes about {_size(checkpoint_bytes(pl_module))}")

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self._batches += 1
        if self._silent:
            return
        spent = self.clock() - self._began
        if self._batches > 1 and spent >= SOON:
            self._say(estimate(trainer, spent / (self._batches - 1)))
            self._silent = True
        elif self._batches == 1:
            # The first batches also do what is needed only once, such as compiling kernels and opening files.
            self._began += spent
            if spent >= SOON:
                self._say(f"{estimate(trainer, spent)}, if all take as long as the first")

    def _say(self, text: str) -> None:
        if not self._silent:
            self.bar.say(text)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        row, classes, options = self.curves.rows[-1], pl_module.classes, pl_module.options
        if trainer.is_global_zero and row["epoch"] == due(options) and at_chance(row, classes):
            warnings.warn(
                f"after {int(row['epoch'])} epochs the network still guesses: {row['train_accuracy']:.1%} of the "
                f"training images are right, and chance gives {1 / classes:.1%} with {classes} classes. Check that the "
                "labels belong to the images, and that the images are normalised; lower or raise optim.lr "
                f"({options.optim.lr:g}).",
                stacklevel=1,
            )


def estimate(trainer: L.Trainer, seconds: float) -> str:
    """Return the time for the remaining batches. A validation batch, which only goes forward, counts as a third.

    Args:
        trainer: a trainer in training.
        seconds: the time of a training batch.
    """
    left = int(trainer.estimated_stepping_batches) - trainer.global_step
    share = sum(trainer.num_val_batches) / (3 * trainer.num_training_batches)
    return f"{span(left * seconds * (1 + share))} for the {left:,} batches that are left, {seconds:.2g} s each"


def due(options: TrainOptions) -> int:
    """Return the epoch after which a network should be better than chance."""
    return PATIENCE + math.ceil(options.optim.warmup)


def at_chance(row: dict[str, float], classes: int) -> bool:
    """Whether an epoch's accuracies in training and validation are hardly better than guessing.

    Example:
        >>> at_chance({"train_accuracy": 0.11, "validation_accuracy": 0.09}, 10), at_chance({"train_accuracy": 0.3}, 10)
        (True, False)
    """
    chance = 1 / classes
    best = max(row["train_accuracy"], row.get("validation_accuracy", 0.0))
    return best <= min(1.2 * chance, chance + 0.05)


def checkpoint_bytes(classifier: Classifier) -> int:
    """Return the bytes of a checkpoint: weights, the optimiser's state for each, and their average if there is one."""
    state: int = sum(getattr(value, "nbytes", 0) for value in classifier.state_dict().values())
    trained: int = sum(p.nbytes for p in classifier.trained.parameters() if p.requires_grad)
    optim, averaged = classifier.options.optim, classifier.options.recipe.ema is not None
    remembered = 2 if optim.name == "adamw" else int(optim.momentum > 0)
    return state * (1 + averaged) + trained * remembered


def span(seconds: float) -> str:
    """Return a duration in everyday words.

    Example:
        >>> span(42), span(700), span(8000), span(3e5)
        ('about 42 s', 'about 12 min', 'about 2 h 13 min', 'about 3 d 11 h')
    """
    if seconds < 90:
        return f"about {seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"about {minutes} min"
    if minutes < 24 * 60:
        return f"about {minutes // 60} h {minutes % 60} min"
    hours = round(minutes / 60)
    return f"about {hours // 24} d {hours % 24} h"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"
