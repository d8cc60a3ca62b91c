"""Answers as soon as they are sure: a network's stop rule from calibration images, and runs that end by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from transpike.checks import number
from transpike.conversion.pipeline import Pipeline
from transpike.conversion.stopping import Changed, Said, Score, StopRule, beyond, learned, other_prediction
from transpike.conversion.stream import chunks
from transpike.conversion.walk import Network
from transpike.errors import ConfigError

__all__ = ["Answer", "left", "rule", "trajectories", "until"]

_WORTH = 7 / 8  # share of a batch that is left when finished samples leave it: that copies the state of every layer


@dataclass(frozen=True, eq=False)
class Answer:
    """Answers, each taken as soon as it was sure.

    Attributes:
        outputs: of every sample at its last step, in the network's own form.
        steps: of the output, 1 ... T, that each sample ran, [N].
        latency: steps from the image's arrival until then, waits of the layers included, [N].
        score: how sure each was, [N]; infinite where it ran to the end.
    """

    outputs: Any
    steps: Tensor
    latency: Tensor
    score: Tensor

    def __repr__(self) -> str:
        """Means in place of values."""
        steps, latency = (float(x.float().mean()) if len(x) else 0.0 for x in (self.steps, self.latency))
        return f"Answer({len(self.steps)} samples, mean steps {steps:.3g}, mean latency {latency:.3g})"


def left(snn: Network) -> tuple[float, ...]:
    """The share of a train's worth that is still to come after each step."""
    weights = snn.scheme.weights
    return tuple(sum(weights[step:]) / sum(weights) for step in range(1, len(weights) + 1))


def trajectories(snn: Network, x: Tensor) -> Tensor:
    """The first output after every step, [T, N, \\*]."""
    parts = []
    for part in chunks(snn, x):
        pipeline = Pipeline(snn, part)
        name = snn.graph.outputs[0]
        parts.append(torch.stack([pipeline.advance(step)[name] for step in range(1, pipeline.total + 1)]))
    found = torch.cat(parts, 1)
    return found if found.is_floating_point() else found.float()


def rule(
    snn: Network,
    images: Tensor,
    *,
    score: str | Score | None = None,
    error: float | None = None,
    changed: Changed | None = None,
    first: int = 2,
) -> StopRule:
    """A stop rule from calibration images.

    Raises:
        ConfigError: for an unknown score, or both an error and a loss.
    """
    if error is not None and changed is not None:
        raise ConfigError("error and changed both say what counts as another answer: give one of them.")
    if error is not None:
        changed = beyond(number("error", error, least=0))
    chosen = score or ("steady" if error is not None else "bound")
    outputs = trajectories(snn, images)
    first = min(first, len(outputs))
    return learned(outputs, left(snn), score=chosen, changed=changed or other_prediction, first=first)


@torch.no_grad()
def until(snn: Network, x: Tensor, stop: StopRule, *, agreement: float) -> Answer:
    """Run every sample until its score exceeds the rule's threshold; finished samples leave the batch."""
    threshold, share = stop.threshold(agreement), left(snn)
    parts = [_until(snn, part, stop, threshold, share) for part in chunks(snn, x)]
    values, steps, scores = zip(*parts, strict=True)
    outputs = {name: torch.cat([part[name] for part in values]) for name in snn.graph.outputs}
    ran = torch.cat(steps)
    return Answer(snn.graph.pack(outputs), ran, ran + snn.timing.latency - len(share), torch.cat(scores))


def _until(
    snn: Network, x: Tensor, stop: StopRule, threshold: float, share: tuple[float, ...]
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    pipeline, total = Pipeline(snn, x), len(share)
    steps = torch.full((len(x),), total, device=snn.device)
    scores = torch.full((len(x),), torch.inf, device=snn.device)
    answers: dict[str, Tensor] = {}
    before: Tensor | None = None
    places = torch.arange(len(x), device=snn.device)  # of the pipeline's samples among x
    running = torch.ones(len(x), dtype=torch.bool, device=snn.device)  # of the pipeline's samples
    for step in range(stop.first, total + 1):
        said = pipeline.advance(step)
        flat = said[snn.graph.outputs[0]].float().flatten(1)
        sure = torch.full_like(flat[:, 0], torch.inf)
        if step < total:
            sure = stop.sure(Said(flat, before, share[step - 1])).nan_to_num(-torch.inf, torch.inf, -torch.inf)
        done = running & ((sure > threshold) | (step == total))
        for name, value in said.items():
            if name not in answers:
                answers[name] = value.new_empty(len(x), *value.shape[1:])
            answers[name][places[done]] = value[done]
        steps[places[done]], scores[places[done]] = step, sure[done].to(scores)
        running &= ~done
        remain = running.nonzero().flatten()
        if not len(remain):
            break
        before = flat
        if len(remain) <= _WORTH * len(running):
            pipeline.keep(remain)
            places, running, before = places[remain], running[remain], flat[remain]
    return answers, steps, scores
