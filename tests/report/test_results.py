from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transpike.report.results import FAITHFUL, check_result, find_series, read_result, representative

from transpike.errors import DataError

from .samples import RUN, make_analysis, make_conversion, make_row, write_run

KINDS = ("analysis", "conversion", "training")


def labels(*results: dict[str, Any]) -> list[str]:
    return [series.label for group in find_series(results) for series in group]


def test_rows_that_differ_in_steps_only_are_one_series(conversion: dict[str, Any]) -> None:
    (series,) = find_series([conversion])
    assert [[row["steps"] for row in one.rows] for one in series] == [[4, 6, 8, 10, 12]] * 5
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
    elsewhere = make_conversion({}, model="vgg16")
    assert labels(make_conversion({}), elsewhere) == ["resnet20 on digits, CSS", "vgg16 on digits, CSS"]


def test_schemes_without_a_common_setting_go_by_name() -> None:
    result = make_conversion({})
    rate = make_row(steps=64) | {"scheme": {"name": "rate", "steps": 64, "reset": "soft"}}
    assert labels(result | {"rows": [*result["rows"], rate]}) == ["CSS", "rate"]


def test_equal_settings_from_two_folders_stay_apart() -> None:
    first, second = make_conversion({}) | {"folder": "runs/a"}, make_conversion({}) | {"folder": "runs/b"}
    assert labels(first, second) == ["CSS (runs/a)", "CSS (runs/b)"]


@given(st.lists(st.tuples(st.integers(1, 99), st.floats(0, 1)), min_size=1))
def test_the_representative_is_the_quickest_faithful_row(points: list[tuple[int, float]]) -> None:
    rows = [{"latency": latency, "agreement": agreement} for latency, agreement in points]
    chosen = representative(rows)
    faithful = [row for row in rows if row["agreement"] >= FAITHFUL]
    if faithful:
        assert chosen["latency"] == min(row["latency"] for row in faithful)
        assert chosen["agreement"] >= FAITHFUL
    else:
        assert chosen["agreement"] == max(row["agreement"] for row in rows)


def test_read_result_joins_the_run(tmp_path: Path, conversion: dict[str, Any]) -> None:
    folder = write_run(tmp_path / "run", conversion)
    assert read_result(folder) == conversion | {"run": RUN, "folder": str(folder)}
    (folder / "run.json").unlink()
    assert "run" not in read_result(folder)


@pytest.mark.parametrize("content", ["", '{"kind": "conv', "\x00", "[" * 100_000, b"\xff\xfe{".decode("latin-1")])
@pytest.mark.parametrize("name", ["results.json", "run.json"])
def test_damaged_files_are_named(tmp_path: Path, conversion: dict[str, Any], name: str, content: str) -> None:
    folder = write_run(tmp_path / "run", conversion)
    (folder / name).write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=rf"{name}: damaged"):
        read_result(folder)


def test_not_a_number_reads_as_absent(tmp_path: Path, conversion: dict[str, Any]) -> None:
    folder = write_run(tmp_path / "run", conversion | {"ann": {"accuracy": float("nan"), "energy_uj": float("inf")}})
    assert read_result(folder)["ann"] == {"accuracy": None, "energy_uj": None}


def test_a_folder_without_results_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no results\.json here"):
        read_result(tmp_path)
    (tmp_path / "results.json").write_text("[1]")
    with pytest.raises(DataError, match="expected a JSON object, found list"):
        read_result(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "horoscope"}, "unknown kind of result 'horoscope'. Known: analysis, conversion, training"),
        ({"kind": ["conversion"]}, "unknown kind"),
        ({"version": 2}, "a newer format .* Update transpike"),
        ({"version": 0}, "an older format .* Run the experiment again"),
        ({"version": None}, "an older format"),
        ({"images": "many"}, "images has the wrong type"),
        ({"rows": []}, "rows is empty"),
        ({"rows": [3]}, r"rows\[0\]: expected an object, found int"),
        ({"rows": [{"steps": 4}]}, r"rows\[0\]: scheme is missing"),
        ({"ann": {"accuracy": float("nan")}}, "ann: accuracy should be a number, found nan"),
        ({"ann": {"accuracy": "high"}}, "ann: accuracy should be a number, found 'high'"),
    ],
)
def test_foreign_results_are_refused(conversion: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"runs/x: {message}|runs/x: .*{message}"):
        check_result(conversion | change, where="runs/x", kinds=KINDS)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("steps",), True, r"rows\[0\]: steps has the wrong type"),
        (("loss_pp",), "none", r"rows\[0\]: loss_pp should be a number"),
        (("scheme", "name"), None, r"rows\[0\].scheme: name has the wrong type"),
        (("layers", 3, "name"), 7, r"rows\[0\].layers\[3\]: name has the wrong type"),
        (("layers", 3, "error"), {}, r"rows\[0\].layers\[3\]: error should be a number"),
        (("layers",), {"a": 1}, r"rows\[0\].layers should be a list"),
        (("energy_parts_uj",), 3.0, r"rows\[0\].energy_parts_uj should be an object"),
        (("energy_parts_uj",), {"shifts": "few"}, r"rows\[0\].energy_parts_uj should be an object of numbers"),
    ],
)
def test_damage_deep_in_a_row_is_located(
    conversion: dict[str, Any], path: tuple[Any, ...], value: Any, message: str
) -> None:
    damaged = deepcopy(conversion)
    place = damaged["rows"][0]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(DataError, match=message):
        check_result(damaged, where="runs/x", kinds=KINDS)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("networks",), [], "networks is empty"),
        (("networks", 0, "label"), None, r"networks\[0\]: label has the wrong type"),
        (("features", 1, "curves", 0, "power"), 3, r"features\[1\].curves\[0\]: power has the wrong type"),
        (("logits", "curves"), None, "logits.curves should be a list"),
        (("stages", 0, "curves", 2, "energy"), None, r"stages\[0\].curves\[2\]: energy has the wrong type"),
        (("similarity", 1, "cka"), 0.5, r"similarity\[1\]: cka has the wrong type"),
        (("stages",), {}, "stages should be a list"),
        (("filters", 0, "network"), 9, r"filters\[0\] is of no network"),
        (("saliency", "panels", 2, "map"), "none", r"saliency.panels\[2\]: map has the wrong type"),
        (("neurons", 0, "spikes"), [], r"neurons\[0\]: spikes has the wrong type"),
    ],
)
def test_damage_in_an_analysis_is_located(path: tuple[Any, ...], value: Any, message: str) -> None:
    damaged = deepcopy(make_analysis())
    check_result(damaged, where="runs/x", kinds=KINDS)
    place: Any = damaged
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(DataError, match=message):
        check_result(damaged, where="runs/x", kinds=KINDS)


def test_unknown_fields_do_no_harm(conversion: dict[str, Any]) -> None:
    more = json.loads(json.dumps(conversion))
    more["rows"][0] |= {"notes": ["of a later version"], "seconds": None}
    check_result(more | {"mood": {"good": True}}, where="runs/x", kinds=KINDS)
