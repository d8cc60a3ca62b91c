"""The results of `transpike study`: arms side by side, with their runs paired by seed."""

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
        seed: the run's seed.
        state: whether it is finished, was stopped as hopeless, has failed, or waits to run.
        folder: the run's folder.
        accuracy: the figure that the study compares, in [0, 1]. None unless it is finished.
        seconds: the time of its training.
        note: why it was stopped or has failed.
    """

    seed: Count
    state: State
    folder: str
    accuracy: float | None = None
    seconds: float | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Mean:
    """One epoch of an arm's curves: means over its finished runs.

    Attributes:
        epoch: the epoch's number, from 1.
        loss: the sum of all terms.
        train_accuracy: in [0, 1].
        validation_accuracy: in [0, 1]. None without validation images.
    """

    epoch: Count
    loss: float
    train_accuracy: float
    validation_accuracy: float | None = None


@dataclass(frozen=True, kw_only=True)
class MeanAt:
    """The mean test accuracy of an arm's spiking networks, run for so many steps after one training."""

    steps: Steps
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Arm:
    """An arm of a study, which differs from the baseline in one thing, at one setting. Accuracies are in [0, 1].

    Attributes:
        label: the arm's label.
        setting: its setting from the study's `over`. Empty if there is only one setting.
        runs: the runs by seed.
        mean: the mean of the finished runs. None if there are none.
        deviation: the sample deviation over seeds. None for fewer than two.
        difference: the mean difference from the baseline over common seeds. None for the baseline itself.
        low: the lower end of its 95 % interval, by Student's t of the paired differences. None for fewer than two
            pairs.
        high: the upper end.
        pairs: the number of common seeds.
        seeds_for_point: the number of seeds with which such an interval extends at most one point to either side, if
            the deviation is that of these runs. It is the deviation of the differences; for the baseline, that of two
            independent runs.
        seconds: the mean time of a run's training.
        curves: the means by epoch.
        by_steps: the means by T at the test, for spiking networks.
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
        title: the title of the study.
        measure: what is compared: accuracy on test images, or on validation images.
        baseline: the arm with which the others are compared.
        arms: the arms, by setting.
    """

    title: str
    measure: Literal["test", "validation"]
    baseline: str
    arms: tuple[Arm, ...]

    def state(self, state: State) -> int:
        """Return the number of runs in a state."""
        return sum(run.state == state for arm in self.arms for run in arm.runs)
