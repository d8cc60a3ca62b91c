"""Cuts a run that may stop early into pieces of steps, such that the expected time per image is the shortest.

In a piece of k steps, a layer does the work of k steps and loads and stores its state, which takes as long as about
1.5 more steps. So a few long pieces are faster for images that run to the end, and many short ones for images that stop
early. Calibration images show how many stop at each step. Answers do not depend on the cuts, because the score is
computed for every step of a piece.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from transpike.conversion.kinds import weighted
from transpike.conversion.op import Op
from transpike.conversion.stopping import StopRule
from transpike.conversion.walk import Network

__all__ = ["cuts"]

_STATE = 1.5  # a piece's fixed time, in steps of a layer; by measurement
_PRODUCTS = 16  # products with weights that take as long as one value of a result; by measurement


def cuts(snn: Network, rule: StopRule, threshold: float) -> tuple[int, ...]:
    """Return the last step of each piece, in steps of the output; the first is the rule's first step or later.

    If the rule has no scores of calibration images, each step from the first on is the end of a piece.
    """
    total, first = len(snn.scheme.weights), rule.first
    if len(rule.seen) != total - first:
        return tuple(range(first, total + 1))
    work, come = _work(snn), _come(snn)
    going, left = rule.unsure(threshold), torch.full((total + 1,), math.inf, dtype=torch.float64)
    left[total] = 0.0  # the time from each step on, for an image that runs on from there
    best = [total] * (total + 1)
    share = torch.ones(total + 1, dtype=torch.float64)
    share[first:total] = torch.tensor(going, dtype=torch.float64)
    for begin in (*reversed(range(first, total)), 0):
        steps = come[:, max(begin + 1, first) :] - (come[:, begin : begin + 1] if begin else 0)
        costs = (work[:, None] * (steps + _STATE * (steps > 0))).sum(0)
        ends = torch.arange(max(begin + 1, first), total + 1)
        times = costs + share[ends] / (share[begin] if share[begin] else 1.0) * left[ends]
        best[begin] = int(ends[times.argmin()])
        left[begin] = times.min()
    found = [best[0]]
    while found[-1] < total:
        found.append(best[found[-1]])
    return tuple(found)


def _come(snn: Network) -> Tensor:
    """Return how many steps each operation has run by each step of the output, [operations, T + 1]."""
    total, first = len(snn.scheme.weights), snn.timing.first_spike
    arrived = max(first[name] for name in snn.readouts)
    starts = torch.tensor([arrived - first[op.name] for op in _ops(snn)])
    return (starts[:, None] + torch.arange(total + 1)).clamp_max(total)


def _work(snn: Network) -> Tensor:
    """Return the work of one step of each operation [operations], in units of the time for one value of a result."""

    def of(op: Op) -> float:
        size = math.prod(op.shape)
        weight = op.tensors["weight"] if weighted(op) else None
        return size + (size * weight.numel() / len(weight) / _PRODUCTS if weight is not None else 0.0)

    return torch.tensor([of(op) for op in _ops(snn)], dtype=torch.float64)


def _ops(snn: Network) -> list[Op]:
    graph = snn.course.graph
    return [op for op in graph if op.name in graph.spiking]
