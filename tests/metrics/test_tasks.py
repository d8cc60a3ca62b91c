"""Measures of label maps, boxes and curves against sums written out here."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from sklearn.metrics import jaccard_score

from transpike.errors import DataError
from transpike.metrics.tasks import box_iou, correlation, matched_boxes, mean_iou, same_class


def test_mean_iou_is_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    found, wanted = (torch.randint(0, 4, (5, 6, 7), generator=generator) for _ in range(2))
    want = [jaccard_score(b.flatten(), a.flatten(), average="macro") for a, b in zip(found, wanted, strict=True)]
    torch.testing.assert_close(mean_iou(found, wanted), torch.tensor(want, dtype=torch.float32))
    scores = torch.nn.functional.one_hot(found, 4).movedim(-1, 1).float()
    torch.testing.assert_close(mean_iou(scores, wanted), mean_iou(found, wanted))
    one = torch.tensor([[[[-1.0, 1.0], [2.0, 3.0]]]])
    assert mean_iou(one, one).item() == 1


def boxes(count: int, seed: int) -> torch.Tensor:
    corners = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed)) * 4
    return torch.cat([corners, corners + 1 + corners.flip(0)], 1)


def test_overlaps_are_torchvisions() -> None:
    torch.testing.assert_close(box_iou(boxes(5, 0), boxes(3, 1)), torchvision.ops.box_iou(boxes(5, 0), boxes(3, 1)))


def test_boxes_are_paired_once_and_those_without_a_partner_count() -> None:
    one = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    near = torch.tensor([[0.0, 0.0, 4.0, 3.0]])
    far = torch.tensor([[9.0, 9.0, 10.0, 10.0]])
    assert matched_boxes([one], [one]).item() == 1
    assert matched_boxes([torch.cat([one, near])], [one]).item() == 0.5  # the best pair, and one too many
    assert matched_boxes([one], [torch.cat([near, far])]).item() == pytest.approx(0.375)
    assert matched_boxes([far], [one]).item() == 0
    assert matched_boxes([far[:0]], [one[:0]]).item() == 1
    assert matched_boxes(torch.stack([near, one]), torch.stack([one, one])).tolist() == [0.75, 1.0]


def test_correlation_is_numpys() -> None:
    x, y = torch.randn(3, 2, 5), torch.randn(3, 2, 5)
    want = [np.corrcoef(a.flatten(), b.flatten())[0, 1] for a, b in zip(x, y, strict=True)]
    torch.testing.assert_close(correlation(x, y).double(), torch.tensor(want), rtol=1e-5, atol=1e-6)
    assert correlation(torch.ones(1, 3), torch.ones(1, 3)).item() == 1


def test_same_class() -> None:
    assert same_class({"logits": torch.eye(3)}, torch.tensor([0, 1, 0])).tolist() == [1, 1, 0]
    assert same_class(torch.eye(3), torch.eye(3)).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("outputs", "words"),
    [(torch.rand(8, 10), r"8 images of \[10\]"), (torch.rand(8, 4), r"\[4\]"), (torch.rand(2, 5, 3), r"\[5, 3\]"),
     ([torch.rand(5, 4), torch.rand(3, 2)], r"a list with one of \[3, 2\]"), (torch.rand(2, 3, 4, 5), r"\[3, 4, 5\]")],
)  # fmt: skip
def test_what_are_no_boxes_is_said(outputs: object, words: str) -> None:
    with pytest.raises(DataError, match=f"boxes: expected corners .*{words}"):
        matched_boxes(outputs, outputs)


def test_what_are_no_maps_is_said() -> None:
    with pytest.raises(DataError, match="iou: expected maps"):
        mean_iou(torch.rand(8, 10), torch.rand(8, 10))
    with pytest.raises(DataError, match=r"not \[2, 5, 3, 4\] and \[2, 1, 3, 4\]"):  # they would broadcast
        mean_iou(torch.rand(2, 5, 3, 4), torch.zeros(2, 1, 3, 4, dtype=torch.long))
