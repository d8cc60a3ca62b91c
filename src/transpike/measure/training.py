"""The results of a network that was trained: those of its test, and how it came to them."""

from __future__ import annotations

from dataclasses import fields

from transpike.results import Distillation, Epoch, Evaluation, Training
from transpike.train import Fitted

__all__ = ["after_training", "epochs_of"]


def after_training(results: Evaluation, fitted: Fitted, *, distillation: Distillation | None = None) -> Training:
    """The results of a test, and of the training before it.

    Args:
        results: of the network that was trained.
        fitted: what training gave.
        distillation: what the network learned from, if it was not labels alone.
    """
    return Training(
        **{one.name: getattr(results, one.name) for one in fields(results)},
        weights_of_epoch=fitted.epoch,
        validation_accuracy=fitted.validation_accuracy,
        epochs=epochs_of(fitted.curves),
        distillation=distillation,
    )


def epochs_of(curves: list[dict[str, float]]) -> tuple[Epoch, ...]:
    """A row an epoch, as training gives them; a loss of several terms has each by name.

    >>> row = {"epoch": 1, "loss": 2.0, "train_accuracy": 0.5, "cross_entropy": 1.5, "kd": 0.5, "lr": 0.1, "seconds": 3}
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
