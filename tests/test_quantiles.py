"""Streaming percentiles against numpy's, on the whole data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transpike.errors import DataError
from transpike.quantiles import ChannelQuantiles, Quantiles

PERCENTILES = (0.0, 1.0, 37.5, 50.0, 99.0, 99.9, 99.99, 100.0)


def of(*batches: torch.Tensor) -> Quantiles:
    seen = Quantiles()
    for batch in batches:
        seen.update(batch)
    return seen


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.integers(1, 3000), scale=st.floats(1e-20, 1e20), q=st.floats(0, 100))
def test_percentiles_equal_numpys_to_a_thousandth(seed: int, size: int, scale: float, q: float) -> None:
    x = torch.randn(size, generator=torch.Generator().manual_seed(seed)) * scale
    expected = np.percentile(x.abs().double().numpy(), q)
    assert of(x).quantile(q) == pytest.approx(expected, rel=1e-3)


def test_more_values_than_torch_quantile_takes() -> None:
    chunks = [torch.randn(1 << 20, generator=torch.Generator().manual_seed(seed)).relu() for seed in range(17)]
    seen, whole = of(*chunks), torch.cat(chunks).numpy()
    assert seen.count == whole.size > 1 << 24
    for q in PERCENTILES:
        assert seen.quantile(q) == pytest.approx(np.percentile(whole, q), rel=1e-3, abs=1e-30)
    assert seen.quantile(100) == whole.max()
    for value in (0.0, 0.5, 3.0, 4.5):
        assert seen.share_above(value) == pytest.approx((whole > value).mean(), rel=1e-2, abs=1e-7)
    assert seen.share_above(float(whole.max())) == 0
    assert seen.share_above(-1.0) == 1


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), pieces=st.lists(st.integers(1, 400), min_size=1, max_size=8))
def test_order_and_batches_do_not_matter(seed: int, pieces: list[int]) -> None:
    x = torch.randn(sum(pieces), generator=torch.Generator().manual_seed(seed))
    whole, batched = of(x), of(*reversed(x.split(pieces)))
    for q in PERCENTILES:
        assert whole.quantile(q) == batched.quantile(q)
    assert whole.share_above(0.3) == batched.share_above(0.3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.int32])
def test_other_data_types(dtype: torch.dtype) -> None:
    x = torch.arange(-50, 51).to(dtype)
    assert of(x).quantile(100) == 50
    assert of(x).quantile(50) == pytest.approx(25, rel=1e-3)


def test_any_memory_format() -> None:
    x = torch.randn(4, 3, 8, 8)
    formats = (x, x.to(memory_format=torch.channels_last), x.transpose(1, 3), x.repeat(1, 2, 1, 1)[:, :3])
    assert len({of(f).quantile(73.0) for f in formats}) == 1
    assert of(x[:1].expand(4, 3, 8, 8)).count == x.numel()
    assert of(x[:1].expand(4, 3, 8, 8)).quantile(100) == float(x[0].abs().max())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_an_error_that_counts_nothing(bad: float) -> None:
    seen = Quantiles("layer2.0.relu")
    seen.update(torch.ones(3))
    with pytest.raises(DataError, match=r"layer2\.0\.relu: 1 of 4 values are NaN or infinite"):
        seen.update(torch.tensor([5.0, bad, 1.0, 2.0]))
    assert (seen.count, seen.maximum, seen.quantile(100)) == (3, 1.0, 1.0)


def test_nothing_and_nothing_but_zeros() -> None:
    with pytest.raises(DataError, match="no values were seen"):
        Quantiles().quantile(50)
    assert Quantiles().share_above(1.0) == 0
    zeros = of(torch.zeros(10), torch.empty(0, 3))
    assert (zeros.count, zeros.quantile(99.99), zeros.quantile(100), zeros.share_above(0.0)) == (10, 0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="between 0 and 100"):
        zeros.quantile(101)


def test_a_channel_that_is_mostly_zero_is_known_by_its_samples() -> None:
    x = torch.zeros(10, 3, 8)
    x[:, 0] = 1.0
    x[:4, 1, :5] = 2.0
    for parts in (x.split(10), x.split(3)):
        seen = ChannelQuantiles(3)
        for part in parts:
            seen.update(part, axis=1)
        assert seen.excited.tolist() == [10, 4, 0] and seen.informative().tolist() == [80, 4, 0]
