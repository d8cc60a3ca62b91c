"""What runs write: read back as it was, and refused by file and field where it is not as it must be."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from report.samples import (
    RUN,
    make_analysis,
    make_conversion,
    make_rate,
    make_row,
    make_spiking,
    make_training,
    parsed,
    write_run,
)
from report.test_encoding import make_encoded
from transpike import results
from transpike.errors import ConfigError, DataError
from transpike.report import build_page
from transpike.results.records import AtLeast, Mistake, from_json, to_json

SAMPLES: dict[str, Callable[[], dict[str, Any]]] = {
    "conversion": lambda: make_conversion({}) | {"rows": [make_row(steps=8), make_rate(steps=32)]},
    "training": make_training,
    "spiking": make_spiking,
    "analysis": make_analysis,
    "encoded": make_encoded,
    "untuned": lambda: make_encoded(tuned=False),
}
HOSTILE: list[Any] = [
    *(None, True, "", "x", "\ud800", "a\x00b", 0, -1, 10**9, 2**60, 1e300, -1e-320, [], [[]], {}, {"": None}),
    *([None], [1, "a"], {"name": "x"}, "9" * 1000, [0.5] * 3, [[0.5], [0.5, 1.0]]),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value; of long lists the first two."""
    yield path
    if isinstance(value, dict):
        for name, item in value.items():
            yield from places(item, (*path, name))
    elif isinstance(value, list):
        for place, item in enumerate(value[:2]):
            yield from places(item, (*path, place))


def changed(sample: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    copy: Any = deepcopy(sample)
    place = copy
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    found: dict[str, Any] = copy
    return found


@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_written_is_read(name: str, tmp_path: Path) -> None:
    sample = json.loads(json.dumps(SAMPLES[name]()))
    folder = write_run(tmp_path / "run", sample)
    found = results.read(folder)
    assert found.folder == str(folder) and found.run == parsed(sample, run=RUN).run
    assert results.write(tmp_path / "again" / "results.json", found.result) == tmp_path / "again" / "results.json"
    assert results.read_result(tmp_path / "again") == found.result
    assert found.run is not None
    results.write(folder / "run.json", found.run)
    assert results.read_run(folder) == found.run
    assert results.read_run(tmp_path / "again") is None


def test_the_file_has_what_the_class_has() -> None:
    sample = make_conversion({})
    told = results.as_json(parsed(sample).result)
    assert told == json.loads(json.dumps(sample)), "fields with a default are left out, all others are there"
    tested = results.Evaluation(model="mlp", dataset="digits", images=360, accuracy=0.75, loss=math.nan)
    assert results.as_json(tested) == {
        "kind": "evaluation", "version": 2, "model": "mlp", "dataset": "digits", "images": 360, "accuracy": 0.75,
        "loss": None,
    }  # fmt: skip
    shape = results.as_json(replace(tested, accuracy_after=(0.5, 1.0)))
    assert shape["accuracy_after"] == [0.5, 1.0]


def test_no_number_is_null_in_the_file_and_is_read_as_none(tmp_path: Path) -> None:
    sample = make_conversion({})
    sample["rows"][0] |= {"logit_error": float("nan"), "energy_uj": math.inf}
    folder = write_run(tmp_path / "run", to_json(sample))
    row = results.read_result(folder).rows[0]  # type: ignore[union-attr]
    assert row.logit_error is None and math.isnan(row.energy_uj)


@dataclass(frozen=True)
class Part:
    size: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        if self.size[0] > self.size[1]:
            raise Mistake("size", ": expected the smaller side first.")


@dataclass(frozen=True)
class Whole:
    name: str
    count: Annotated[int, AtLeast(2)]
    share: float
    kind: Literal["dog", "cat"]
    parts: tuple[Part, ...] = ()
    loose: Mapping[str, object] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    flag: bool | None = None


GOOD: dict[str, Any] = {"name": "a", "count": 2, "share": 0.5, "kind": "cat"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"nme": 1}, "nme is unknown."),
        ({"part": []}, "part is unknown. Did you mean parts?"),
        ({"name": 3}, "name=3: expected text."),
        ({"name": "\udc00"}, "name: expected text in Unicode, found half of a character."),
        ({"count": 1}, "count=1: expected a whole number of at least 2."),
        ({"count": 2.0}, "count=2.0: expected a whole number of at least 2."),
        ({"count": True}, "count=True: expected a whole number of at least 2."),
        ({"count": 2**60}, "count=1152921504606846976: expected a whole number of at least 2."),
        ({"share": "x"}, "share='x': expected a number."),
        ({"share": True}, "share=True: expected a number."),
        ({"share": 1e200}, "share=1e+200: expected a number."),
        ({"share": 10**200}, f"share={'1' + '0' * 17}...{'0' * 19}: expected a number."),
        ({"kind": "cats"}, "kind='cats': expected 'dog' or 'cat'. Did you mean 'cat'?"),
        ({"kind": ["cat"]}, "kind=['cat']: expected 'dog' or 'cat'. Did you mean 'cat'?"),
        ({"parts": {}}, "parts={}: expected a list."),
        ({"parts": [{}, {"size": [1]}]}, "parts[1].size=[1]: expected a list of 2."),
        ({"parts": [{}, {"size": [1, None]}]}, "parts[1].size[1]=None: expected a whole number."),
        ({"parts": [{"size": [2, 1]}]}, "parts[0].size: expected the smaller side first."),
        ({"parts": [[]]}, "parts[0]=[]: expected an object."),
        ({"loose": []}, "loose=[]: expected an object."),
        (
            {"loose": {"a b": [{"c": "\ud800"}]}},
            "loose['a b'][0].c: expected text in Unicode, found half of a character.",
        ),
        ({"rates": {"layers.1": "x"}}, "rates['layers.1']='x': expected a number."),
        ({"flag": 0}, "flag=0: expected true or false."),
    ],
)
def test_each_mistake_is_one_sentence_with_the_path(change: dict[str, Any], told: str) -> None:
    with pytest.raises(Mistake) as caught:
        from_json(Whole, GOOD | change)
    assert str(caught.value) == told


def test_a_missing_field_is_named_unless_it_has_a_default() -> None:
    assert from_json(Whole, GOOD) == Whole("a", 2, 0.5, "cat")
    for name in GOOD:
        with pytest.raises(Mistake, match=f"^{name} is missing.$"):
            from_json(Whole, {key: value for key, value in GOOD.items() if key != name})


KEYS = st.text(st.characters(exclude_categories=["Cs"]))
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | KEYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(name=KEYS, count=st.integers(2, 2**53), share=st.floats(-1e99, 1e99), loose=st.dictionaries(KEYS, ANYTHING))
def test_records_of_any_values_come_back(name: str, count: int, share: float, loose: dict[str, object]) -> None:
    record = Whole(name, count, share, "dog", (Part((1, 2)), Part()), loose, {name: share}, False)
    assert from_json(Whole, json.loads(json.dumps(to_json(record)))) == record


@given(st.dictionaries(st.sampled_from([*GOOD, "parts", "loose", "rates", "flag"]), ANYTHING))
def test_whatever_a_field_holds_is_read_or_refused(change: dict[str, Any]) -> None:
    try:
        from_json(Whole, GOOD | change)
    except Mistake as mistake:
        assert str(mistake).count("\n") == 0


@pytest.mark.parametrize("name", SAMPLES)
def test_a_wrong_value_at_any_place_of_a_result_is_one_sentence(name: str) -> None:
    sample = json.loads(json.dumps(SAMPLES[name]()))
    refused = 0
    for number, path in enumerate(places(sample)):
        for value in HOSTILE[number % 2 :: 2] if path and path[0] not in ("kind", "version") else ():
            try:
                parsed(changed(sample, path, value))
            except DataError as error:
                refused += 1
                assert str(error)[0].islower() and "\n" not in str(error), (path, value)
    assert refused > 150


def at(value: Any, path: tuple[Any, ...]) -> Any:
    return at(value[path[0]], path[1:]) if path else value


@pytest.mark.parametrize("leaves", [True, False])
@pytest.mark.parametrize("name", SAMPLES)
def test_whatever_can_be_read_can_be_drawn(name: str, leaves: bool) -> None:
    """Numbers beyond all sense, empty lists and texts, wherever they are read."""
    sample = json.loads(json.dumps(SAMPLES[name]()))
    every = [path for path in places(sample) if path and path[0] not in ("kind", "version")]
    result, changes = sample, 0
    for number, path in enumerate(every):
        for offset in range(0 if leaves and isinstance(at(sample, path), dict | list) else len(HOSTILE)):
            value = HOSTILE[(number + offset) % len(HOSTILE)]
            try:
                parsed(attempt := changed(result, path, value))
            except (DataError, KeyError, IndexError, TypeError):
                continue  # refused, or within what another change has replaced
            result, changes = attempt, changes + 1
            break
    assert changes > (15 if leaves else 7)
    try:
        assert "</html>" in build_page([parsed(result)])
    except DataError as error:
        assert "damaged" in str(error)


@pytest.mark.parametrize("content", ["", '{"kind": "conv', "\x00", "[" * 100_000, '{"a":' * 200 + "1" + "}" * 200])
@pytest.mark.parametrize("name", ["results.json", "run.json"])
def test_damaged_files_are_named(tmp_path: Path, name: str, content: str) -> None:
    folder = write_run(tmp_path / "run", make_training())
    (folder / name).write_text(content)
    with pytest.raises(DataError, match=rf"^{folder}/{name}: damaged: .* Run the experiment again\.$"):
        results.read(folder)


def test_a_number_of_many_digits_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", make_training())
    text = (folder / "results.json").read_text()
    (folder / "results.json").write_text(text.replace('"images": 360', f'"images": {"9" * 5000}'))
    with pytest.raises(DataError, match="damaged: a number of 5000 digits"):
        results.read(folder)


def test_a_folder_without_results_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"^{tmp_path}: no results\.json here\. Give the folder of a run"):
        results.read(tmp_path)
    (tmp_path / "results.json").write_text("[1]")
    with pytest.raises(DataError, match=r"results\.json: damaged: expected an object, found \[1\]\."):
        results.read(tmp_path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"kind": "horoscope"},
            "kind='horoscope': expected 'analysis', 'conversion', 'evaluation', 'study' or 'training'.",
        ),
        ({"kind": ["conversion"]}, r"kind=\['conversion'\]: expected"),
        ({"version": 3}, "written in a newer format, version 3, not 2. Update transpike."),
        ({"version": 1}, "written in an older format, version 1, not 2. Run the experiment again."),
        ({"version": None}, "written in an older format, version None, not 2."),
        ({"rows": []}, "rows: expected at least one row. The run was interrupted before its first result."),
        ({"mood": 3}, "mood is unknown."),
        ({"modle": "a"}, "modle is unknown."),
    ],
)
def test_foreign_results_are_refused(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    folder = write_run(tmp_path / "run", make_conversion({}) | change)
    with pytest.raises(DataError, match=f"^{folder}/results.json: {told}"):
        results.read_result(folder)


@pytest.mark.parametrize(
    ("name", "path", "value", "told"),
    [
        ("conversion", ("rows", 0, "layers", 3, "error"), "x", "rows[0].layers[3].error='x': expected a number."),
        ("conversion", ("rows", 1, "scheme"), {}, "rows[1].scheme.name=None: expected text."),
        ("conversion", ("rows", 1, "words", "beta"), 2, "rows[1].words.beta=2: expected text."),
        ("spiking", ("by_steps",), [], "by_steps: expected figures of a spiking network, found none."),
        ("analysis", ("networks",), [], "networks: expected at least one network, found none."),
        (
            *("analysis", ("filters", 0, "network"), 9),
            "filters[0].network=9: expected the place of one of 3 networks, from 0.",
        ),
        (
            *("analysis", ("neurons", 0, "networks", 1), 3),
            "neurons[0].networks[1]=3: expected the place of one of 3 networks, from 0.",
        ),
        (
            *("analysis", ("features", 1, "curves", 0, "power"), [1.0]),
            "features[1].curves[0].power: expected 2 entries as in frequency, found 1.",
        ),
        (
            *("analysis", ("stages", 0, "curves", 1, "energy"), [1.0]),
            "stages[0].curves[1].energy: expected 4 entries as in bands, found 1.",
        ),
        (
            *("analysis", ("stages", 0, "pictures", 0, "bands", 1), [[1.0]]),
            "stages[0].pictures[0].bands[1]: expected 2 x 2, found 1 x 1.",
        ),
        ("analysis", ("similarity", 0, "cka"), [[0.5]], "similarity[0].cka: expected 2 entries as in taps, found 1."),
        (
            *("analysis", ("saliency", "panels"), []),
            "saliency.panels: expected a map of image 0 for network 0, found none.",
        ),
        (
            *("analysis", ("filters", 1, "weights"), [[0.5], []]),
            "filters[1].weights: expected rows of one length, none of them empty.",
        ),
        ("encoded", ("spiking",), None, "spiking is missing, where encoding stands."),
        (
            *("encoded", ("accuracy_after",), []),
            "accuracy_after: expected an accuracy for each step of the encoder, found none.",
        ),
        ("encoded", ("encoding", "error"), [0.5], "encoding.error: expected 3 entries as in steps, found 1."),
        (
            *("encoded", ("encoding", "images", 1, "rebuilt"), []),
            "encoding.images[1].rebuilt: expected 3 entries as in steps, found 0.",
        ),
        (
            *("encoded", ("operations", "rows"), []),
            "operations.rows: expected the artificial network, and all parts of the spiking one or none.",
        ),
        ("encoded", ("operations", "poolings"), 99, "operations.poolings=99: expected a number from 0 to 32."),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused(name: str, path: tuple[Any, ...], value: Any, told: str) -> None:
    with pytest.raises(DataError) as caught:
        parsed(changed(SAMPLES[name](), path, value))
    assert str(caught.value) == told


def test_each_finer_level_of_sub_bands_is_twice_as_large() -> None:
    def picture(*sides: int) -> results.Picture:
        bands = tuple(((0.5,) * side,) * side for side in sides)
        return results.Picture(network=0, adapted=False, image=0, label="seven", channel=1, bands=bands)

    def stage(shown: results.Picture) -> results.Bands:
        names = ("A2", "H2", "V2", "D2", "H1", "V1", "D1")
        return results.Bands(
            student=0, tap="a", teacher_tap="b", size=(8, 8), wavelet="haar", bands=names, white=(0.1,) * 7, curves=(),
            pictures=(shown,),
        )  # fmt: skip

    assert stage(picture(2, 2, 2, 2, 4, 4, 4)).pictures[0].bands[6][0] == (0.5,) * 4
    for sides, told in (
        ((2, 2, 2, 2, 2, 2, 2), r"pictures\[0\].bands\[4\]: expected 4 x 4, found 2 x 2"),
        ((2, 4, 4, 4, 8, 8, 8), r"pictures\[0\].bands\[1\]: expected 2 x 2, found 4 x 4"),
        ((2, 2, 2, 2, 4, 4), r"pictures\[0\].bands: expected 7 entries as in names, found 6"),
    ):
        with pytest.raises(DataError, match=told):
            stage(picture(*sides))


def test_only_results_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    tested = results.Evaluation(model="mlp", dataset="digits", images=360, accuracy=0.75, loss=0.5)
    results.write(path, tested)
    results.write(path, replace(tested, accuracy=0.5))
    assert json.loads(path.read_text())["accuracy"] == 0.5
    path.write_text('{"mine": 1}')
    with pytest.raises(ConfigError, match="already exists and is not results of transpike"):
        results.write(path, tested)
    assert path.read_text() == '{"mine": 1}'
