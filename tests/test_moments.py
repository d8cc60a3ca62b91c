from __future__ import annotations

import pytest
import torch

from transpike.moments import Moments


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_batches_give_what_all_at_once_gives(axis: int) -> None:
    x = torch.randn(30, 4, 5, generator=torch.Generator().manual_seed(0)) * 3 + 100
    x = x.movedim(1, axis)
    seen = Moments(4)
    for part in x.split(7, dim=1 if axis == 0 else 0):
        seen.update(part, axis=axis)
    values = x.movedim(axis, 0).reshape(4, -1).double()
    assert seen.count == 150
    torch.testing.assert_close(seen.mean, values.mean(1), rtol=1e-6, atol=0)
    torch.testing.assert_close(seen.variance, values.var(1, correction=0), rtol=1e-4, atol=0)
    mean, variance = seen.joined()
    assert mean == pytest.approx(float(values.mean()), rel=1e-6)
    assert variance == pytest.approx(float(values.var(correction=0)), rel=1e-4)


def test_nothing_and_one_channel_of_all() -> None:
    seen = Moments(1)
    seen.update(torch.empty(0, 3), axis=None)
    assert seen.count == 0 and float(seen.variance) == 0
    seen.update(torch.tensor([[1.0, 2.0], [3.0, 6.0]]), axis=None)
    assert (float(seen.mean), float(seen.variance)) == (3.0, 3.5)
