"""Energy of sub-bands: Parseval, PyWavelets, white noise, known stripes, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import pywt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from transpike.errors import DataError
from transpike.metrics.bands import BandEnergy, band_names, sub_bands

pytestmark = pytest.mark.filterwarnings("ignore:.*too high")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def energy(maps: Tensor, **settings: object) -> Tensor:
    found = BandEnergy(**settings)  # type: ignore[arg-type]
    found.update(maps)
    return found.energy


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.sampled_from(["haar", "db2", "sym4"]))
def test_energies_sum_to_the_variance(high: int, wide: int, levels: int, wavelet: str) -> None:
    maps = 3 * noise(4, 2, high * 2**levels, wide * 2**levels) + 5
    found = energy(maps, wavelet=wavelet, levels=levels)
    variance = maps.var((-2, -1), unbiased=False).mean()
    assert len(found) == len(band_names(levels)) == 1 + 3 * levels
    assert found.sum().item() == pytest.approx(variance.item(), rel=1e-4)


def test_bands_are_those_of_pywavelets() -> None:
    maps = noise(3, 16, 8)
    low, *details = pywt.wavedec2(maps.double().numpy(), "db2", "periodization", 2)
    expected = [low, *(band for level in details for band in level)]
    for ours, theirs in zip(sub_bands(maps, wavelet="db2"), expected, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)
    means = [float(np.square(band).sum() / maps.numel()) for band in expected[1:]]  # which a shift does not change
    assert energy(maps + 9, wavelet="db2")[1:].tolist() == pytest.approx(means, rel=1e-4)


def test_white_noise() -> None:
    found = BandEnergy()
    for seed in range(4):
        found.update(noise(500, 8, 8, seed=seed))
    assert found.white.tolist() == pytest.approx([3 / 63, *[4 / 63] * 3, *[16 / 63] * 3])
    assert (found.energy / found.energy.sum()).tolist() == pytest.approx(found.white.tolist(), rel=0.1)
    # All of the mean is in a rest of one coefficient, and rounding leaves nothing there.
    assert energy(noise(3, 4, 4) + 100)[0] == 0


def test_stripes_are_found_at_their_level_and_direction() -> None:
    rows = torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(2)[:, None].expand(8, 8)  # pairs of equal rows: level 2, along H
    columns = torch.tensor([1.0, -1.0]).repeat(4).expand(8, 8)  # level 1, along W
    for maps, band in ((rows, ("H", 2)), (columns, ("V", 1)), (columns * columns.T, ("D", 1))):
        found = dict(zip(band_names(2), energy(maps[None]).tolist(), strict=True))
        assert found.pop(band) == pytest.approx(1, rel=1e-5)
        assert max(found.values()) < 1e-10


def test_refusals() -> None:
    with pytest.raises(DataError, match=r"maps of 8 x 6: expected multiples of 2\^2"):
        sub_bands(torch.zeros(8, 6))
    found = BandEnergy()
    with pytest.raises(DataError, match="no maps were given"):
        _ = found.energy
    found.update(torch.zeros(1, 8, 8))
    with pytest.raises(DataError, match="after maps of another size"):
        found.update(torch.zeros(1, 8, 4))
