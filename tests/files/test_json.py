"""JSON: what becomes of our values, and reading it from strangers."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transpike.errors import ConfigError, DataError, ModelError
from transpike.files import Record, dumps, plain, read_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)


def test_json_has_no_infinity_and_knows_arrays() -> None:
    @dataclass
    class Row:
        steps: int
        loss: float

    data = {
        "nan": math.nan,
        "rows": [Row(4, math.inf), Row(8, 0.5)],
        "tensor": torch.tensor([1.0, math.nan]),
        "numpy": np.float32(0.25),
        "path": Path("a/b"),
        8: ("θ", None, True),
    }
    assert json.loads(dumps(data)) == {
        "nan": None,
        "rows": [{"steps": 4, "loss": None}, {"steps": 8, "loss": 0.5}],
        "tensor": [1.0, None],
        "numpy": 0.25,
        "path": "a/b",
        "8": ["θ", None, True],
    }


@given(VALUES)
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "value.json"
    path.write_text(dumps(value), encoding="utf-8")
    assert read_json(path) == plain(value) == value


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "damaged: Expecting value: line 1 column 1 (char 0)"),
        (b'{"a": 1', "damaged: Expecting ',' delimiter: line 1 column 8 (char 7)"),
        (b'{"a": "\xe9"}', "damaged: not UTF-8 at byte 7"),
        (b"\xff\xfe{\x00}\x00", "damaged: not UTF-8 at byte 0"),
        (b"[" * 101 + b"]" * 101, "damaged: nested deeper than 100"),
        (b"[" * 200_000, "damaged: nested deeper than 100"),
        (b'{"a":' * 150_000, "damaged: nested deeper than 100"),
        (b"[1" + b"0" * 5000 + b"]", "damaged: a number of 5001 digits"),
        (b"[1e999]", "damaged: a number that is too large, 1e999"),
        (b"[NaN]", "damaged: NaN is not a number in JSON"),
        (b"[-Infinity]", "damaged: -Infinity is not a number in JSON"),
        (b" " * 2001, "larger than 0.00190735 MiB"),
    ],
    ids=range(12),
)
def test_what_is_no_json_or_beyond_the_limits_is_one_sentence(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ModelError) as error:
        read_json(path, remedy="Convert again.", error=ModelError, largest=2000 if b"  " in content else 2**25)
    assert str(error.value) == f"{path}: {said}. Convert again."


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"\xef\xbb\xbf[1]", [1]),
        (b"[" * 100 + b"]" * 100, None),
        (b'["' + b"[" * 500 + b'\\"["]', ["[" * 500 + '"[']),
        (b"[" + b"9" * 400 + b"]", [10**400 - 1]),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b" " * 2000 + b"0", 0),
    ],
)
def test_what_is_within_the_limits_is_read(content: bytes, value: object, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(content)
    found = read_json(tmp_path / "x.json")
    assert value is None or found == value


def test_nan_is_read_where_it_may_stand(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[NaN, Infinity, -Infinity]")
    found: Any = read_json(tmp_path / "x.json", nan=True)
    assert math.isnan(found[0]) and found[1:] == [math.inf, -math.inf]


def test_pipes_devices_folders_and_missing_files_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for path, said in [
        (tmp_path / "pipe", "a pipe, a device or a folder, not a file."),
        (Path("/dev/zero"), "a pipe, a device or a folder, not a file."),
        (tmp_path, "a pipe, a device or a folder, not a file."),
        (tmp_path / "none", "no such file or folder. Check the path."),
        (tmp_path / "circle", "its links lead in a circle. Name the file itself."),
    ]:
        with pytest.raises(DataError) as error:
            read_json(path)
        assert str(error.value) == f"{path}: {said}"


CONTENT: Any = {
    "text": "a", "whole": 8, "number": 0.5, "flag": True, "null": None, "list": [1, "a"], "texts": ["a", "b"],
    "wholes": [1, 2], "numbers": [1, 2.5], "record": {"steps": 4}, "records": [{"steps": 4}, {"steps": 8}],
}  # fmt: skip


def test_a_record_gives_fields_in_the_type_asked_for() -> None:
    record = Record(CONTENT, "x.json")
    assert (record.text("text"), record.whole("whole"), record.number("number"), record.flag("flag")) == (
        "a",
        8,
        0.5,
        True,
    )
    assert type(record.number("whole")) is float and record.text("text", choices=("a", "b")) == "a"
    assert (record.values("list"), record.texts("texts"), record.wholes("wholes")) == ([1, "a"], ["a", "b"], [1, 2])
    assert record.numbers("numbers") == [1.0, 2.5] and record.record("record").whole("steps") == 4
    assert [each.whole("steps") for each in record.records("records")] == [4, 8]
    assert [record.has(name) for name in ("text", "null", "none")] == [True, False, False]
    record.only(*CONTENT)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda r: r.text("whole"), "whole=8: expected text."),
        (lambda r: r.text("none"), "none is missing."),
        (lambda r: r.text("text", choices=("aa", "b")), "text='a': expected 'aa' or 'b'. Did you mean 'aa'?"),
        (lambda r: r.whole("number"), "number=0.5: expected a whole number."),
        (lambda r: r.whole("flag"), "flag=True: expected a whole number."),
        (lambda r: r.whole("whole", least=9), "whole=8: expected a whole number of at least 9."),
        (lambda r: r.whole("null"), "null=None: expected a whole number."),
        (lambda r: r.number("text"), "text='a': expected a finite number."),
        (lambda r: r.number("number", least=1), "number=0.5: expected a number of at least 1."),
        (lambda r: r.flag("whole"), "whole=8: expected true or false."),
        (lambda r: r.values("record"), "record={'steps': 4}: expected a list."),
        (lambda r: r.texts("list"), "list[0]=1: expected text."),
        (lambda r: r.wholes("numbers"), "numbers[1]=2.5: expected a whole number."),
        (lambda r: r.numbers("texts"), "texts[0]='a': expected a finite number."),
        (lambda r: r.record("list"), "list=[1, 'a']: expected an object."),
        (lambda r: r.records("list"), "list[0]=1: expected an object."),
        (lambda r: r.record("record").text("steps"), "record.steps=4: expected text."),
        (lambda r: r.records("records")[1].text("steps"), "records[1].steps=8: expected text."),
        (lambda r: r.record("record").only("step"), "record.steps is unknown. Did you mean step?"),
        (lambda r: r.only(), "text is unknown."),
    ],
    ids=range(20),
)
def test_a_record_names_file_and_field_of_what_is_wrong(ask: Any, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        ask(Record(CONTENT, "x.json", remedy="Do it again.", error=ConfigError))
    assert str(error.value) == f"x.json: {said} Do it again."


def test_a_file_that_holds_no_object(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(DataError) as error:
        Record.read(tmp_path / "x.json", remedy="Do it again.")
    assert str(error.value) == f"{tmp_path}/x.json: expected an object. Do it again."
    (tmp_path / "x.json").write_text('{"a": 1}')
    assert Record.read(tmp_path / "x.json").whole("a") == 1
