"""The hierarchical distance by block means, the fusion by its equations, and the order of the stages."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from transpike.distill.review import AttentionFusion, ReviewKDDistillation, hierarchical_distance
from transpike.distill.taps import Stage

from .batches import OTHER, SAMPLES, batch, noise


@pytest.mark.parametrize(("side", "sizes"), [(8, (4, 2, 1)), (4, (2, 1)), (2, (1,)), (1, ())])
def test_hierarchical_distance_by_block_means(side: int, sizes: tuple[int, ...]) -> None:
    student, teacher = noise(3, 2, side, side).double(), noise(3, 2, side, side, seed=1).double()
    difference = (student - teacher).numpy()
    weights, values = [1.0], [np.mean(difference**2)]
    for level, size in enumerate(sizes, 1):
        block = side // size
        means = difference.reshape(3, 2, size, block, size, block).mean((3, 5))
        weights.append(0.5**level)
        values.append(np.mean(means**2))
    expected = np.average(values, weights=weights)
    assert hierarchical_distance(student, teacher).item() == pytest.approx(expected, rel=1e-12)
    assert hierarchical_distance(student, student) == 0


def normal(x: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, training=True)


def test_fusion_by_its_equations() -> None:
    torch.manual_seed(0)
    fusion = AttentionFusion(4, 3, 5, deepest=False)
    maps, deeper = noise(2, 4, 4, 4), noise(2, 3, 2, 2, seed=1)
    x = normal(F.conv2d(maps, fusion.reduce[0].weight))
    y = deeper.repeat_interleave(2, -1).repeat_interleave(2, -2)
    gate = F.conv2d(torch.cat([x, y], 1), fusion.attention[0].weight, fusion.attention[0].bias).sigmoid()
    fused = gate[:, :1] * x + gate[:, 1:] * y
    out, passed = fusion(maps, deeper)
    torch.testing.assert_close(passed, fused)
    torch.testing.assert_close(out, normal(F.conv2d(fused, fusion.expand[0].weight, padding=1)))


def test_the_deepest_stage_passes_on_what_it_reduces() -> None:
    fusion = AttentionFusion(4, 3, 5, deepest=True)
    maps = noise(2, 4, 4, 4)
    out, passed = fusion(maps)
    torch.testing.assert_close(passed, normal(F.conv2d(maps, fusion.reduce[0].weight)))
    assert fusion.attention is None and out.shape == (2, 5, 4, 4)


def test_stages_are_fused_from_the_pooled_features_up() -> None:
    given = batch(OTHER)
    method = ReviewKDDistillation(OTHER, beta=2.0)
    low, high = (
        tuple(F.adaptive_avg_pool2d(x, s.size) for x in (given[2][s.student].mean(0), given[3][s.teacher]))
        for s in OTHER
    )
    top = tuple(x.mean((-2, -1), keepdim=True) for x in high)
    expected, passed = 0.0, None
    for fusion, (own, other) in zip(method.fusions, (top, high, low), strict=True):
        out, passed = fusion(own, passed)
        assert out.shape == other.shape
        expected += hierarchical_distance(out, other).item()
    assert passed is not None and passed.shape == (SAMPLES, 8, 4, 4)
    assert method(*given)["review"].item() == pytest.approx(2 * expected, rel=1e-5)


def test_what_is_passed_on_has_no_more_channels_than_the_width() -> None:
    stages = [Stage("low", "a", 8, 4, (8, 8), (8, 8)), Stage("high", "b", 16, 4, (4, 4), (4, 4))]
    for width, inner in ((6, 6), (512, 16)):
        method = ReviewKDDistillation(stages, width=width)
        assert [fusion.reduce[0].weight.shape[:2] for fusion in method.fusions] == [
            (inner, 16),
            (inner, 16),
            (inner, 8),
        ]


def test_early_stages_hear_what_the_deepest_is_told() -> None:
    """Review: the shallow stage's loss reaches the deep stage's maps as well."""
    given = batch(OTHER)
    method = ReviewKDDistillation(OTHER)
    high = given[2]["high"].requires_grad_()
    top, deep, shallow = method.fusions
    maps = F.adaptive_avg_pool2d(high.mean(0), OTHER[1].size)
    _, passed = top(maps.mean((-2, -1), keepdim=True))
    _, passed = deep(maps, passed)
    out, _ = shallow(F.adaptive_avg_pool2d(given[2]["low"].mean(0), OTHER[0].size), passed)
    hierarchical_distance(out, given[3]["a"]).backward()
    assert high.grad is not None and high.grad.abs().sum() > 0
