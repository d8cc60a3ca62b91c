"""One phrasing for every wrong value."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transpike.checks import choice, listed, near, number, shown, tensor, whole
from transpike.errors import ConfigError, DataError, ModelError

HUGE = 10**5000


@given(st.integers(), st.integers(-5, 5), st.integers(-5, 5))
def test_whole_takes_what_lies_in_its_range_and_nothing_else(value: int, least: int, most: int) -> None:
    if least <= value <= most:
        assert whole("n", value, least=least, most=most) == value
    else:
        with pytest.raises(ConfigError):
            whole("n", value, least=least, most=most)


@pytest.mark.parametrize("value", [np.int64(3), np.uint8(3), 3])
def test_whole_numbers_of_numpy_become_ints(value: int) -> None:
    assert type(whole("n", value)) is int and whole("n", value) == 3


@pytest.mark.parametrize("value", [True, np.True_, 2.0, np.float32(2), "2", None, [2], torch.tensor(2), math.nan])
def test_what_is_no_whole_number_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^n=.*: expected a whole number of at least 1\.$"):
        whole("n", value)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({}, "a whole number of at least 1"),
        ({"most": 24}, "a whole number from 1 to 24"),
        ({"least": None}, "a whole number"),
        ({"least": None, "most": 5}, "a whole number of at most 5"),
        ({"least": 0}, "a whole number of at least 0"),
    ],
)
def test_the_range_of_a_whole_number_is_said(limits: dict[str, int | None], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        whole("steps", 2.5, **limits)  # type: ignore[arg-type]
    assert str(error.value) == f"steps=2.5: expected {said}."


@given(st.floats() | st.integers(), st.floats(-3, 3), st.floats(-3, 3))
def test_a_number_lies_within_its_bounds(value: float, low: float, high: float) -> None:
    cases = [
        ({"above": low}, value > low),
        ({"least": low}, value >= low),
        ({"below": high}, value < high),
        ({"most": high}, value <= high),
        ({"above": low, "most": high}, low < value <= high),
        ({"least": low, "below": high}, low <= value < high),
    ]
    for bounds, fits in cases:
        if fits and math.isfinite(value):
            assert number("x", value, **bounds) == float(value)
        else:
            with pytest.raises(ConfigError, match=r"^x="):
                number("x", value, **bounds)


@pytest.mark.parametrize("value", [np.float32(0.5), np.float64(0.5), np.float16(0.5), Fraction(1, 2), 0.5])
def test_numbers_of_others_become_floats(value: float) -> None:
    assert type(number("x", value)) is float and number("x", value) == 0.5


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, HUGE, -HUGE, True, "1", None, 1j, torch.tensor(1.0)],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_finite_number_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r": expected a finite number\.$"):
        number("x", value)


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ({"above": 1}, "a number above 1"),
        ({"least": 0}, "a number of at least 0"),
        ({"below": 2.5}, "a number below 2.5"),
        ({"most": 2}, "a number of at most 2"),
        ({"above": 50, "most": 100}, "a number in (50, 100]"),
        ({"least": 0, "below": 1}, "a number in [0, 1)"),
    ],
)
def test_the_range_of_a_number_is_said(bounds: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        number("x", "much", **bounds)
    assert str(error.value) == f"x='much': expected {said}."


def test_a_choice_names_all_and_the_nearest() -> None:
    assert choice("keep", "last", ["last", "best"]) == "last"
    for wrong in ("lasst", "Last"):
        with pytest.raises(ModelError) as error:
            choice("keep", wrong, iter(["last", "best", "none"]), error=ModelError)
        assert str(error.value) == f"keep={wrong!r}: expected 'last', 'best' or 'none'. Did you mean 'last'?"
    for other in (3, None, ("last", "best"), "zzz"):
        with pytest.raises(ConfigError, match=r"expected 'last' or 'best'\.$"):
            choice("keep", other, ["last", "best"])


def test_near_and_listed() -> None:
    assert near("convrt", ["convert", "train"]) == " Did you mean convert?"
    assert near("tttt", ["convert"]) == ""
    assert (listed([]), listed(["a"]), listed(["a", "b"])) == ("", "a", "a or b")


def test_what_a_message_shows_is_short() -> None:
    assert shown(HUGE) == "<int too long to show>"
    assert len(shown("x" * 10_000)) <= 80
    assert len(shown([["y" * 1000] * 1000] * 1000)) == 200
    assert shown(torch.zeros(2, 2)) == "tensor([[0., 0.], [0., 0.]])"
    with pytest.raises(ConfigError, match=r"^x=<int too long to show>: expected a finite number\.$"):
        number("x", HUGE)


@pytest.mark.parametrize(
    ("shape", "pattern"),
    [
        ((2, 3, 8, 8), ("N", 3, 8, 8)),
        ((2, 3, 8, 8), ("N", "C", "S", "S")),
        ((5,), ("N",)),
        ((4, 2, 7, 7, 7), ("T", "N", "*")),
        ((4, 2), ("T", "N", "*")),
        ((4, 9, 9, 2), ("T", "*", 2)),
        ((), ()),
    ],
)
def test_a_tensor_of_the_shape_is_handed_on(shape: tuple[int, ...], pattern: tuple[int | str, ...]) -> None:
    x = torch.zeros(shape)
    assert tensor("x", x, pattern) is x


@pytest.mark.parametrize(
    ("value", "pattern", "got"),
    [
        (torch.zeros(2, 3, 9, 8), ("N", 3, "S", "S"), "torch.float32 [2, 3, 9, 8]"),
        (torch.zeros(2, 4, 8, 8), ("N", 3, "S", "S"), "torch.float32 [2, 4, 8, 8]"),
        (torch.zeros(2, 3, 8), ("N", 3, "S", "S"), "torch.float32 [2, 3, 8]"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.long), ("N", 3, "S", "S"), "torch.int64 [2, 3, 8, 8]"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.complex64), ("N", 3, "S", "S"), "torch.complex64 [2, 3, 8, 8]"),
        (np.zeros((2, 3)), ("N", 3), "numpy.ndarray; torch.as_tensor makes it one"),
        ([1.0], ("N",), "list"),
        (torch.zeros(4), ("T", "N", "*"), "torch.float32 [4]"),
        (torch.zeros(4, 3), ("T", "*", 2), "torch.float32 [4, 3]"),
    ],
)
def test_any_other_is_described(value: object, pattern: tuple[int | str, ...], got: str) -> None:
    with pytest.raises(DataError) as error:
        tensor("x", value, pattern)
    assert str(error.value) == f"x: expected a floating-point tensor [{', '.join(map(str, pattern))}], got {got}."


def test_a_tensor_of_whole_numbers() -> None:
    labels = torch.tensor([0, 1])
    assert tensor("labels", labels, ("N",), floating=False) is labels
    with pytest.raises(ModelError, match=r"^labels: expected a whole-number tensor \[N\], got torch.float32 \[2\]\.$"):
        tensor("labels", labels.float(), ("N",), floating=False, error=ModelError)
