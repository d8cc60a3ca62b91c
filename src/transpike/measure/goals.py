"""The goal and limits of a search for a spiking network, and the images that judge it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from transpike.checks import near, number, refuse
from transpike.conversion import Prepared, SpikingNetwork
from transpike.conversion.anytime import left
from transpike.conversion.sensitivity import deviations, flat_outputs
from transpike.conversion.stopping import Changed, learned, other_prediction
from transpike.errors import ConfigError
from transpike.measure.conversion import logits
from transpike.measure.outputs import find_metric, scored
from transpike.metrics.tasks import METRICS, Metric

__all__ = ["BATCH", "Goal", "Held", "Score"]

BATCH = 64
"""The number of images in one simulation."""


@dataclass(frozen=True)
class Goal:
    """How close the spiking network must come to the original network.

    Attributes:
        kind: ``"same"``, the least percentage of equal predictions; ``"error"``, the largest relative error of the
            centred outputs in percent; ``"loss"``, the most percentage points of accuracy lost; or the name of a
            measure, whose least mean over images, in percent, is the goal, against the outputs of the original network.
        value: the value of the goal.
        margin: predictions must hold even if every deviation of the outputs is multiplied by this. A network is surer
            of images that it was trained on: on new images, up to eight times as many predictions change. Use 1 for
            images that it was not trained on.
        measure: the measure of the outputs; None for the other kinds.
        strained: whether the measure, too, takes outputs whose deviations are multiplied by the margin.

    Example:
        >>> print(Goal.of({"same": 99.5}))
        at least 99.5 % same predictions
        >>> Goal.of({"same": 99.5}).images
        200
    """

    kind: str
    value: float
    margin: float = 4.0
    measure: Metric | None = None
    strained: bool = False

    @classmethod
    def of(cls, given: object) -> Goal:
        """Create a goal from a user's input: one kind with a percentage, and optionally a margin.

        Raises:
            ConfigError: The input has another form.
        """
        kinds = ("same", "error", "loss", *(name for name in METRICS if name != "same"))
        if callable(given):
            given = {"metric": given}
        rest = dict(given) if isinstance(given, Mapping) else {}
        strained = "margin" in rest
        margin = number("goal: margin", rest.pop("margin", cls.margin), least=1)
        if "metric" in rest:
            least = number("goal: least", rest.pop("least", 100), above=0, most=100)
            ((name, metric),) = find_metric(rest.pop("metric")).items()
            if rest:
                raise refuse("goal", given, 'a metric and its least mean, as {"metric": score, "least": 97}')
            return cls(name, least, margin, metric, strained)
        if len(rest) != 1:
            raise refuse("goal", given, 'one of {"same": 99.5}, {"error": 2} and {"loss": 0.2}, in percent')
        ((kind, value),) = rest.items()
        if kind not in kinds:
            raise ConfigError(f"goal: no kind {kind!r}.{near(str(kind), kinds)} There are: {', '.join(kinds)}; metric.")
        if kind == "same":
            return cls("same", number("goal: same", value, above=0, most=100), margin)
        if kind == "error":
            return cls("error", number("goal: error", value, above=0), margin)
        if kind == "loss":
            return cls("loss", number("goal: loss", value, least=0), margin)
        return cls(kind, number(f"goal: {kind}", value, above=0, most=100), margin, METRICS[kind], strained)

    def __str__(self) -> str:
        if self.kind == "same":
            return f"at least {self.value:g} % same predictions"
        if self.kind == "error":
            return f"an error of at most {self.value:g} %"
        if self.measure is not None:
            enlarged = f" with {self.margin:g} times the deviation" if self.strained else ""
            return f"at least {self.value:g} % {self.kind}{enlarged}"
        return f"at most {self.value:g} percentage points of accuracy lost"

    @property
    def images(self) -> int:
        """The number of images needed to check the goal: with so many, one image may fail."""
        share = {"same": 100 - self.value, "loss": self.value}.get(self.kind, 100.0)
        return ceil(100 / share - 1e-9) if share > 0 else 1


@dataclass(frozen=True)
class Score:
    """How close a network came on the images that judged it; see `transpike.results.Try`."""

    images: int
    same: float
    kept: float
    error: float
    loss_pp: float | None
    measure: float | None
    met: bool
    mean_steps: float | None = None

    def distance(self, goal: Goal) -> float:
        """Return the distance from the goal, to compare networks that miss it."""
        if self.measure is not None:
            return 100 - 100 * self.measure
        return {"same": 100 - 100 * self.kept, "error": self.error, "loss": self.loss_pp or 0.0}[goal.kind]


class Held:
    """Images that were not used for the amplitudes, the original network's outputs for them, and the goal.

    Args:
        prepared: the network.
        images: [N, \\*].
        labels: [N]. A loss of accuracy needs them.
        goal: the goal to meet.

    Raises:
        ConfigError: The goal is about predictions, but the first output has only one value for each sample.
    """

    def __init__(self, prepared: Prepared, images: Tensor, labels: Tensor | None, goal: Goal) -> None:
        self.images, self.goal = images.to(prepared.images), goal
        graph = prepared.graph
        with torch.no_grad():
            outputs = [graph.pack(graph.run(x)) for x in self.images.split(BATCH)]
        self._outputs = [tree_map(Tensor.cpu, each) for each in outputs] if goal.measure else []
        if goal.measure:  # one that does not fit fails before any network is made
            first = self._outputs[0]
            scored(goal.measure, first, first, len(self.images[:BATCH]))
        self._want = torch.cat([flat_outputs(each) for each in outputs]).double()
        self._scale = deviations(self._want)
        self._logits = torch.cat([logits(each) for each in outputs])
        if goal.kind in ("same", "loss") and self._logits.shape[1] < 2:
            raise ConfigError(
                f"goal: {goal.kind} compares which output is the largest, but the network has one output per sample; "
                'give an error, such as {"error": 2}'
            )
        self._labels = None if labels is None else labels.to(self._logits.device)
        self._right = None if self._labels is None else self._logits.argmax(1) == self._labels

    @property
    def cost(self) -> int:
        """The number of simulations of a complete judgement."""
        return ceil(len(self.images) / BATCH)

    def judge(self, snn: SpikingNetwork, *, agreement: float | None = None) -> tuple[Score, int]:
        """Return how close ``snn`` comes, and the number of simulations. It ends early if the goal is out of reach.

        With an agreement, a network that meets the goal receives a stop rule from these images, `SpikingNetwork.stop`.
        For this rule, a prediction must hold even if every deviation from the full run's outputs is multiplied by the
        margin.
        """
        sums, taken = _Sums(), 0
        after_steps: list[Tensor] = []
        for x in self.images.split(BATCH):
            said = [moment.outputs for moment in snn.stream(x)] if agreement is not None else [snn(x)]
            after_steps.append(torch.stack([logits(each) for each in said]))
            found = said[-1]
            if self.goal.measure:
                got, want = tree_map(Tensor.cpu, found), self._outputs[taken]
                got = tree_map(_enlarged(self.goal.margin), got, want) if self.goal.strained else got
                sums.measured += scored(self.goal.measure, got, want, len(x))
            self._add(sums, found)
            taken += 1
            if self._hopeless(sums):
                break
        scale = max(float(self._scale[: sums.seen].sum()), torch.finfo(torch.float64).tiny)
        score = Score(
            measure=sums.measured / sums.seen if self.goal.measure else None,
            images=sums.seen,
            same=1 - sums.changed / sums.seen,
            kept=1 - sums.strained / sums.seen,
            error=(sums.missed / scale) ** 0.5,
            loss_pp=None if self._right is None else 100 * sums.lost / sums.seen,
            met=not self._hopeless(sums),
        )
        if agreement is not None and score.met:
            outputs, share = torch.cat(after_steps, 1), left(snn)
            changed = _strained(self.goal.margin)
            snn.stop = learned(outputs, share, score="bound", changed=changed, first=min(2, snn.steps))
            steps = snn.stop.stops(outputs, share, agreement=agreement)
            score = replace(score, mean_steps=float(steps.float().mean()))
        return score, taken

    def _add(self, sums: _Sums, outputs: Any) -> None:
        """Add the errors of ``outputs`` for the next images."""
        got = logits(outputs)
        part = slice(sums.seen, sums.seen + len(got))
        want, said = self._logits[part], self._logits[part].argmax(1)
        strained = (want + self.goal.margin * (got - want)).argmax(1)
        sums.seen = part.stop
        sums.missed += float((flat_outputs(outputs).double() - self._want[part]).square().sum())
        sums.changed += int((got.argmax(1) != said).sum())
        sums.strained += int((strained != said).sum())
        if self._labels is not None and self._right is not None:
            sums.lost += int(self._right[part].sum()) - int((strained == self._labels[part]).sum())

    def _hopeless(self, sums: _Sums) -> bool:
        """Whether the goal is missed even if the remaining images are perfect; after the last, whether it is missed."""
        count, value = len(self.images), self.goal.value
        if self.goal.kind == "same":
            return sums.strained > count * (100 - value) / 100 + 1e-9
        if self.goal.measure:
            return sums.measured + count - sums.seen < count * (value / 100 - 1e-9)
        if self.goal.kind == "error":
            return sums.missed > float(self._scale.sum()) * (value / 100) ** 2
        gained = 0 if self._right is None else int((~self._right[sums.seen :]).sum())
        return sums.lost - gained > count * value / 100 + 1e-9


def _enlarged(margin: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Outputs with so many times their deviation from those of the network; whole numbers, such as labels, as are."""
    return lambda got, want: want + margin * (got - want) if want.is_floating_point() else got


def _strained(margin: float) -> Changed:
    """Return a check if predictions change when deviations from the full run's outputs are multiplied by ``margin``."""
    return lambda answer, full: other_prediction(full + margin * (answer - full), full)


@dataclass
class _Sums:
    """Sums over the images so far: changed predictions, those with strained outputs, lost right ones, squared error."""

    seen: int = 0
    changed: int = 0
    strained: int = 0
    lost: int = 0
    missed: float = 0.0
    measured: float = 0.0
