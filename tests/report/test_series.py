"""Labels of schemes, and the curves of a conversion."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transpike.report.labels import label_schemes
from transpike.report.series import FAITHFUL, Series, find_series, representative
from transpike.results import Row

from .samples import make_conversion, make_rate, make_row, parsed


def series_of(*results: dict[str, Any], folders: str = "") -> list[Series]:
    sources = [(parsed(result).result, folder) for result, folder in zip(results, folders or " " * 9, strict=False)]
    return [one for group in find_series([(result, name.strip()) for result, name in sources]) for one in group]


def labels(*results: dict[str, Any]) -> list[str]:
    return [one.label for one in series_of(*results)]


def test_rows_that_differ_in_steps_only_are_one_series(conversion: dict[str, Any]) -> None:
    series = series_of(conversion)
    assert [[row.steps for row in one.rows] for one in series] == [[4, 6, 8, 10, 12]] * 5
    assert [one.index for one in series] == [0, 1, 2, 3, 4]
    assert [one.label for one in series] == [
        "ternary, no silent step",
        "ternary, 1 silent step",
        "ternary, 2 silent steps",
        "binary, 1 silent step",
        "levels 1, 2, 4, 8, no silent step",
    ]


def test_a_label_says_only_what_differs() -> None:
    assert labels(make_conversion({"silent": 1})) == ["CSS"]
    assert labels(make_conversion({"beta": 1.5}, {"beta": 2.0})) == ["β 1.5", "β 2"]
    assert labels(make_conversion({"levels": tuple(range(1, 17))}, {})) == ["levels 1, 2 … 16", "ternary"]
    series = series_of(make_conversion({}), make_conversion({}, {"beta": 1.5}, model="vgg16"))
    assert [one.label for one in series] == [
        "resnet20 on digits, β 2",
        "vgg16 on digits, β 2",
        "vgg16 on digits, β 1.5",
    ]
    assert [one.short for one in series] == ["β 2", "β 2", "β 1.5"]


def test_schemes_without_a_common_setting_go_by_name() -> None:
    result = make_conversion({}) | {"rows": [make_row(steps=8), make_rate(steps=64)]}
    assert labels(result) == ["CSS", "Rate"], "no word of the one says anything of the other"
    result["rows"].append(make_row(steps=8, silent=0))
    assert labels(result) == ["CSS, 1 silent step", "Rate", "CSS, no silent step"]
    result["rows"][0]["scheme"]["extra"] = 3
    result["rows"][2]["scheme"]["extra"] = 4
    assert labels(result) == ["CSS, extra 3, 1 silent step", "Rate", "CSS, extra 4, no silent step"]


def test_a_setting_without_words_is_called_by_name_and_value() -> None:
    plain = {"name": "FS", "alpha": 1.0, "signed": True, "digits": [1, 2], "table": None, "norm": "max"}
    other = plain | {"alpha": 0.5, "signed": False, "digits": [1], "table": 3, "norm": "mean"}
    assert label_schemes([plain, other], [{}, {}]) == [
        "alpha 1, signed, digits 1, 2, no table, norm max",
        "alpha 0.5, no signed, digits 1, table 3, norm mean",
    ]
    assert label_schemes([plain, plain | {"digits": (1, 2)}], [{}, {}]) == ["FS", "FS"], "a tuple is JSON's list"


def test_equal_settings_from_two_folders_stay_apart() -> None:
    series = series_of(make_conversion({}), make_conversion({}), folders="ab")
    assert [one.label for one in series] == ["CSS (a)", "CSS (b)"]
    assert labels(make_conversion({}), make_conversion({})) == ["CSS (result 1)", "CSS (result 2)"]


ROW = parsed(make_conversion({})).result.rows[0]  # type: ignore[union-attr]


def row(latency: int, agreement: float) -> Row:
    return replace(ROW, latency=latency, agreement=agreement)


@given(st.lists(st.tuples(st.integers(1, 99), st.floats(0, 1) | st.just(float("nan"))), min_size=1))
def test_the_representative_is_the_quickest_faithful_row(points: list[tuple[int, float]]) -> None:
    rows = [row(*point) for point in points]
    chosen = representative(rows)
    faithful = [one for one in rows if one.agreement >= FAITHFUL]
    if faithful:
        assert chosen.latency == min(one.latency for one in faithful)
        assert chosen.agreement >= FAITHFUL
    elif known := [one.agreement for one in rows if one.agreement == one.agreement]:
        assert chosen.agreement == max(known)


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_faithful_rows_the_quicker_stands_for_both(order: int) -> None:
    rows = [row(24, 0.98), row(28, 0.997), row(32, 1.0)][::order]
    assert representative(rows).latency == 28


@pytest.mark.parametrize("order", [1, -1])
def test_of_rows_as_quick_the_more_faithful_one_stands_for_all(order: int) -> None:
    assert representative([row(28, 0.996), row(28, 0.999)][::order]).agreement == 0.999
