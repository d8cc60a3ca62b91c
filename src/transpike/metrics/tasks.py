"""Measures of a network's outputs beside classes: label maps, boxes, curves. One number for each image, at most 1.

Each takes outputs and targets, whose first axis counts images. Targets are labels or another network's outputs. If a
network returns several outputs, the first is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from transpike.errors import DataError

__all__ = ["METRICS", "Metric", "box_iou", "correlation", "matched_boxes", "mean_iou", "same_class"]

Metric: TypeAlias = Callable[[Any, Any], "Tensor | float"]
"""A function from outputs and targets of some images to a number for each, [N], or to their mean."""

MATCHED = 0.5


def same_class(outputs: Any, targets: Any) -> Tensor:
    """Return 1 for each image whose largest output is at the target, or at the target's largest, [N].

    Example:
        >>> same_class(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
        tensor([1., 0.])
    """
    found, wanted = _first(outputs), _first(targets)
    wanted = wanted if not wanted.is_floating_point() else wanted.flatten(1).argmax(1)
    return (found.flatten(1).argmax(1) == wanted).float()


def mean_iou(outputs: Any, targets: Any) -> Tensor:
    """Return the intersection over union of each class's area, averaged over the classes in an image, [N].

    Args:
        outputs: a map of scores [N, classes, \\*], or of one class [N, 1, \\*], which is present if its score is above
            0.
        targets: the same, or a map of labels [N, \\*].

    Raises:
        DataError: These are not maps, or they differ in size.

    Example:
        >>> found, wanted = torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[0, 1, 1, 1]]])
        >>> mean_iou(found, wanted).round(decimals=3)
        tensor([0.5830])
    """
    found, wanted = _labels(_first(outputs)), _labels(_first(targets))
    if found.ndim < 2 or found.shape != wanted.shape:
        raise DataError(
            "iou: expected maps of scores [N, classes, *] or of labels [N, *], outputs and targets of one size, not "
            f"{list(_first(outputs).shape)} and {list(_first(targets).shape)}"
        )
    kinds = max(int(found.max()), int(wanted.max())) + 1
    ious = []
    for kind in range(kinds):
        a, b = found == kind, wanted == kind
        both, either = (x.flatten(1).sum(1).double() for x in (a & b, a | b))
        ious.append(torch.where(either > 0, both / either.clamp_min(1), torch.nan))
    return torch.stack(ious).nanmean(0).float()


def _labels(scores: Tensor) -> Tensor:
    if not scores.is_floating_point():
        return scores
    return (scores > 0).long() if scores.shape[1] == 1 else scores.argmax(1, keepdim=False)


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection over union of boxes (x1, y1, x2, y2), [K, 4] and [M, 4] to [K, M].

    Example:
        >>> box_iou(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0]])).round(decimals=3)
        tensor([[0.3330]])
    """
    corners = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:], b[:, 2:])
    both = (corners[1] - corners[0]).clamp_min(0).prod(-1)
    areas = [(x[:, 2:] - x[:, :2]).clamp_min(0).prod(-1) for x in (a, b)]
    return both / (areas[0][:, None] + areas[1] - both).clamp_min(torch.finfo(a.dtype).tiny)


def matched_boxes(outputs: Any, targets: Any) -> Tensor:
    """Return how well an image's boxes are found: pair boxes, the best pairs first, and average their overlaps, [N].

    A pair overlaps by at least half. A box without a partner, on either side, counts as 0.

    Args:
        outputs: [N, K, 4 or more], of which the first four are corners x1, y1, x2, y2; or a list of [K, 4 or more].
        targets: likewise.

    Raises:
        DataError: These are not boxes.

    Example:
        >>> found = [torch.tensor([[0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 6.0, 6.0]])]
        >>> matched_boxes(found, [torch.tensor([[0.0, 0.0, 2.0, 1.0]])])
        tensor([0.2500])
    """
    return torch.tensor([_matched(a, b) for a, b in zip(_boxes(outputs), _boxes(targets), strict=True)])


def _boxes(given: Any) -> list[Tensor]:
    """Return the corners [K, 4] of each image's boxes."""
    listed = isinstance(given, (list, tuple)) and all(isinstance(each, Tensor) and each.ndim == 2 for each in given)
    boxes = list(given if listed else _first(given))
    for each in boxes:
        if each.ndim != 2 or each.shape[1] < 4:
            shape = "a list with one of" if listed else f"{len(boxes)} images of"
            raise DataError(
                "boxes: expected corners x1, y1, x2, y2 of boxes [N, K, 4 or more], or a list of [K, 4 or more], not "
                f"{shape} {list(each.shape)}. For other outputs, pass a function that makes boxes of them"
            )
    return [each[:, :4] for each in boxes]


def _matched(a: Tensor, b: Tensor) -> float:
    if not len(a) and not len(b):
        return 1.0
    overlaps, found = box_iou(a.double(), b.double()), 0.0
    while overlaps.numel() and (best := float(overlaps.max())) >= MATCHED:
        found += best
        row, column = divmod(int(overlaps.argmax()), overlaps.shape[1])
        overlaps[row], overlaps[:, column] = -1, -1
    return found / max(len(a), len(b))


def correlation(outputs: Any, targets: Any) -> Tensor:
    """Return Pearson's correlation of an image's outputs with its targets, [N]. It is 1 if both are constant.

    Example:
        >>> correlation(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[2.0, 4.0, 6.0]]))
        tensor([1.])
    """
    a, b = (_first(x).double().flatten(1) for x in (outputs, targets))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    norms = a.norm(dim=1) * b.norm(dim=1)
    same = (a.norm(dim=1) == 0) & (b.norm(dim=1) == 0)
    return torch.where(same, 1.0, (a * b).sum(1) / norms.clamp_min(torch.finfo(torch.float64).tiny)).float()


def _first(outputs: Any) -> Tensor:
    first: Tensor = torch.utils._pytree.tree_leaves(outputs)[0]
    return first


METRICS: dict[str, Metric] = {
    "same": same_class,
    "iou": mean_iou,
    "boxes": matched_boxes,
    "correlation": correlation,
}
