"""Ends a run early, as soon as its answer is sure, and finds the rule for this from calibration images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from transpike.checks import number
from transpike.conversion.cuts import cuts
from transpike.conversion.pipeline import ROWS, Pipeline
from transpike.conversion.room import side_by_side
from transpike.conversion.stopping import Changed, Said, Score, StopRule, beyond, learned, other_prediction
from transpike.conversion.stream import chunk
from transpike.conversion.walk import Network
from transpike.errors import ConfigError

__all__ = ["Answer", "left", "rule", "trajectories", "until"]

_WORTH = 7 / 8  # finished samples leave a batch if at most this share still runs; leaving copies every layer's state
_TIMES = 4  # by measurement, see `_few`
_LONGEST = 64  # steps of a piece whose outputs are all kept


@dataclass(frozen=True, eq=False)
class Answer:
    """The answers to a batch of images, each taken as soon as it was sure.

    Attributes:
        outputs: the outputs [N, \\*] of every sample at its last step, in the form of the network's own outputs.
        steps: the number of output steps that each sample ran, 1 ... T, [N].
        latency: the number of steps from the image's arrival to its answer, including the waits of the layers, [N].
        score: how sure each answer was, [N]. It is infinite for a sample that ran all T steps.
    """

    outputs: Any
    steps: Tensor
    latency: Tensor
    score: Tensor

    def __repr__(self) -> str:
        """Show means in place of values."""
        steps, latency = (float(x.float().mean()) if len(x) else 0.0 for x in (self.steps, self.latency))
        return f"Answer({len(self.steps)} samples, mean steps {steps:.3g}, mean latency {latency:.3g})"


def left(snn: Network) -> tuple[float, ...]:
    """Return the share of a train's weights that is still to come after each step, [T]."""
    weights = snn.scheme.weights
    return tuple(sum(weights[step:]) / sum(weights) for step in range(1, len(weights) + 1))


@torch.no_grad()
def trajectories(snn: Network, x: Tensor) -> Tensor:
    """Return the network's first output after every step, [T, N, \\*]."""
    total = len(snn.scheme.weights)
    count, name = math.ceil(total / _LONGEST), snn.graph.outputs[0]
    ends = [total * (k + 1) // count for k in range(count)]

    def said(part: Tensor) -> Tensor:
        pipeline, rows = Pipeline(snn, part, rows=-(-ROWS // ends[0]), every=True), []
        for begin, end in pairwise((0, *ends)):
            pipeline.run(end)
            rows += [pipeline.outputs(step)[name] for step in range(begin + 1, end + 1)]
        return torch.stack(rows)

    parts = x.tensor_split(max(1, -(-len(x) // _few(snn, total, chunk(snn)))))
    together = _threads(snn) > 1 and len(parts) > 1
    found = torch.cat(side_by_side(parts, said) if together else [said(part) for part in parts], 1)
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
    """Return a stop rule from calibration images. See `transpike.conversion.network.SpikingNetwork.calibrate_stop`.

    Raises:
        ConfigError: The score is unknown, or both ``error`` and ``changed`` are set.
    """
    if error is not None and changed is not None:
        raise ConfigError("error, changed: both define when an answer counts as changed. Give only one of them.")
    if error is not None:
        changed = beyond(number("error", error, least=0))
    chosen = score or ("steady" if error is not None else "bound")
    outputs = trajectories(snn, images)
    first = min(first, len(outputs))
    return learned(outputs, left(snn), score=chosen, changed=changed or other_prediction, first=first)


@torch.no_grad()
def until(snn: Network, x: Tensor, stop: StopRule, *, agreement: float) -> Answer:
    """Run every sample until its score exceeds the rule's threshold. Finished samples leave the batch."""
    if stop.first > len(snn.scheme.weights):
        raise ConfigError(
            f"stop: the rule begins at step {stop.first}, but the network has {len(snn.scheme.weights)} steps. "
            "Calibrate a rule for it: snn.calibrate_stop(images)."
        )
    threshold, threads = stop.threshold(agreement), _threads(snn)
    most, ends = chunk(snn), cuts(snn, stop, threshold)
    few = _few(snn, ends[0], most)

    def answered(part: Tensor) -> _Answers:
        return _answered(snn, part, _Answers(snn, stop, threshold, len(part)), ends, few, most)

    if threads == 1 or len(x) < 2 * few:
        return _joint(snn, [answered(x)])
    return _joint(snn, side_by_side(x.tensor_split(min(threads, len(x) // few)), answered))


def _answered(snn: Network, x: Tensor, answers: _Answers, ends: Sequence[int], few: int, most: int) -> _Answers:
    """Run samples in pieces of steps that end at ``ends``.

    In the first piece, the early layers run most of their steps, because the later layers wait for them. So ``few``
    samples at a time run this piece. Of several such chunks, the samples that have not stopped, about ``most``, then
    continue together. The later pieces have fewer steps.
    """
    begin, *others = ends
    left_over: list[_Flight] = []
    places = torch.arange(len(x), device=snn.device).tensor_split(-(-len(x) // few) or 1)
    for part in places:
        pipeline = Pipeline(snn, x[part.to(x.device)], rows=-(-ROWS // begin), every=True)
        flight = _Flight(pipeline, part, torch.ones_like(part, dtype=torch.bool))
        if answers.advance(flight, begin):
            left_over.append(flight)
        if left_over and (part is places[-1] or sum(len(flight.places) for flight in left_over) >= most):
            answers.finish(_joined(left_over), others)
            left_over = []
    return answers


def _threads(snn: Network) -> int:
    """Return the number of threads that each run their own samples, as in a call of the network."""
    alone = snn.device.type != "cpu" or snn.chunk or torch.is_autocast_enabled("cpu")
    return 1 if alone else torch.get_num_threads()


def _few(snn: Network, first: int, most: int) -> int:
    """Return the number of samples that run together up to the step ``first``.

    The longest piece of a layer then has `_TIMES` as many values as a chunk of a whole run, because a piece takes
    longer to set up.
    """
    total, arrived = len(snn.scheme.weights), max(snn.timing.first_spike[name] for name in snn.readouts)
    return min(most, max(-(-ROWS // first), _TIMES * snn.default_chunk * total // min(total, arrived + first)))


@dataclass
class _Flight:
    """Samples in the middle of a run.

    Attributes:
        pipeline: the run.
        places: the indices of the samples among all samples, [N].
        running: whether each sample has not stopped, [N].
        step: the step that they have reached.
        before: their outputs one step earlier, [N, values].
    """

    pipeline: Pipeline
    places: Tensor
    running: Tensor
    step: int = 0
    before: Tensor | None = None

    def keep(self, samples: Tensor) -> None:
        self.pipeline.keep(samples)
        self.places, self.running = self.places[samples], self.running[samples]
        self.before = None if self.before is None else self.before[samples]


def _joined(flights: list[_Flight]) -> _Flight:
    first, *others = flights
    first.pipeline.join([flight.pipeline for flight in others])
    before = [flight.before for flight in flights if flight.before is not None]
    places, running = (torch.cat([getattr(flight, key) for flight in flights]) for key in ("places", "running"))
    return _Flight(first.pipeline, places, running, first.step, torch.cat(before) if before else None)


class _Answers:
    """The answers of samples, collected as they stop."""

    def __init__(self, snn: Network, stop: StopRule, threshold: float, count: int) -> None:
        self.snn, self.stop, self.threshold, self.left = snn, stop, threshold, left(snn)
        self.steps = torch.full((count,), len(self.left), device=snn.device)
        self.scores = torch.full((count,), torch.inf, device=snn.device)
        self.values: dict[str, Tensor] = {}

    def advance(self, flight: _Flight, step: int) -> bool:
        """Run samples to a step, record the answers that are sure by then, and return whether any sample continues."""
        flight.pipeline.run(step)
        for now in range(max(flight.step + 1, self.stop.first), step + 1):
            self._look(flight, now)
            if not flight.running.any():
                return False
        flight.step = step
        remain = flight.running.nonzero().flatten()
        if 0 < len(remain) <= _WORTH * len(flight.running):
            flight.keep(remain)
        return len(remain) > 0

    def _look(self, flight: _Flight, step: int) -> None:
        """Record the answers that are sure at a step."""
        outputs, last = flight.pipeline.outputs(step), step == len(self.left)
        flat = outputs[self.snn.graph.outputs[0]].float().flatten(1)
        sure = torch.full_like(flat[:, 0], torch.inf)
        if not last:
            score = self.stop.sure(Said(flat, flight.before, self.left[step - 1]))
            sure = score.nan_to_num(-torch.inf, torch.inf, -torch.inf)
        done = flight.running & ((sure > self.threshold) | last)
        for name, value in outputs.items():
            if name not in self.values:
                self.values[name] = value.new_empty(len(self.steps), *value.shape[1:])
            self.values[name][flight.places[done]] = value[done]
        self.steps[flight.places[done]], self.scores[flight.places[done]] = step, sure[done].to(self.scores)
        flight.running, flight.before = flight.running & ~done, flat

    def finish(self, flight: _Flight, pieces: Sequence[int]) -> None:
        """Run the samples to the end of each piece in turn, until all have stopped."""
        for step in pieces:
            if not self.advance(flight, step):
                return


def _joint(snn: Network, parts: Sequence[_Answers]) -> Answer:
    """Join the answers of all samples."""
    outputs = snn.graph.pack({name: torch.cat([part.values[name] for part in parts]) for name in snn.graph.outputs})
    steps, scores = (torch.cat([getattr(part, key) for part in parts]) for key in ("steps", "scores"))
    return Answer(outputs, steps, steps + snn.timing.latency - len(snn.scheme.weights), scores)
