"""Cosine transforms against SciPy's, whole and block by block, and back again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import fft
from torch.autograd import gradcheck

from transpike.errors import ConfigError, DataError, TranspikeError
from transpike.spectral.cosine import block_count, block_dct, block_idct, dctn, idctn, zigzag

# The zigzag table of ITU-T T.81 (JPEG), Figure A.6: at (row, column), when that frequency's turn is.
JPEG = [
    [0, 1, 5, 6, 14, 15, 27, 28],
    [2, 4, 7, 13, 16, 26, 29, 42],
    [3, 8, 12, 17, 25, 30, 41, 43],
    [9, 11, 18, 24, 31, 40, 44, 53],
    [10, 19, 23, 32, 39, 45, 52, 54],
    [20, 22, 33, 38, 46, 51, 55, 60],
    [21, 34, 37, 47, 50, 56, 59, 61],
    [35, 36, 48, 49, 57, 58, 62, 63],
]


def randn(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


@settings(max_examples=40, deadline=None)
@given(batch=st.lists(st.integers(1, 3), max_size=2), rows=st.integers(1, 33), columns=st.integers(1, 33))
def test_equals_scipy_inverts_and_keeps_energy(batch: list[int], rows: int, columns: int) -> None:
    x = randn(*batch, rows, columns)
    spectrum = dctn(x)
    np.testing.assert_allclose(spectrum, fft.dctn(x.numpy(), axes=(-2, -1), norm="ortho"), atol=1e-12)
    np.testing.assert_allclose(idctn(x), fft.idctn(x.numpy(), axes=(-2, -1), norm="ortho"), atol=1e-12)
    torch.testing.assert_close(idctn(spectrum), x, atol=1e-12, rtol=0)
    assert spectrum.square().sum() == pytest.approx(float(x.square().sum()), rel=1e-12)


def test_equation_12_of_the_dct_snn_supplement_as_it_is_printed() -> None:
    s = randn(3, 5).numpy()
    f = np.zeros_like(s)
    for u in range(3):
        for v in range(5):
            c = (0.5**0.5 if u == 0 else 1) * (0.5**0.5 if v == 0 else 1)
            for x in range(3):
                for y in range(5):
                    wave = np.cos(u * np.pi * (2 * x + 1) / 6) * np.cos(v * np.pi * (2 * y + 1) / 10)
                    f[u, v] += 2 / 15**0.5 * c * s[x, y] * wave
    np.testing.assert_allclose(dctn(torch.from_numpy(s)), f, atol=1e-12)


def test_types_views_autocast_and_gradients() -> None:
    x = randn(2, 6, 8, dtype=torch.float32)
    assert dctn(x).dtype == dctn(x.half()).dtype == torch.float32
    torch.testing.assert_close(dctn(x.mT), dctn(x.mT.contiguous()), atol=1e-6, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(dctn(x), dctn(x.double()).float(), atol=1e-5, rtol=0)
    assert gradcheck(dctn, randn(2, 3, 4).requires_grad_())
    assert gradcheck(lambda c: block_idct(block_dct(c, block=3, stride=2) ** 2, stride=2), randn(4, 5).requires_grad_())


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_blocks_equal_scipys_and_put_the_image_together_again(data: st.DataObject) -> None:
    block = data.draw(st.integers(1, 9))
    stride = data.draw(st.integers(1, block))
    height, width = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 20))
    image = randn(2, 3, height, width)
    coefficients = block_dct(image, block=block, stride=stride)
    rows, columns = (block_count(n, block=block, stride=stride) for n in (height, width))
    assert coefficients.shape == (2, 3, rows, columns, block, block)
    below, right = (max(0, (n - 1) * stride + block - m) for n, m in ((rows, height), (columns, width)))
    assert below < max(stride, block - height + 1) and right < max(stride, block - width + 1)
    padded = np.pad(image.numpy(), ((0, 0), (0, 0), (0, below), (0, right)), mode="edge")
    row, column = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    patch = padded[1, 2, row * stride : row * stride + block, column * stride : column * stride + block]
    np.testing.assert_allclose(coefficients[1, 2, row, column], fft.dctn(patch, norm="ortho"), atol=1e-12)
    restored = block_idct(coefficients, stride=stride, size=(height, width))
    torch.testing.assert_close(restored, image, atol=1e-12, rtol=0)


def test_parseval_of_blocks_side_by_side_and_without_a_size_the_padding_stays() -> None:
    image = randn(8, 12)
    assert block_dct(image).square().sum() == pytest.approx(float(image.square().sum()))
    odd = torch.arange(5.0).expand(5, 5)
    assert block_idct(block_dct(odd))[7].round().tolist() == [0, 1, 2, 3, 4, 4, 4, 4]


def test_of_changed_coefficients_the_inverse_is_the_least_squares_image() -> None:
    size, coefficients = (5, 6), randn(2, 2, 4, 4)
    pixels = torch.eye(30, dtype=torch.float64).view(30, *size)
    padded = pixels.new_zeros(30, 6, 6)
    padded[:, :5] = pixels
    padded = torch.cat([padded, torch.zeros(6, 6, 6, dtype=torch.float64)])
    padded[30:, 5] = torch.eye(6, dtype=torch.float64)
    analysis = block_dct(padded, block=4, stride=2).flatten(1).mT
    nearest = np.linalg.lstsq(analysis.numpy(), coefficients.flatten().numpy(), rcond=None)[0]
    np.testing.assert_allclose(block_idct(coefficients, stride=2)[:5].flatten(), nearest[:30], atol=1e-12)


def test_zigzag_is_jpegs() -> None:
    turn = {(row, column): turn for row, line in enumerate(JPEG) for column, turn in enumerate(line)}
    assert zigzag(8) == tuple(sorted(turn, key=turn.__getitem__))
    four = "(0,0)(0,1)(1,0)(2,0)(1,1)(0,2)(0,3)(1,2)(2,1)(3,0)(3,1)(2,2)(1,3)(2,3)(3,2)(3,3)"
    assert "".join(f"({u},{v})" for u, v in zigzag(4)) == four
    assert zigzag(1) == ((0, 0),)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: dctn(torch.zeros(4)), DataError, r"\[\*, M, N\], not torch.float32 of shape \[4\]"),
        (lambda: dctn(torch.zeros(4, 4, dtype=torch.complex64)), DataError, "complex64"),
        (lambda: dctn(torch.zeros(4, 0)), DataError, r"\[4, 0\]"),
        (lambda: block_dct(torch.zeros(8)), DataError, r"at least one pixel, not of shape \[8\]"),
        (lambda: block_dct(torch.zeros(1, 0, 8)), DataError, r"\[1, 0, 8\]"),
        (lambda: block_dct(torch.zeros(8, 8), block=0), ConfigError, "block=0"),
        (
            lambda: block_dct(torch.zeros(8, 8), block=4, stride=5),
            ConfigError,
            "stride=5: expected a whole number from 1 to 4",
        ),
        (lambda: block_dct(torch.zeros(8, 8), block=4, stride=0), ConfigError, "stride=0"),
        (
            lambda: block_idct(torch.zeros(2, 4, 4)),
            DataError,
            r"rows, columns, block, block\], not of shape \[2, 4, 4\]",
        ),
        (lambda: block_idct(torch.zeros(2, 2, 4, 3)), DataError, r"\[2, 2, 4, 3\]"),
        (
            lambda: block_idct(torch.zeros(2, 2, 4, 4), size=(9, 8)),
            DataError,
            r"size=\(9, 8\) does not make 2 x 2 blocks",
        ),
        (lambda: zigzag(0), ConfigError, "block=0"),
    ],
)
def test_bad_input(call: object, error: type[TranspikeError], words: str) -> None:
    with pytest.raises(error, match=words):
        call()  # type: ignore[operator]
