"""What `transpike study` finds: arms beside each other, their runs paired by seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from transpike.results.records import Count, Steps

__all__ = ["Arm", "Findings", "Mean", "MeanAt", "Outcome"]

State = Literal["finished", "stopped", "failed", "waiting"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A run of a study.

    Attributes:
        seed: of the run.
        state: whether it is finished, was stopped as hopeless, failed, or waits to be run.
        folder: where it lies.
        accuracy: what the study compares, in [0, 1]; None unless it is finished.
        seconds: that its training took.
        note: why it was stopped or failed.
    """

    seed: Count
    state: State
    folder: str
    accuracy: float | None = None
    seconds: float | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Mean:
    """An epoch of an arm's curves: means over its finished runs.

    Attributes:
        epoch: its number, from 1.
        loss: all terms together.
        train_accuracy: in [0, 1].
        validation_accuracy: in [0, 1]; None without validation images.
    """

    epoch: Count
    loss: float
    train_accuracy: float
    validation_accuracy: float | None = None


@dataclass(frozen=True, kw_only=True)
class MeanAt:
    """Mean test accuracy of an arm's spiking networks, run for so many steps after one training."""

    steps: Steps
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What differs from the baseline in one thing, at one setting; accuracies in [0, 1].

    Attributes:
        label: the arm's.
        setting: what of the study's `over` it is at; empty where there is one setting.
        runs: by seed.
        mean: of the finished runs; None without any.
        deviation: sample deviation over seeds; None of fewer than two.
        difference: mean difference from the baseline over the seeds that both have; None for the baseline itself.
        low: lower end of its 95 % interval, by Student's t of the paired differences; None of fewer than two pairs.
        high: upper end.
        pairs: how many seeds both have.
        seeds_for_point: how many seeds such an interval takes to be no wider than one point to either side, if the
            deviation is what these runs show: that of the differences; of the baseline, that of two independent runs.
        seconds: mean of a run's training.
        curves: by epoch.
        by_steps: by T at the test, of spiking networks.
    """

    label: str
    setting: str = ""
    runs: tuple[Outcome, ...]
    mean: float | None = None
    deviation: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    pairs: Count = 0
    seeds_for_point: Count | None = None
    seconds: float | None = None
    curves: tuple[Mean, ...] = ()
    by_steps: tuple[MeanAt, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The arms of a study.

    Attributes:
        title: of the study.
        measure: what is compared: accuracy on test images, or on validation images.
        baseline: the arm that the others are compared with.
        arms: setting by setting.
    """

    title: str
    measure: Literal["test", "validation"]
    baseline: str
    arms: tuple[Arm, ...]

    def state(self, state: State) -> int:
        """How many runs are in a state."""
        return sum(run.state == state for arm in self.arms for run in arm.runs)
