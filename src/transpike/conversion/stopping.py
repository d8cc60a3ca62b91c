r"""When an answer is sure enough: scores, and a threshold with a guarantee.

Let :math:`\lambda` be the threshold that a sample's score must exceed for it to stop, and :math:`L_i(\lambda)` the
loss of calibration image i: 1 if its answer at that step is not that of the full run. A later answer may be wrong where
an earlier one was right, so :math:`L_i` need not fall with :math:`\lambda`; its running maximum from above does,

.. math::
    \tilde L_i(\lambda) = \max_{\mu \ge \lambda} L_i(\mu), \qquad
    \hat\lambda = \inf \Big\{ \lambda : \frac{\sum_i \tilde L_i(\lambda) + 1}{n + 1} \le \alpha \Big\}

and for a new image from the same source the expected loss at :math:`\hat\lambda` is at most :math:`\alpha`, whatever
the network and the score are. Source: Angelopoulos, Bates, Fisch, Lei, Schuster, "Conformal Risk Control", ICLR 2024
(arXiv:2208.02814), for losses of at most 1: Theorem 1, and its remedy for losses that are not monotone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from transpike.checks import choice, number, refuse, whole
from transpike.errors import ConfigError, DataError, ModelError
from transpike.files import Record

__all__ = ["SCORES", "Changed", "Said", "Score", "StopRule", "beyond", "least_images", "other_prediction"]


class Said(NamedTuple):
    """What a score is made of, after one step.

    Attributes:
        outputs: decoded so far, [N, values].
        before: the same a step earlier; None at the first step that is looked at.
        left: the share of a train's whole worth that is still to come, 1 to 0; of CSS about beta^-t.
    """

    outputs: Tensor
    before: Tensor | None
    left: float


_SEEN = 33  # quantiles

Score = Callable[[Said], Tensor]
"""How sure each sample is, [N]: the larger the surer, in any unit."""
Changed = Callable[[Tensor, Tensor], Tensor]
"""The loss [N], 0 to 1, of answers [N, \\*] beside those of the full run."""


def margin(said: Said) -> Tensor:
    """The largest output less the second largest.

    >>> margin(Said(torch.tensor([[3.0, 1.0, 0.0]]), None, 0.5)).item()
    2.0
    """
    first, second = said.outputs.topk(2, 1).values.unbind(1)
    return first - second


def entropy(said: Said) -> Tensor:
    """The negative entropy of the softmax of the outputs, in nats.

    >>> round(entropy(Said(torch.zeros(1, 4), None, 0.5)).item(), 4) == round(-math.log(4), 4)
    True
    """
    logs = said.outputs.log_softmax(1)
    total: Tensor = (logs.exp() * logs).sum(1)
    return total


def bound(said: Said) -> Tensor:
    """The margin over what can still change: in units of the share of a train's worth that is still to come.

    >>> bound(Said(torch.tensor([[3.0, 1.0, 0.0]]), None, 0.5)).item()
    4.0
    """
    return margin(said) / said.left if said.left else torch.full_like(said.outputs[:, 0], math.inf)


def steady(said: Said) -> Tensor:
    """The largest change of an output in the last step, negative: for outputs that are no classes.

    >>> steady(Said(torch.tensor([[3.0, 1.0]]), torch.tensor([[2.5, 1.0]]), 0.5)).item()
    -0.5
    """
    if said.before is None:
        return torch.full_like(said.outputs[:, 0], -math.inf)
    return -(said.outputs - said.before).abs().amax(1)


SCORES: dict[str, Score] = {"bound": bound, "margin": margin, "entropy": entropy, "steady": steady}


def other_prediction(answer: Tensor, full: Tensor) -> Tensor:
    """Whether the largest output is another one.

    >>> other_prediction(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 2.0]]))
    tensor([1.])
    """
    return (answer.flatten(1).argmax(1) != full.flatten(1).argmax(1)).float()


def beyond(error: float) -> Changed:
    """Whether an output differs by more than ``error``.

    >>> beyond(0.5)(torch.tensor([[1.0], [1.0]]), torch.tensor([[1.4], [2.0]]))
    tensor([0., 1.])
    """
    return lambda answer, full: ((answer - full).flatten(1).abs().amax(1) > error).float()


def least_images(agreement: float) -> int:
    """How many calibration images an agreement needs: 1 / (1 - agreement) - 1.

    >>> least_images(0.995), least_images(0.999)
    (199, 999)
    """
    level = 1 - number("agreement", agreement, above=0, below=1)
    return max(math.ceil(1 / level - 1 - 1e-6), 1)


@dataclass(frozen=True)
class StopRule:
    """When a sample stops, for any agreement: what calibration images have shown.

    Attributes:
        score: a name in `SCORES`, or a function of `Said`.
        first: the first step at which a sample may stop.
        images: how many calibration images it comes from.
        losses: (threshold, loss) from the largest threshold down: what all images together lose more at this threshold
            and below it.
        seen: quantiles of the images' scores after each step from the first to the last but one. They decide how a run
            is cut into pieces, and nothing else; without them it has a piece for each step.
    """

    score: str | Score
    first: int
    images: int
    losses: tuple[tuple[float, float], ...] = field(repr=False)
    seen: tuple[tuple[float, ...], ...] = field(default=(), repr=False)

    def threshold(self, agreement: float) -> float:
        """What a sample's score must exceed for it to stop.

        Raises:
            ConfigError: if there are too few calibration images for this agreement.

        Example:
            >>> rule = StopRule("margin", 1, 199, ((4.0, 1.0), (2.5, 1.0), (1.0, 1.0)))
            >>> rule.threshold(0.995), rule.threshold(0.99), rule.threshold(0.98)
            (4.0, 2.5, -inf)
            >>> rule.threshold(0.999)
            Traceback (most recent call last):
            ...
            transpike.errors.ConfigError: agreement=0.999 needs at least 999 calibration images; this rule has 199, ...
        """
        if self.images < (needed := least_images(agreement)):
            raise ConfigError(
                f"agreement={agreement} needs at least {needed} calibration images; this rule has {self.images}, "
                f"enough for an agreement of {self.images / (self.images + 1):.6g}. Use more images, or a lower "
                "agreement."
            )
        budget = (1 - agreement) * (self.images + 1) - 1 + 1e-6
        lost = 0.0
        for threshold, loss in self.losses:
            lost += loss
            if lost > budget:
                return threshold
        return -math.inf

    def unsure(self, threshold: float) -> tuple[float, ...]:
        """The share of calibration images that do not stop at each step of `seen`.

        Example:
            >>> StopRule("margin", 2, 199, (), ((0.0, 1.0, 2.0, 9.0), (5.0, 6.0, 7.0, 9.0))).unsure(1.5)
            (0.5, 0.0)
        """
        return tuple(sum(one <= threshold for one in scores) / len(scores) for scores in self.seen)

    def sure(self, said: Said) -> Tensor:
        """How sure each sample is, [N].

        Raises:
            DataError: if a score of one's own gives something else.
        """
        score = SCORES[self.score] if isinstance(self.score, str) else self.score
        found = score(said)
        if not isinstance(found, Tensor) or found.shape != said.outputs.shape[:1]:
            raise DataError(
                f"the score gives {getattr(found, 'shape', type(found).__name__)}, not one number for each sample"
            )
        return found

    def scores(self, outputs: Tensor, left: tuple[float, ...]) -> Tensor:
        """How sure samples are after each step, [T, N]: -inf before the first that counts, inf at the last."""
        flat = outputs.flatten(2)
        rows = [torch.full_like(flat[0, :, 0], -math.inf)] * (self.first - 1)
        for step in range(self.first - 1, len(flat) - 1):
            rows.append(self.sure(Said(flat[step], flat[step - 1] if step >= self.first else None, left[step])))
        rows.append(torch.full_like(flat[0, :, 0], math.inf))
        return torch.stack(rows).nan_to_num(-math.inf, math.inf, -math.inf)

    def written(self) -> dict[str, Any]:
        """As plain data.

        Raises:
            ModelError: for a score of one's own, which no file can hold.
        """
        if not isinstance(self.score, str):
            raise ModelError(
                "stop: its score is a function, and a file cannot hold a function. Calibrate with a score's name, or "
                "remove the rule: snn.stop = None."
            )
        thresholds, losses = ([pair[k] for pair in self.losses] for k in (0, 1))
        return {
            "score": self.score,
            "first": self.first,
            "images": self.images,
            "thresholds": thresholds,
            "losses": losses,
            "seen": [score for scores in self.seen for score in scores],
        }

    @classmethod
    def read(cls, entry: Record, steps: int) -> StopRule:
        """What `written` wrote, for a network of so many steps.

        Raises:
            TranspikeError: that of the record, for anything else.
        """
        entry.only("score", "first", "images", "thresholds", "losses", "seen")
        score = entry.text("score", choices=tuple(SCORES))
        first, images = entry.whole("first", least=1, most=steps), entry.whole("images", least=1)
        thresholds, losses = entry.numbers("thresholds"), entry.numbers("losses")
        if len(thresholds) != len(losses) or thresholds != sorted(thresholds, reverse=True):
            raise entry.wrong("stop.thresholds: expected as many as losses, the largest first.")
        if not all(0 < loss <= images for loss in losses) or sum(losses) > images * (1 + 1e-6):
            raise entry.wrong(f"stop.losses: expected numbers above 0, together at most images={images}.")
        seen = entry.numbers("seen") if entry.has("seen") else []
        if seen and (first == steps or len(seen) % (steps - first)):
            raise entry.wrong(f"stop.seen: expected as many numbers for each step from first={first} to {steps - 1}.")
        of_step = len(seen) // max(steps - first, 1)
        rows = tuple(tuple(seen[at : at + of_step]) for at in range(0, len(seen), of_step or 1))
        return cls(score, first, images, tuple(zip(thresholds, losses, strict=True)), rows)

    def stops(self, outputs: Tensor, left: tuple[float, ...], *, agreement: float) -> Tensor:
        """The steps [N] at which samples of known outputs [T, N, \\*] stop."""
        return (self.scores(outputs, left) > self.threshold(agreement)).float().argmax(0) + 1


def learned(
    outputs: Tensor, left: tuple[float, ...], *, score: str | Score, changed: Changed, first: int = 2
) -> StopRule:
    """The rule of calibration images whose outputs [T, N, \\*] after every step are known.

    Args:
        outputs: of one output of the network.
        left: `Said.left` after each step.
        score: a name in `SCORES`, or a function.
        changed: the loss of an answer.
        first: the first step at which a sample may stop.

    Raises:
        ConfigError: for an unknown score, and for losses outside 0 to 1.
    """
    if isinstance(score, str):
        choice("score", score, SCORES)
        if outputs[0, :1].numel() < 2 and score != "steady":
            raise ConfigError(f"score={score!r}: the network has one output per sample; use 'steady' and an error=.")
    elif not callable(score):
        raise refuse("score", score, "a name or a function")
    rule = StopRule(score, whole("first", first, most=len(outputs)), outputs.shape[1], ())
    scores = rule.scores(outputs, left)
    loss, later = [], torch.zeros_like(scores[0])
    record = torch.cat([torch.full_like(scores[:1], -math.inf), scores.cummax(0).values[:-1]])
    for step in reversed(range(len(outputs) - 1)):
        lost = changed(outputs[step], outputs[-1]).to(scores)
        if lost.shape != later.shape or not ((lost >= 0) & (lost <= 1)).all():
            raise ConfigError("changed: expected a function that gives one loss from 0 to 1 for each sample.")
        reached = torch.where(scores[step] > record[step], torch.maximum(lost, later), later)
        loss.append((scores[step], reached - later))
        later = reached
    pairs = [pair for where, lost in loss for pair in zip(where.tolist(), lost.tolist(), strict=True) if pair[1] > 0]
    between, most = scores[rule.first - 1 : -1].float(), torch.finfo(torch.float32).max
    seen = between.sort(1).values.clamp(-most, most)[:, torch.linspace(0, rule.images - 1, _SEEN).long()]
    return StopRule(
        rule.score, rule.first, rule.images, tuple(sorted(pairs, reverse=True)), tuple(map(tuple, seen.tolist()))
    )
