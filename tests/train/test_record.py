"""The results of a network after its training."""

from __future__ import annotations

from torch import nn

from transpike.results import AtSteps, Evaluation
from transpike.train import Fitted
from transpike.train.record import after_training

TESTED = Evaluation(
    model="mlp",
    dataset="digits",
    images=360,
    accuracy=0.5,
    loss=0.75,
    by_steps=(AtSteps(steps=4, accuracy=0.5, loss=1),),
)


def test_it_is_the_test_and_the_curves() -> None:
    row = {"epoch": 2, "loss": 2.0, "train_accuracy": 0.25, "lr": 0.1, "seconds": 3.0}
    held_out = {"validation_loss": 1.0, "validation_accuracy": 0.125}
    found = after_training(TESTED, Fitted(nn.Identity(), [row, row | held_out | {"kd": 0.5}], 2, 0.125))
    assert (found.model, found.accuracy, found.by_steps) == ("mlp", 0.5, TESTED.by_steps)
    assert (found.weights_of_epoch, found.validation_accuracy, found.distillation) == (2, 0.125, None)
    without, last = found.epochs
    assert (without.epoch, without.validation_loss, without.terms) == (2, None, {})
    assert (last.validation_loss, last.validation_accuracy, last.terms) == (1.0, 0.125, {"kd": 0.5})
