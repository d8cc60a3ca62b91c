r"""Decides when an answer is sure enough: scores, and a threshold with a guarantee.

A sample stops at the first step at which its score exceeds the threshold :math:`\lambda`. :math:`L_i(\lambda)` is the
loss of calibration image i: 1 if its answer at that step differs from the answer of the full run, otherwise 0. A later
answer may be wrong although an earlier one was right, so :math:`L_i` may rise with :math:`\lambda`. Its running maximum
from above cannot:

.. math::
    \tilde L_i(\lambda) = \max_{\mu \ge \lambda} L_i(\mu), \qquad
    \hat\lambda = \inf \Big\{ \lambda : \frac{\sum_i \tilde L_i(\lambda) + 1}{n + 1} \le \alpha \Big\}

For n calibration images, the expected loss of a new image from the same source at :math:`\hat\lambda` is at most
:math:`\alpha`. This holds for every network and every score. An agreement of 0.999 means :math:`\alpha = 0.001`.

Source: Angelopoulos, Bates, Fisch, Lei, Schuster, "Conformal Risk Control", ICLR 2024 (arXiv:2208.02814), for losses of
at most 1: Theorem 1, and its extension to losses that are not monotone.
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
    """The outputs after one step, from which a score is computed.

    Attributes:
        outputs: the outputs decoded so far, [N, values].
        before: the outputs one step earlier. None at the first step at which a sample may stop.
        left: the share of a train's weights that is still to come, from 1 down to 0. For CSS it is about beta^-t after
            t steps.
    """

    outputs: Tensor
    before: Tensor | None
    left: float


_SEEN = 33  # number of quantiles in `StopRule.seen`

Score = Callable[[Said], Tensor]
"""A function that returns how sure each sample is, [N]. Larger means surer. The unit is free."""
Changed = Callable[[Tensor, Tensor], Tensor]
"""A function of answers [N, \\*] and the answers of the full run. It returns a loss [N] from 0 to 1."""


def margin(said: Said) -> Tensor:
    """Return the largest output minus the second largest, [N].

    Example:
        >>> margin(Said(torch.tensor([[3.0, 1.0, 0.0]]), None, 0.5)).item()
        2.0
    """
    first, second = said.outputs.topk(2, 1).values.unbind(1)
    return first - second


def entropy(said: Said) -> Tensor:
    """Return the negative entropy of the softmax of the outputs, in nats, [N].

    Example:
        >>> round(entropy(Said(torch.zeros(1, 4), None, 0.5)).item(), 4) == round(-math.log(4), 4)
        True
    """
    logs = said.outputs.log_softmax(1)
    total: Tensor = (logs.exp() * logs).sum(1)
    return total


def bound(said: Said) -> Tensor:
    """Return the `margin` divided by the share of a train's weights that is still to come, [N].

    Example:
        >>> bound(Said(torch.tensor([[3.0, 1.0, 0.0]]), None, 0.5)).item()
        4.0
    """
    return margin(said) / said.left if said.left else torch.full_like(said.outputs[:, 0], math.inf)


def steady(said: Said) -> Tensor:
    """Return minus the largest change of an output in the last step, [N]. It suits outputs that are not classes.

    Example:
        >>> steady(Said(torch.tensor([[3.0, 1.0]]), torch.tensor([[2.5, 1.0]]), 0.5)).item()
        -0.5
    """
    if said.before is None:
        return torch.full_like(said.outputs[:, 0], -math.inf)
    return -(said.outputs - said.before).abs().amax(1)


SCORES: dict[str, Score] = {"bound": bound, "margin": margin, "entropy": entropy, "steady": steady}


def other_prediction(answer: Tensor, full: Tensor) -> Tensor:
    """Return 1 for each answer whose largest output is not that of the full run, otherwise 0, [N].

    Example:
        >>> other_prediction(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 2.0]]))
        tensor([1.])
    """
    return (answer.flatten(1).argmax(1) != full.flatten(1).argmax(1)).float()


def beyond(error: float) -> Changed:
    """Return a loss that is 1 for each answer with an output that differs by more than ``error``, otherwise 0, [N].

    Example:
        >>> beyond(0.5)(torch.tensor([[1.0], [1.0]]), torch.tensor([[1.4], [2.0]]))
        tensor([0., 1.])
    """
    return lambda answer, full: ((answer - full).flatten(1).abs().amax(1) > error).float()


def least_images(agreement: float) -> int:
    """Return how many calibration images an agreement needs: 1 / (1 - agreement) - 1, rounded up.

    Example:
        >>> least_images(0.995), least_images(0.999)
        (199, 999)
    """
    level = 1 - number("agreement", agreement, above=0, below=1)
    return max(math.ceil(1 / level - 1 - 1e-6), 1)


@dataclass(frozen=True)
class StopRule:
    """The stop rule learned from calibration images. It gives a threshold for every agreement.

    Attributes:
        score: a name in `SCORES`, or a function of `Said`.
        first: the first step at which a sample may stop.
        images: the number of calibration images.
        losses: pairs (threshold, loss), from the largest threshold down. The loss, summed over all images, is added
            when the threshold falls below this value.
        seen: quantiles of the images' scores after each step, from ``first`` to T - 1. They only decide how a run is
            cut into pieces. Without them, each step is a piece.
    """

    score: str | Score
    first: int
    images: int
    losses: tuple[tuple[float, float], ...] = field(repr=False)
    seen: tuple[tuple[float, ...], ...] = field(default=(), repr=False)

    def threshold(self, agreement: float) -> float:
        """Return the threshold that a sample's score must exceed for the sample to stop.

        Args:
            agreement: the share of answers that must equal those of the full run, between 0 and 1.

        Raises:
            ConfigError: The rule has too few calibration images for this agreement.

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
        """Return the share of calibration images that do not stop, for each step of `seen`.

        Example:
            >>> StopRule("margin", 2, 199, (), ((0.0, 1.0, 2.0, 9.0), (5.0, 6.0, 7.0, 9.0))).unsure(1.5)
            (0.5, 0.0)
        """
        return tuple(sum(one <= threshold for one in scores) / len(scores) for scores in self.seen)

    def sure(self, said: Said) -> Tensor:
        """Return how sure each sample is, [N].

        Raises:
            DataError: Your own score does not return one number for each sample.
        """
        score = SCORES[self.score] if isinstance(self.score, str) else self.score
        found = score(said)
        if not isinstance(found, Tensor) or found.shape != said.outputs.shape[:1]:
            raise DataError(
                f"stop: the score must return one number for each sample, a tensor {list(said.outputs.shape[:1])}, not "
                f"{list(found.shape) if isinstance(found, Tensor) else type(found).__name__}"
            )
        return found

    def scores(self, outputs: Tensor, left: tuple[float, ...]) -> Tensor:
        """Return how sure samples are after each step, [T, N]: -inf before the step ``first``, inf at the last step.

        Args:
            outputs: one output of the network after every step, [T, N, \\*].
            left: `Said.left` after each step.
        """
        flat = outputs.flatten(2)
        rows = [torch.full_like(flat[0, :, 0], -math.inf)] * (self.first - 1)
        for step in range(self.first - 1, len(flat) - 1):
            rows.append(self.sure(Said(flat[step], flat[step - 1] if step >= self.first else None, left[step])))
        rows.append(torch.full_like(flat[0, :, 0], math.inf))
        return torch.stack(rows).nan_to_num(-math.inf, math.inf, -math.inf)

    def written(self) -> dict[str, Any]:
        """Return the rule as plain data.

        Raises:
            ModelError: The score is your own function, which a file cannot hold.
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
        """Return the rule that `written` wrote, for a network of this many steps.

        Raises:
            TranspikeError: The data is not a rule for this network. The record determines the class of the error.
        """
        entry.only("score", "first", "images", "thresholds", "losses", "seen")
        score = entry.text("score", choices=tuple(SCORES))
        first, images = entry.whole("first", least=1, most=steps), entry.whole("images", least=1)
        thresholds, losses = entry.numbers("thresholds"), entry.numbers("losses")
        if len(thresholds) != len(losses) or thresholds != sorted(thresholds, reverse=True):
            raise entry.wrong("stop.thresholds: expected as many numbers as in losses, the largest first.")
        if not all(0 < loss <= images for loss in losses) or sum(losses) > images * (1 + 1e-6):
            raise entry.wrong(f"stop.losses: expected numbers above 0 whose sum is at most images={images}.")
        seen = entry.numbers("seen") if entry.has("seen") else []
        if seen and (first == steps or len(seen) % (steps - first)):
            raise entry.wrong(f"stop.seen: expected as many numbers for each step from first={first} to {steps - 1}.")
        of_step = len(seen) // max(steps - first, 1)
        rows = tuple(tuple(seen[at : at + of_step]) for at in range(0, len(seen), of_step or 1))
        return cls(score, first, images, tuple(zip(thresholds, losses, strict=True)), rows)

    def stops(self, outputs: Tensor, left: tuple[float, ...], *, agreement: float) -> Tensor:
        """Return the steps [N] at which samples stop whose outputs [T, N, \\*] are known. See `scores`."""
        return (self.scores(outputs, left) > self.threshold(agreement)).float().argmax(0) + 1


def learned(
    outputs: Tensor, left: tuple[float, ...], *, score: str | Score, changed: Changed, first: int = 2
) -> StopRule:
    """Return the rule that follows from the outputs of calibration images.

    Args:
        outputs: one output of the network for each image after every step, [T, N, \\*].
        left: `Said.left` after each step.
        score: a name in `SCORES`, or a function.
        changed: the loss of an answer.
        first: the first step at which a sample may stop.

    Raises:
        ConfigError: The score is unknown or needs several outputs, or a loss is outside 0 to 1.
    """
    if isinstance(score, str):
        choice("score", score, SCORES)
        if outputs[0, :1].numel() < 2 and score != "steady":
            raise ConfigError(
                f"score={score!r} compares the outputs of a sample, but the network has one output per sample. Use "
                "score='steady' with an error."
            )
    elif not callable(score):
        raise refuse("score", score, "a name or a function")
    rule = StopRule(score, whole("first", first, most=len(outputs)), outputs.shape[1], ())
    scores = rule.scores(outputs, left)
    loss, later = [], torch.zeros_like(scores[0])
    record = torch.cat([torch.full_like(scores[:1], -math.inf), scores.cummax(0).values[:-1]])
    for step in reversed(range(len(outputs) - 1)):
        lost = changed(outputs[step], outputs[-1]).to(scores)
        if lost.shape != later.shape or not ((lost >= 0) & (lost <= 1)).all():
            raise ConfigError("changed: expected a function that returns one loss from 0 to 1 for each sample.")
        reached = torch.where(scores[step] > record[step], torch.maximum(lost, later), later)
        loss.append((scores[step], reached - later))
        later = reached
    pairs = [pair for where, lost in loss for pair in zip(where.tolist(), lost.tolist(), strict=True) if pair[1] > 0]
    between, most = scores[rule.first - 1 : -1].float(), torch.finfo(torch.float32).max
    seen = between.sort(1).values.clamp(-most, most)[:, torch.linspace(0, rule.images - 1, _SEEN).long()]
    return StopRule(
        rule.score, rule.first, rule.images, tuple(sorted(pairs, reverse=True)), tuple(map(tuple, seen.tolist()))
    )
