"""Stops a training that is far behind another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L

from transpike.train.callbacks import Curves, Interrupted

__all__ = ["StopHopeless"]


class StopHopeless(L.Callback):
    """Stops a training if its validation accuracy is too far behind a rival's in the same epoch.

    It checks when an epoch begins. Then the epoch before has its checkpoint, from which the training can continue.

    Args:
        rival: validation accuracy by epoch, in [0, 1].
        after: the number of epochs before the first check.
        behind: the largest difference in percentage points.

    Attributes:
        reason: why the training was stopped. Empty if it was not.
    """

    def __init__(self, rival: Sequence[float], *, after: int, behind: float) -> None:
        self.rival, self.after, self.behind = rival, after, behind
        self.reason = ""

    def on_train_epoch_start(self, trainer: L.Trainer, *_: Any) -> None:
        (curves,) = [one for one in trainer.callbacks if isinstance(one, Curves)]  # type: ignore[attr-defined]
        done = len(curves.rows)
        if not self.after <= done <= len(self.rival):
            return
        own, other = curves.rows[-1]["validation_accuracy"], self.rival[done - 1]
        if 100 * (other - own) > self.behind:
            self.reason = f"after {done} epochs {own:.2%} of the validation images, where the baseline had {other:.2%}"
            raise Interrupted
