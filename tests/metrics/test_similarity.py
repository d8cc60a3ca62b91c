"""CKA against sums over quadruples of images, feature space, and what it must not depend on."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from transpike.errors import DataError
from transpike.metrics.similarity import LinearCKA, unbiased_hsic


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cka(first: Tensor, second: Tensor) -> float:
    alike = LinearCKA()
    alike.update([first], [second])
    return float(alike.matrix)


def test_hsic_by_quadruples() -> None:
    """The U-statistic that the estimator is a closed form of: a mean over all ordered quadruples of images."""
    x, y = noise(6, 3), noise(6, 2, seed=1)
    first, second = x @ x.T, y @ y.T
    quadruples = list(permutations(range(6), 4))
    expected = np.mean([first[i, j] * (second[i, j] + second[q, r] - 2 * second[i, q]) for i, j, q, r in quadruples])
    assert unbiased_hsic(first, second).item() == pytest.approx(expected, rel=1e-12)


def test_many_images_give_the_cka_of_features() -> None:
    """Kornblith et al.'s form, |Y^T X|^2 / (|X^T X| |Y^T Y|) of centred features, whose bias falls with 1 / n."""
    x = noise(2000, 4)
    y = x @ noise(4, 3, seed=1) + noise(2000, 3, seed=2)
    a, b = ((values - values.mean(0)).numpy() for values in (x, y))
    expected = np.linalg.norm(b.T @ a) ** 2 / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))
    assert 0.3 < expected < 0.9
    assert cka(x, y) == pytest.approx(expected, abs=2e-3)


@settings(max_examples=15, deadline=None)
@given(st.integers(4, 9), st.integers(1, 5), st.floats(0.1, 10), st.floats(-5, 5))
def test_rotation_shift_and_scale_change_nothing(images: int, width: int, scale: float, shift: float) -> None:
    x = noise(images, width)
    rotation = torch.linalg.qr(noise(width, width, seed=1)).Q
    y = noise(images, 3, seed=2)
    assert cka(x, scale * x @ rotation + shift) == pytest.approx(1, abs=1e-5)
    assert cka(x @ rotation * scale + shift, y) == pytest.approx(cka(x, y), abs=1e-5)


def test_independent_maps_are_not_alike_however_few_the_images() -> None:
    """With 8 images and 300 features the biased estimate is near 1; this one is 0 on average."""
    alike = LinearCKA()
    for seed in range(100):
        alike.update([noise(8, 3, 10, 10, seed=seed)], [noise(8, 300, seed=1000 + seed)])
    assert alike.matrix.abs().max() < 0.1
    assert alike.images == 800


def test_batches_are_averaged_by_their_images() -> None:
    x, y = noise(12, 5), noise(12, 5) + noise(12, 5, seed=1)
    parts = [slice(0, 8), slice(8, 12)]
    alike = LinearCKA()
    for part in (*parts, slice(0, 3)):  # the last is too small to count
        alike.update([x[part]], [y[part], x[part]])

    def mean(first: Tensor, second: Tensor) -> float:
        grams = [(first[part] @ first[part].T, second[part] @ second[part].T, part) for part in parts]
        return sum(len(first[part]) * unbiased_hsic(a, b).item() for a, b, part in grams) / 12

    expected = mean(x, y) / (mean(x, x) * mean(y, y)) ** 0.5
    assert alike.matrix.tolist() == [[pytest.approx(expected, rel=1e-9), pytest.approx(1, rel=1e-9)]]
    assert alike.images == 12


def test_float32_maps_far_from_zero() -> None:
    x, y = noise(8, 4, 6, 6), noise(8, 4, 6, 6, seed=1)
    y = x + y
    shifted = cka((x + 300).float(), (0.01 * y - 7).float())
    assert shifted == pytest.approx(cka(x, y), abs=1e-3)


def test_what_never_varies_has_no_similarity() -> None:
    alike = LinearCKA()
    alike.update([noise(5, 3), torch.ones(5, 3)], [noise(5, 2, seed=1)])
    assert alike.matrix.isnan().tolist() == [[False], [True]]


def test_refusals() -> None:
    with pytest.raises(DataError, match=r"n >= 4 images, found \[3, 3\]"):
        unbiased_hsic(torch.eye(3), torch.eye(3))
    with pytest.raises(DataError, match=r"found \[5, 5\] and \[4, 4\]"):
        unbiased_hsic(torch.eye(5), torch.eye(4))
    alike = LinearCKA()
    alike.update([noise(3, 2)], [noise(3, 2)])
    with pytest.raises(DataError, match="at least 4 images"):
        _ = alike.matrix
