"""Wavelet transforms against PyWavelets: every wavelet, mode, parity and depth; gradients; what they refuse."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import pywt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from transpike.errors import ConfigError, DataError
from transpike.spectral.wavelet import dwt2, idwt2, wavedec2, waverec2

WAVELETS = pywt.wavelist(kind="discrete")
MODES = pywt.Modes.modes
LONG = 500  # beyond what any wavelet takes as one dense matrix


def noise(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(sum(shape)))


def flat(coeffs: Any) -> list[Any]:
    return [coeffs[0], *(band for level in coeffs[1:] for band in level)]


def flat_level(level: Any) -> tuple[Any, ...]:
    return (level[0], *level[1])


def assert_equal(found: Any, expected: Any, atol: float = 1e-9) -> None:
    assert [len(level) for level in found[1:]] == [3] * (len(expected) - 1)
    for ours, theirs in zip(flat(found), flat(expected), strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours.numpy(), theirs, atol=atol, rtol=1e-11)


def check(x: Tensor, wavelet: str, mode: str, level: int | None, atol: float = 1e-9) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours, theirs = wavedec2(x, wavelet, mode, level), pywt.wavedec2(x.numpy(), wavelet, mode, level)
    assert_equal(ours, theirs, atol)
    back = waverec2(ours, wavelet, mode)
    np.testing.assert_allclose(back.numpy(), pywt.waverec2(theirs, wavelet, mode), atol=atol, rtol=1e-11)


@settings(max_examples=60, deadline=None)
@given(
    wavelet=st.sampled_from(WAVELETS),
    mode=st.sampled_from(MODES),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    level=st.integers(0, 3) | st.none(),
)
def test_equals_pywavelets(wavelet: str, mode: str, height: int, width: int, level: int | None) -> None:
    # In antireflect a map extended over and over grows with the distance.
    if "reflect" in mode and level != 0:
        height, width = height + 40, width + 40  # one sample has no reflection, see below
    check(noise(height, width), wavelet, mode, level, atol=1e-7)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wavelet", ["haar", "db2", "bior4.4"])
def test_long_axes_equal_pywavelets(wavelet: str, mode: str) -> None:
    for size in (LONG, LONG + 1):
        check(noise(3, size), wavelet, mode, 1)
        check(noise(size, 2), wavelet, mode, 1)


@pytest.mark.parametrize("wavelet", ["haar", "db3", "coif17"])
def test_windows_and_one_matrix_agree_where_they_meet(wavelet: str) -> None:
    limit = 2 * (32 + pywt.Wavelet(wavelet).dec_len + 2)
    for size in (limit, limit + 1, limit + 2):
        check(noise(1, size), wavelet, "symmetric", 1)
        check(noise(1, size), wavelet, "periodization", 1)


@pytest.mark.parametrize("wavelet", WAVELETS)
def test_every_wavelet_reconstructs(wavelet: str) -> None:
    x = noise(2, 13, 16)
    tolerance = 2e-2 if wavelet == "dmey" else 1e-6
    for mode in ("symmetric", "periodization"):
        approximation, details = dwt2(x, wavelet, mode)
        back = idwt2((approximation, details), wavelet, mode)[..., :13, :16]
        assert (back - x).abs().max() <= tolerance * x.abs().max()


@pytest.mark.parametrize("mode", MODES)
def test_levels_reconstruct_odd_maps(mode: str) -> None:
    x = noise(2, 37, 54)
    torch.testing.assert_close(waverec2(wavedec2(x, "bior2.2", mode), "bior2.2", mode)[..., :37, :54], x)


def test_float32_is_as_near_to_pywavelets() -> None:
    check(noise(3, 32, 32, dtype=torch.float32), "db4", "symmetric", None, atol=1e-5)
    x = noise(32, 32, dtype=torch.float32)
    expected = pywt.wavedec2(x.double().numpy(), "db4")
    for ours, theirs in zip(flat(wavedec2(x, "db4")), flat(expected), strict=True):
        assert ours.dtype == torch.float32
        assert np.abs(ours.numpy() - theirs).max() < 1e-6 * np.abs(theirs).max()


def test_orthogonal_wavelets_keep_the_energy() -> None:
    x = noise(3, 36, 64)
    coefficients = flat(wavedec2(x, "sym5", "periodization", 2))
    assert sum(float(band.square().sum()) for band in coefficients) == pytest.approx(float(x.square().sum()))


def test_leading_axes_are_a_batch() -> None:
    x = noise(2, 3, 4, 12, 13)
    together = wavedec2(x, "db2", level=2)
    assert together[0].shape == (2, 3, 4, *pywt.wavedec2(x[0, 0, 0], "db2", level=2)[0].shape)
    for index in np.ndindex(2, 3, 4):
        assert_equal(wavedec2(x[index], "db2", level=2), pywt.wavedec2(x[index].numpy(), "db2", level=2))
        alone = [together[0][index], *(tuple(band[index] for band in level) for level in together[1:])]
        assert_equal(alone, pywt.wavedec2(x[index].numpy(), "db2", level=2))
    assert wavedec2(x[:0], "db2")[0].shape[:3] == (0, 3, 4)


@pytest.mark.parametrize("size", [12, LONG])
def test_memory_format_does_not_matter(size: int) -> None:
    x = noise(2, 3, 6, size)
    expected = flat(wavedec2(x, "db2", level=1))
    for same in (x.to(memory_format=torch.channels_last), x.mT.contiguous().mT, x.repeat(1, 1, 1, 2)[..., :size]):
        for ours, theirs in zip(flat(wavedec2(same, "db2", level=1)), expected, strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("mode", MODES)
def test_gradients(mode: str) -> None:
    x = noise(2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: flat_level(dwt2(x, "bior2.2", mode)), (x,))
    bands = [band.detach().requires_grad_() for band in flat_level(dwt2(x, "bior2.2", mode))]
    assert torch.autograd.gradcheck(lambda low, *high: idwt2((low, high), "bior2.2", mode), bands)


@pytest.mark.parametrize("mode", ["antireflect", "periodization"])
def test_gradients_of_long_axes_are_the_transposed_transform(mode: str) -> None:
    """<Wx, y> = <x, W^T y>, with W^T y from autograd and Wx from PyWavelets."""
    x = noise(2, LONG)
    expected = flat_level(pywt.dwt2(x.numpy(), "db3", mode))
    y = [noise(*band.shape) for band in expected]
    (gradient,) = torch.autograd.grad(flat_level(dwt2(x.requires_grad_(), "db3", mode)), x, y)
    products = sum(float((band * weight.numpy()).sum()) for band, weight in zip(expected, y, strict=True))
    assert float((gradient * x.detach()).sum()) == pytest.approx(products)


def test_inference_mode_before_training() -> None:
    with torch.inference_mode():
        wavedec2(torch.ones(1, 11, 23), "rbio1.3")
    x = torch.ones(1, 11, 23, requires_grad=True)
    wavedec2(x, "rbio1.3")[0].sum().backward()
    assert x.grad is not None and float(x.grad.sum()) > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_other_data_types_in_float32(dtype: torch.dtype) -> None:
    x = torch.arange(48).view(6, 8).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        coefficients = wavedec2(x, "db2")
        back = waverec2(coefficients, "db2")
    assert {band.dtype for band in flat(coefficients)} == {back.dtype} == {torch.float32}
    assert_equal(coefficients, pywt.wavedec2(x.float().numpy(), "db2"), atol=1e-4)
    torch.testing.assert_close(back, x.float(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("level", [None, 0, 3, 4])
def test_warns_where_pywavelets_warns(level: int | None) -> None:
    x = noise(30, 60)  # db2 halves it three times
    with warnings.catch_warnings(record=True) as theirs:
        warnings.simplefilter("always")
        expected = pywt.wavedec2(x.numpy(), "db2", level=level)
    with warnings.catch_warnings(record=True) as ours:
        warnings.simplefilter("always")
        found = wavedec2(x, "db2", level=level)
    assert [w.category for w in ours] == [w.category for w in theirs] == [UserWarning] * (level == 4)
    assert all(w.filename == __file__ for w in ours)
    assert_equal(found, expected)


@pytest.mark.parametrize("mode", ["symmetric", "periodization"])
def test_missing_bands_are_zeros(mode: str) -> None:
    low, middle, fine = wavedec2(noise(21, 14), "db2", mode, 2)
    for coeffs in ([low, (None,) * 3, fine], [None, middle, fine], [low, (middle[0], None, middle[2]), (None,) * 3]):
        expected = pywt.waverec2([_numpy(level) for level in coeffs], "db2", mode)
        np.testing.assert_allclose(waverec2(coeffs, "db2", mode).numpy(), expected, atol=1e-9)


def _numpy(level: Any) -> Any:
    if isinstance(level, tuple):
        return tuple(map(_numpy, level))
    return None if level is None else level.numpy()


def test_own_filters() -> None:
    bank = pywt.Wavelet("mine", filter_bank=pywt.Wavelet("db3").filter_bank)
    x = noise(10, 12)
    assert_equal(wavedec2(x, bank, level=1), pywt.wavedec2(x.numpy(), "db3", level=1))


@pytest.mark.parametrize(
    ("wavelet", "message"),
    [
        ("db39", r"'db39' is unknown\. Did you mean db9, db3 or db38\?"),
        ("Bior4,4", r"'Bior4,4' is unknown\. Did you mean bior4.4"),
        ("??", r"is unknown\. Name one of bior1\.1, "),
        ("mexh", "mexh is a continuous wavelet"),
        ("cmor1.5-1.0", "cmor1.5-1.0 is a continuous wavelet"),
        (pywt.ContinuousWavelet("gaus2"), "gaus2 is a continuous wavelet"),
    ],
)
def test_wavelets_it_refuses(wavelet: Any, message: str) -> None:
    for call in (lambda: wavedec2(noise(4, 4), wavelet), lambda: waverec2([noise(4, 4)], wavelet)):
        with pytest.raises(ConfigError, match=message):
            call()


def test_options_and_maps_it_refuses() -> None:
    with pytest.raises(ConfigError, match="mode='mirror': expected 'zero', 'constant', 'symmetric'"):
        wavedec2(noise(4, 4), "haar", "mirror")
    with pytest.raises(ConfigError, match="level=-1"):
        wavedec2(noise(4, 4), "haar", level=-1)
    for x in (noise(4), noise(3, 0), noise(4, 4).to(torch.complex64)):
        with pytest.raises(DataError, match=r"expected real maps \[\*, H, W\], found \["):
            wavedec2(x, "haar")
    for mode in ("reflect", "antireflect"):
        with pytest.raises(DataError, match=f"mode={mode!r} needs two samples a side, found 1"):
            dwt2(noise(1, 5), "haar", mode)


def test_coefficients_it_refuses() -> None:
    low, middle, fine = wavedec2(noise(16, 16), "haar", level=2)
    with pytest.raises(DataError, match=r"level 2: the bands must have one shape, found cA \[4, 3\], cH \[4, 4\]"):
        waverec2([low[:, :3], middle, fine], "haar")
    with pytest.raises(DataError, match=r"level 1: the bands must have one shape"):
        waverec2([low, middle, (fine[0], fine[1][:7], fine[2])], "haar")
    with pytest.raises(DataError, match=r"level 1: expected three details \(cH, cV, cD\), found Tensor"):
        waverec2([low, middle, fine[0]], "haar")
    with pytest.raises(DataError, match="level 1: expected three details"):
        waverec2([low, middle, fine[:2]], "haar")
    with pytest.raises(DataError, match=r"bands of \[4, 4\] are smaller than db8 makes any, 8 a side"):
        waverec2([low, middle], "db8")
    with pytest.raises(DataError, match="no coefficients"):
        waverec2([], "haar")
    with pytest.raises(DataError, match="the only band is None"):
        waverec2([None], "haar")
    with pytest.raises(DataError, match="level 1: the bands must have one shape, found cA None"):
        waverec2([None, (None, None, None)], "haar")
