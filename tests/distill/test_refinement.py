"""DS2S on coefficients and on maps: where it begins, what it can tell apart, what it costs, what it refuses."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import pywt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from transpike.distill.refinement import (
    DualStreamRefinement,
    TransBlock,
    WaveletRefinement,
    band_places,
    position_encoding,
)
from transpike.errors import ConfigError, DataError
from transpike.spectral.wavelet import wavedec2, waverec2


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def trained(channels: int = 3, *, size: tuple[int, int] = (8, 8), levels: int = 2, width: int = 8) -> WaveletRefinement:
    """Away from where it begins, which is the identity."""
    torch.manual_seed(0)
    refine = WaveletRefinement(channels, size=size, levels=levels, width=width)
    nn.init.normal_(refine.leave.weight)
    return refine


@pytest.mark.parametrize("width", [8, 32, 64])
def test_every_level_band_row_and_column_has_its_own_code(width: int) -> None:
    places = torch.tensor(list(product(range(1, 4), range(4), range(7), range(7))))
    codes = position_encoding(places, width)
    apart = torch.cdist(codes, codes, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(1.0)
    assert codes.shape == (3 * 4 * 7 * 7, width) and apart.min() > 0.009


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 4), st.integers(0, 627), st.integers(1, 627))
def test_far_coordinates_differ(axis: int, near: int, further: int) -> None:
    places = torch.zeros(2, 5, dtype=torch.float64)
    places[0, axis], places[1, axis] = near, near + further
    first, second = position_encoding(places, 10)
    assert (first - second).norm() > 1e-3


@pytest.mark.parametrize("levels", [0, 1, 2, 3])
def test_tokens_of_a_decomposition_have_distinct_places(levels: int) -> None:
    places = band_places(wavedec2(torch.zeros(1, 2, 16, 8), "haar", level=levels))
    assert places.shape == (16 * 8, 4)
    assert len(places.unique(dim=0)) == 16 * 8
    assert set(places[:, 0].tolist()) == set(range(min(levels, 1), levels + 1))
    assert places[:, 2].max() < 16 and places[:, 3].max() < 8


def test_places_follow_the_coefficients() -> None:
    """Row and column are where the maps' impulse is whose coefficient it is."""
    coeffs = wavedec2(torch.zeros(8, 8), "haar", level=2)
    coeffs[2][1][3, 1] = 1.0  # cV of level 1
    flat = torch.cat([coeffs[0].flatten(), *(band.flatten() for high in coeffs[1:] for band in high)])
    assert band_places(coeffs)[flat.argmax()].tolist() == [1.0, 2.0, 7.0, 3.0]


@pytest.mark.parametrize("levels, wavelet", [(0, "haar"), (1, "db2"), (2, "haar"), (3, "haar"), (1, "bior1.1")])
def test_begins_as_the_identity(levels: int, wavelet: str) -> None:
    refine = WaveletRefinement(3, size=(16, 8), levels=levels, wavelet=wavelet)
    maps = noise(2, 3, 16, 8)
    assert torch.equal(refine(maps), maps)


def test_few_channels_are_the_bands_of_all() -> None:
    """W_out IDWT(refine(DWT(W_in F))) = IDWT(W_out refine(W_in DWT(F))): what the docstring claims."""
    refine, maps = trained(), noise(2, 3, 8, 8)
    nn.init.zeros_(refine.enter.bias)  # type: ignore[arg-type]

    def each(layer: nn.Module, coeffs: list[Any]) -> list[Any]:
        return [layer(coeffs[0]), *(tuple(layer(band) for band in high) for high in coeffs[1:])]

    bands = each(refine.enter, wavedec2(maps, "haar", level=2))
    correction = waverec2(each(refine.leave, refine.refine(bands)), "haar")
    torch.testing.assert_close(refine(maps), maps + correction, rtol=1e-4, atol=1e-4)


def test_layout_is_kept() -> None:
    refine, coeffs = DualStreamRefinement(8), wavedec2(noise(2, 8, 8, 8), "haar", level=2)
    refined = refine(coeffs)
    assert [low.shape for low in (refined[0], coeffs[0])] == [(2, 8, 2, 2)] * 2
    for highs, given_highs in zip(refined[1:], coeffs[1:], strict=True):
        assert [band.shape for band in highs] == [band.shape for band in given_highs]
        assert all((band - before).abs().max() > 1e-3 for band, before in zip(highs, given_highs, strict=True))


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_every_band_hears_of_every_other(changed: int) -> None:
    refine, maps = DualStreamRefinement(8), noise(1, 8, 8, 8)
    coeffs, others = (wavedec2(maps, "haar", level=2) for _ in range(2))
    band = others[0] if changed == 0 else others[changed][1]
    band[0, :, 0, 0] += 5.0
    before, after = refine(coeffs), refine(others)
    assert (after[0][..., 1, 1] - before[0][..., 1, 1]).abs().max() > 1e-4
    for level in (1, 2):
        # The furthest place of cH, out of the reach of a 3x3 convolution on cV.
        assert (after[level][0][..., -1, -1] - before[level][0][..., -1, -1]).abs().max() > 1e-4


def test_refinement_knows_the_place() -> None:
    """Without an encoding, equal tokens could not tell where or in which band they stand."""
    refine = DualStreamRefinement(32)
    coeffs = [torch.ones(1, 32, 8, 8), (torch.ones(1, 32, 8, 8),) * 3, (torch.ones(1, 32, 16, 16),) * 3]
    _, second, first = (torch.stack(tuple(bands)) for bands in refine(coeffs))
    assert (second[0] - second[1]).abs().max() > 1e-3
    # Equal but for the place: inside, where the convolution sees no border.
    inner = first[..., 2:-2, 2:-2]
    assert inner.std((-2, -1)).min() > 1e-3


def test_images_do_not_mix() -> None:
    refine = trained()
    maps = noise(3, 3, 8, 8)
    torch.testing.assert_close(refine(maps)[1:2], refine(maps[1:2]))


def test_attention_spelt_out() -> None:
    block, tokens = TransBlock(8, heads=2), noise(2, 5, 8)
    peer = nn.MultiheadAttention(8, 2, batch_first=True)
    peer.in_proj_weight, peer.in_proj_bias = block.ask.weight, block.ask.bias
    peer.out_proj.weight, peer.out_proj.bias = block.tell.weight, block.tell.bias
    normal = block.first(tokens)
    attended = tokens + peer(normal, normal, normal)[0]
    torch.testing.assert_close(block(tokens), attended + block.each(block.second(attended)))


def test_gradients_reach_every_parameter() -> None:
    for levels in (0, 2):
        refine = trained(size=(4, 4), levels=levels)
        refine(noise(2, 3, 4, 4)).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in refine.parameters())


def test_gradcheck() -> None:
    refine = trained(2, size=(2, 2), levels=1).double()
    assert torch.autograd.gradcheck(refine, noise(1, 2, 2, 2).double().requires_grad_())


def test_large_maps_are_not_answered_by_large_ones() -> None:
    """Else the correction grows with itself, and training at a usual rate diverges."""
    refine = DualStreamRefinement(8, levels=1)
    with torch.no_grad():
        low, details = refine(wavedec2(1e4 * noise(2, 8, 4, 4), "haar", level=1))
    assert max(band.abs().max() for band in (low, *details)) <= 8**0.5


def test_few_parameters() -> None:
    """Only the way in and out grows with the channels."""

    def count(channels: int) -> int:
        return sum(p.numel() for p in WaveletRefinement(channels, size=(8, 8)).parameters())

    assert count(768) == 79_296
    assert count(768) - count(384) == 384 * (2 * 32 + 1)


def test_float32_within_mixed_precision() -> None:
    refine = trained()
    maps = noise(2, 3, 8, 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = refine(maps)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, refine(maps.float()))


@pytest.mark.parametrize("wavelet, size", [("haar", (2, 8)), ("db2", (8, 8)), ("haar", (1, 1)), ("db4", (4, 4))])
def test_too_small_names_the_largest_level(wavelet: str, size: tuple[int, int]) -> None:
    largest = pywt.dwt_max_level(min(size), wavelet)
    with pytest.raises(ConfigError, match=f"{size[0]} x {size[1]} are too small .* the largest possible is {largest}"):
        WaveletRefinement(3, size=size, levels=largest + 1, wavelet=wavelet)
    WaveletRefinement(3, size=size, levels=largest, wavelet=wavelet)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match=r"multiples of 2\^levels = 4"):
        WaveletRefinement(3, size=(8, 6))
    with pytest.raises(ConfigError, match="levels=-1"):
        WaveletRefinement(3, size=(8, 8), levels=-1)
    with pytest.raises(ConfigError, match="'harr' is unknown"):
        WaveletRefinement(3, size=(8, 8), wavelet="harr")
    with pytest.raises(ConfigError, match="width=12"):
        DualStreamRefinement(12)
    with pytest.raises(ConfigError, match="width=6: expected a multiple of 8"):
        position_encoding(torch.zeros(1, 4), 6)
    with pytest.raises(ConfigError, match="heads=3"):
        DualStreamRefinement(8, heads=3)
    with pytest.raises(DataError, match="2 levels, found 1"):
        DualStreamRefinement(8)(wavedec2(torch.zeros(1, 8, 4, 4), "haar", level=1))
    with pytest.raises(DataError, match=r"\[N, C, 8, 8\], found \[1, 3, 4, 4\]"):
        WaveletRefinement(3, size=(8, 8))(torch.zeros(1, 3, 4, 4))
