"""Events of anyone's: what is taken as it is, what is converted, what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.data.recordings import AEDAT3_HEADER, drawn, packet, write_cifar10_dvs, write_gestures, write_nmnist

from transpike.data import Loading, event_frames, event_sets, load_events
from transpike.data.event_checks import Events, checked_events
from transpike.data.event_files import EVENT_SOURCES, Recording
from transpike.errors import ConfigError, DataError


@pytest.mark.parametrize("split_by", ["number", "time"])
@given(seed=st.integers(0, 99), dtype=st.sampled_from(["int8", "int16", "float32", "float64"]))
def test_polarity_of_either_sign_and_any_type_give_the_same_frames(split_by: str, seed: int, dtype: str) -> None:
    events = drawn(60, 9, seed=seed)
    expected = event_frames(events, size=9, steps=3, split_by=split_by)
    assert expected.sum((0, 2, 3)).tolist() == [60 - events.p.sum(), events.p.sum()]
    signed = events._replace(
        p=(2 * events.p - 1).astype(dtype), x=events.x.astype(dtype), t=events.t.astype(np.float64)
    )
    assert torch.equal(event_frames(signed, size=9, steps=3, split_by=split_by), expected)
    plain = Events(*(torch.from_numpy(field) for field in events))
    assert torch.equal(event_frames(plain, size=9, steps=3, split_by=split_by), expected)


def test_off_events_stay_in_their_frame() -> None:
    x, y, t = np.arange(4), np.zeros(4, int), np.arange(4) * 10
    frames = event_frames(Events(x, y, np.array([1, 1, -1, -1]), t), size=4, steps=2)
    assert frames.sum((2, 3)).tolist() == [[0, 2], [2, 0]]


FOUR = {"x": np.arange(4), "y": np.zeros(4, int), "p": np.array([0, 1, 0, 1]), "t": np.arange(4) * 10}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            {"p": np.array([-1, 0, 1, 1])},
            "the polarity of events must be 0 and 1, or -1 and 1, but here it is -1, 0, 1.",
        ),
        ({"p": np.array([-1, 0, -1, 0])}, "the polarity of events must be 0 and 1, or -1 and 1, but here it is -1, 0."),
        ({"p": np.array([0, 1, 1, 3])}, "the polarity of events must be 0 and 1, or -1 and 1, but here it is 0, 1, 3."),
        ({"p": np.array([0, 128, 255, 1], np.uint8)}, "and 1, but here it is 0, 1, 128, 255."),
        ({"p": np.array([0, 0.5, 1, 1])}, "event 1 of 4 has p=0.5, not a whole number of 64 bits."),
        (
            {"t": np.array([0.0, 0.1, 0.2, 0.3])},
            "event 1 of 4 has t=0.1, not a whole number of 64 bits: times are in mic",
        ),
        ({"t": np.array([0, 1, np.nan, 3])}, "event 2 of 4 has t=nan, not a whole number"),
        ({"t": np.array([0, 1, 2, 2**63], np.uint64)}, "event 3 of 4 has t=9223372036854775808, not a whole"),
        ({"t": np.array([-(2**63), 0, 1, 2**63 - 1])}, "cannot be microseconds"),
        ({"x": np.array([0, 1, 2, 4])}, r"event 3 of 4 is at \(4, 0\), outside the 4x4 pixels"),
        ({"y": np.array([0, -1, 0, 0])}, r"event 1 of 4 is at \(1, -1\), outside the 4x4 pixels"),
        ({"y": np.zeros(3, int)}, "x, y, p and t of one length, not 4, 3, 4, 4"),
        ({"x": np.zeros((4, 1), int)}, r"events' x: expected whole numbers \[n\], got int64 \[4, 1\]"),
        ({"p": np.array(["on"] * 4)}, r"events' p: expected whole numbers \[n\], got <U2 \[4\]"),
        ({"t": np.arange(4) * 1j}, r"events' t: expected whole numbers \[n\], got complex128 \[4\]"),
    ],
)
@pytest.mark.parametrize("split_by", ["number", "time"])
def test_what_are_no_events_is_named(wrong: dict[str, Any], said: str, split_by: str) -> None:
    with pytest.raises(DataError, match=said):
        event_frames(Events(**FOUR | wrong), size=4, steps=2, split_by=split_by)


@pytest.mark.parametrize("options", [{"size": 0}, {"size": 2.5}, {"steps": 1.5}, {"steps": True}])
def test_frames_need_a_size_and_steps(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))}=.*: expected a whole number of at least 1"):
        event_frames(Events(**FOUR), **{"size": 4, "steps": 2} | options)


def test_no_events_are_none() -> None:
    assert [len(field) for field in checked_events(Events([], [], [], []), 4)] == [0, 0, 0, 0]


@pytest.mark.parametrize("name", EVENT_SOURCES)
def test_a_pipe_or_a_file_that_promises_too_much_is_not_read(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**40)
    window = (0, 100, 0, 100) if name == "dvs128_gesture" else None
    for file_name, said in (("pipe", "is not a regular file"), ("huge", "has 1099511627776 bytes, more than any")):
        with pytest.raises(DataError, match=f"{file_name} {said}"):
            EVENT_SOURCES[name].read(Recording(str(tmp_path / file_name), 0, window))


def test_packets_without_bytes_are_damage(tmp_path: Path) -> None:
    folder = tmp_path / "DVS128Gesture" / "DvsGesture"
    write_gestures(folder)
    (folder / "user01_led.aedat").write_bytes(AEDAT3_HEADER + bytes(28 * 1000))
    with pytest.raises(DataError, match="is damaged at byte 61: a packet's events have no bytes"):
        load_events("dvs128_gesture", root=tmp_path)
    (folder / "user01_led.aedat").write_bytes(AEDAT3_HEADER + packet(b"")[:4] + b"\xff" * 24)
    with pytest.raises(DataError, match=r"is damaged at byte 61: a packet of .* bytes, but 0 are left"):
        load_events("dvs128_gesture", root=tmp_path)


def test_an_empty_part_is_found_before_training(tmp_path: Path) -> None:
    write_cifar10_dvs(tmp_path / "CIFAR10DVS", count=1)
    with pytest.raises(DataError, match="the test part of the data set is empty"):
        load_events("cifar10_dvs", root=tmp_path)
    folder = tmp_path / "DVS128Gesture" / "DvsGesture"
    write_gestures(folder)
    (folder / "trials_to_train.txt").write_text("")
    with pytest.raises(DataError, match="the training part of the data set is empty"):
        load_events("dvs128_gesture", root=tmp_path)
    (folder / "trials_to_train.txt").unlink()
    os.mkfifo(folder / "trials_to_train.txt")
    with pytest.raises(DataError, match=r"trials_to_train\.txt is not a regular file"):
        load_events("dvs128_gesture", root=tmp_path)


def test_names_that_no_disk_takes_are_one_error(tmp_path: Path) -> None:
    write_nmnist(tmp_path / "NMNIST")
    for root in (tmp_path / ("x" * 300), tmp_path / "NMNIST" / "Train" / "0" / "00000.bin"):
        with pytest.raises(DataError, match="nmnist: "):
            load_events("nmnist", root=root)


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        (np.full((4, 2, 6, 8), np.nan), "frames must hold finite numbers"),
        (np.full((4, 2, 6, 8), np.inf), "frames must hold finite numbers"),
        (np.full((4, 2, 6, 8), 1j), "an array or a tensor"),
        (np.full((4, 2, 6, 8), None), "an array or a tensor"),
    ],
)
def test_frames_that_are_no_numbers_are_named(frames: np.ndarray[Any, Any], said: str) -> None:
    with pytest.raises(DataError, match=f"own, train, item 0: .*{said}"):
        event_sets([(frames, 0)], [(frames, 0)], name="own", class_names="a", loading=Loading(validation=0))
