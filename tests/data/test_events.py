"""Event sets from small files in the published formats, against SpikingJelly's readers and its frames."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.data.recordings import (
    AEDAT3_HEADER,
    CIFAR10,
    aedat2_bytes,
    aedat3_bytes,
    drawn,
    nmnist_bytes,
    packet,
    write,
    write_cifar10_dvs,
    write_gestures,
    write_nmnist,
)

from transpike.data.event_files import EVENT_SOURCES, Events, Recording
from transpike.data.events import EventFrames, event_frames, load_events
from transpike.data.images import Loading
from transpike.errors import ConfigError, DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_nmnist(tmp_path / "NMNIST")
    write_cifar10_dvs(tmp_path / "CIFAR10DVS")
    write_gestures(tmp_path / "DVS128Gesture" / "DvsGesture")
    return tmp_path


@given(
    count=st.integers(1, 200),
    steps=st.integers(1, 9),
    size=st.integers(1, 12),
    split_by=st.sampled_from(["number", "time"]),
    seed=st.integers(0, 99),
)
def test_frames_are_spikingjellys(jelly: Any, count: int, steps: int, size: int, split_by: str, seed: int) -> None:
    events = drawn(count, size, seed=seed)
    assume(count >= steps and (split_by == "number" or np.ptp(events.t) >= steps))
    frames = event_frames(events, size=size, steps=steps, split_by=split_by)
    assert frames.dtype == torch.float32 and frames.sum() == count
    try:
        theirs = jelly.utils.integrate_events_by_fixed_frames_number(events._asdict(), split_by, steps, size, size)
    except IndexError:  # what it makes of a stretch of time without events
        assert split_by == "time"
        starts = events.t[0] + np.ptp(events.t) // steps * np.arange(steps)
        counts, _ = np.histogram(events.t, [*starts, np.inf])
        assert frames.sum((1, 2, 3)).tolist() == counts.tolist()
    else:
        np.testing.assert_array_equal(frames.numpy(), theirs)


@pytest.mark.parametrize("name", EVENT_SOURCES)
def test_readers_agree_with_what_was_written_and_with_spikingjelly(jelly: Any, tmp_path: Path, name: str) -> None:
    source = EVENT_SOURCES[name]
    events = drawn(1000, source.size, seed=7)
    path = tmp_path / "recording"
    recording = Recording(str(path), 0)
    if name == "nmnist":
        path.write_bytes(nmnist_bytes(events))
        theirs = jelly.utils.load_ATIS_bin(path)
    elif name == "cifar10_dvs":
        path.write_bytes(aedat2_bytes(events))
        theirs = jelly.cifar10_dvs._load_origin_data(path)
    else:
        events = events._replace(t=events.t + 2**31 - 10_000)  # past the 31 bits that an event has for its time
        path.write_bytes(aedat3_bytes(events))
        theirs = jelly.utils.load_aedat_v3(path)
        recording = Recording(str(path), 0, (len(AEDAT3_HEADER), len(path.read_bytes()), 0, 2**40))
    for field, ours in source.read(recording)._asdict().items():
        assert ours.dtype == np.int64
        np.testing.assert_array_equal(ours, getattr(events, field), err_msg=field)
        np.testing.assert_array_equal(ours, theirs[field], err_msg=field)


def test_nmnist_batches_are_time_first(root: Path) -> None:
    loading = Loading(batch_size=7, validation=0.2, augment="none")
    sets = load_events("nmnist", steps=6, root=root, loading=loading)
    assert (sets.classes, sets.channels, sets.size, sets.steps, sets.class_names[3]) == (10, 2, 34, 6, "3")
    seen = {}
    for part, loader in (("train", sets.train), ("validation", sets.validation), ("test", sets.test)):
        batches = list(loader)
        for frames, labels in batches:
            assert frames.shape == (6, len(labels), 2, 34, 34) and frames.dtype == torch.float32
            assert labels.dtype == torch.int64
            on = frames[:, torch.arange(len(labels)), 1, :, labels]  # [N, T, H]: the column that tells the label
            assert on.sum() == frames.sum() and (on.sum(-1)[:, :-1] == 4).all()
        seen[part] = sum(len(labels) for _, labels in batches)
    assert seen == {"train": 35, "validation": 10, "test": 20}
    train, held = (
        {recording.path for recording in loader.dataset.recordings} for loader in (sets.train, sets.validation)
    )
    assert len(train) == 40 and len(held) == 10 and not train & held


def test_the_validation_split_follows_the_seed_and_the_test_set_does_not(root: Path) -> None:
    one, again, other = (
        load_events("nmnist", root=root, loading=Loading(seed=seed, test_images=12)) for seed in (0, 0, 1)
    )
    assert one.validation.dataset.recordings == again.validation.dataset.recordings
    assert one.validation.dataset.recordings != other.validation.dataset.recordings
    assert one.test.dataset.recordings == other.test.dataset.recordings and len(one.test.dataset) == 12


def test_cifar10_dvs_tests_on_the_last_tenth_by_file_name(root: Path) -> None:
    sets = load_events("cifar10_dvs", root=root, loading=Loading(validation=0, batch_size=10))
    assert [Path(r.path).name for r in sets.test.dataset.recordings] == [f"cifar10_{name}_9.aedat" for name in CIFAR10]
    assert len(sets.train.dataset) == 100 and len(sets.validation) == 0
    frames, labels = next(iter(sets.test))
    assert labels.tolist() == list(range(10)) and frames.shape == (4, 10, 2, 128, 128)
    assert frames.sum((0, 2, 3)).argmax(-1).tolist() == list(range(10))


def test_gestures_are_windows_of_their_trials(root: Path) -> None:
    sets = load_events("dvs128_gesture", steps=5, root=root, loading=Loading(validation=0, batch_size=4))
    frames, labels = next(iter(sets.test))
    assert labels.tolist() == [0, 7, 7, 10] and sets.class_names[7] == "arm roll"
    assert frames.sum((0, 2, 3, 4)).tolist() == [50, 51, 10, 100]  # 10 us apart, ends excluded
    trial = drawn(400, 128, seed=3)
    second = Events(*(field[50:101] for field in trial))
    torch.testing.assert_close(frames[:, 1], event_frames(second, size=128, steps=5), rtol=0, atol=0)


@pytest.mark.parametrize("name", EVENT_SOURCES)
def test_spikingjellys_folders_and_the_published_archives_serve(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    source = EVENT_SOURCES[name]
    folder = root / source.folder
    expected = [frames for frames, _ in load_events(name, root=root).test]
    unpacked = root / "unpacked"
    folder.rename(unpacked)
    download = folder / "download"
    download.mkdir(parents=True)
    for archive in source.archives:
        stem = archive.split(".")[0]
        if archive.endswith(".zip"):
            shutil.make_archive(str(download / stem), "zip", unpacked, stem)
        else:
            with tarfile.open(download / archive, "w:gz") as tar:
                tar.add(unpacked / stem, stem)
    sums = {archive: hashlib.md5((download / archive).read_bytes()).hexdigest() for archive in source.archives}
    first = next(iter(sums))
    with pytest.raises(DataError, match=rf"{first} is damaged or incomplete: its MD5 is {sums[first]}"):
        load_events(name, root=root)
    monkeypatch.setitem(EVENT_SOURCES, name, replace(source, archives=sums))
    for _ in range(2):  # from the archives, then from what was unpacked
        found = [frames for frames, _ in load_events(name, root=root).test]
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        assert sorted(path.name for path in folder.iterdir()) == ["download", "extract"]
    shutil.rmtree(folder / "extract")
    (download / first).unlink()
    with pytest.raises(DataError, match=rf"{name}: {first} not found in"):
        load_events(name, root=root)


def test_augmentation_moves_all_frames_alike_and_comes_back(root: Path) -> None:
    write(root / "CIFAR10DVS" / "cat" / "cifar10_cat_0.aedat", aedat2_bytes(drawn(3000, 100, seed=1)))
    loading = Loading(seed=5, validation=0)
    train = load_events("cifar10_dvs", steps=3, root=root, loading=loading).train.dataset
    again = load_events("cifar10_dvs", steps=3, root=root, loading=loading).train.dataset
    plain = load_events("cifar10_dvs", steps=3, root=root, loading=replace(loading, augment="none")).train.dataset
    assert isinstance(train, EventFrames)
    cat = next(i for i, recording in enumerate(train.recordings) if recording.path.endswith("cat_0.aedat"))
    original = plain[cat][0]
    mirrored = set()
    for epoch in range(12):
        item = epoch * len(train) + cat
        frames, label = train[item]
        assert label == 3 and torch.equal(frames, again[item][0])
        fits = {
            (flip, down, right)
            for flip, image in ((False, frames), (True, frames.flip(-1)))
            for down in range(-5, 6)
            for right in range(-5, 6)
            # Away from the edges the whole recording, of all frames, is there at one place.
            if torch.equal(image[..., 10 + down : 80 + down, 10 + right : 80 + right], original[..., 10:80, 10:80])
        }
        assert len(fits) == 1
        mirrored |= {flip for flip, _, _ in fits}
    assert mirrored == {False, True}
    assert not EVENT_SOURCES["nmnist"].flip and not EVENT_SOURCES["dvs128_gesture"].flip


def test_worker_processes_give_the_same_batches(root: Path) -> None:
    alone, helped = (load_events("nmnist", root=root, loading=Loading(batch_size=8, workers=w)).train for w in (0, 2))
    for ours, theirs in zip([*alone, *alone], [*helped, *helped], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_missing_files_are_named(root: Path) -> None:
    with pytest.raises(DataError, match=r"nothing found in .*none.NMNIST.*Train.zip, Test.zip"):
        load_events("nmnist", root=root / "none")
    (damaged := next((root / "NMNIST" / "Train" / "5").iterdir())).write_bytes(b"")
    with pytest.raises(DataError, match=rf"{damaged.name} is damaged: it is empty \(1 such \.bin files in all\)"):
        load_events("nmnist", root=root)
    shutil.rmtree(root / "NMNIST" / "Train" / "4")
    (root / "NMNIST" / "Train" / "7").rename(root / "NMNIST" / "Train" / "moved")
    with pytest.raises(DataError, match=r"Train: no \.bin files in the class folders 4, 7: .*interrupted"):
        load_events("nmnist", root=root)
    shutil.rmtree(root / "NMNIST" / "Test")
    with pytest.raises(DataError, match=r"Test not found in .*NMNIST, only the rest"):
        load_events("nmnist", root=root)
    for file in (root / "CIFAR10DVS" / "dog").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"no \.aedat files in the class folders dog"):
        load_events("cifar10_dvs", root=root)
    (root / "DVS128Gesture" / "DvsGesture" / "user24_led_labels.csv").unlink()
    with pytest.raises(DataError, match=r"1 of 4 files are missing: user24_led_labels\.csv"):
        load_events("dvs128_gesture", root=root)


EVENT = drawn(5, 34)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("nmnist", nmnist_bytes(EVENT)[:-2], "damaged at byte 20: 3 bytes are left, but an event has 5"),
        ("nmnist", nmnist_bytes(EVENT) + bytes([40, 3, 0, 0, 9]), r"event 5 of 6 is at \(40, 3\), outside the 34x34"),
        ("nmnist", b"", "0 events are fewer than 4 frames"),
        ("nmnist", nmnist_bytes(drawn(3, 34)), "3 events are fewer than 4 frames"),
        ("cifar10_dvs", aedat2_bytes(EVENT)[:-3], "damaged at byte 90: 5 bytes are left, but an event has 8"),
        ("cifar10_dvs", b"<html>Not found!</html> ", r"event 0 of 3 is at .* outside the 128x128"),
        ("cifar10_dvs", b"#!AER-DAT2.0", "0 events are fewer"),
    ],
)
def test_a_damaged_recording_is_named_and_the_place(root: Path, name: str, content: bytes, said: str) -> None:
    sets = load_events(name, root=root)
    Path(sets.test.dataset.recordings[1].path).write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        list(sets.test)
    assert sets.test.dataset.recordings[1].path in str(caught.value)


POLARITY = packet(b"\x01\0\0\0\0\0\0\0" * 3)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read"),
        (AEDAT3_HEADER[:-4], "is no AEDAT 3.1 file"),
        (
            AEDAT3_HEADER + POLARITY + POLARITY[:20],
            "damaged at byte 113: a packet begins with 28 bytes, but 20 are left",
        ),
        (AEDAT3_HEADER + POLARITY[:-4], "damaged at byte 61: a packet of 24 bytes, but 20 are left"),
        (AEDAT3_HEADER + packet(b"\0" * 32, size=16), "damaged at byte 61: a polarity event has 8 bytes, not 16"),
        (AEDAT3_HEADER + POLARITY, r"labels\.csv, line 2: user01_led\.aedat has no events from 1000 to 1500 us"),
    ],
)
def test_a_damaged_trial_is_named_and_the_place(root: Path, content: bytes, said: str) -> None:
    path = root / "DVS128Gesture" / "DvsGesture" / "user01_led.aedat"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        load_events("dvs128_gesture", root=root)
    assert str(path.with_suffix("")) in str(caught.value)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("12,1000,1500", "class 12 is not one of 1 to 11"),
        ("1,1000", "expected class,start,end; found '1,1000'"),
        ("1;2;3", "expected class,start,end"),
        ("9" * 5000, r"expected class,start,end; found '9{1,40}\.\.\.9{1,40}'"),
        ("\xff\xfe", "expected class,start,end"),
    ],
)
def test_a_damaged_label_is_named_and_the_line(root: Path, row: str, said: str) -> None:
    labels = root / "DVS128Gesture" / "DvsGesture" / "user01_led_labels.csv"
    labels.write_text(f"class,startTime_usec,endTime_usec\n1,1000,1500\n\n{row}\n", encoding="latin-1")
    with pytest.raises(DataError, match=f"user01_led_labels.csv, line 4: {said}"):
        load_events("dvs128_gesture", root=root)


def test_a_gesture_off_the_sensor_is_found_when_it_is_read(root: Path) -> None:
    path = root / "DVS128Gesture" / "DvsGesture" / "user01_led.aedat"
    events = drawn(400, 128, seed=3)._replace(t=1000 + 10 * np.arange(400))
    events.y[60] = 200
    path.write_bytes(aedat3_bytes(events))
    train = load_events("dvs128_gesture", root=root, loading=Loading(validation=0)).train.dataset
    assert train[0][0].sum() > 0
    with pytest.raises(DataError, match=r"user01_led\.aedat is damaged: event 10 of 51 is at \(\d+, 200\)"):
        train[1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 0}, "steps=0: expected a whole number of at least 1"),
        ({"split_by": "count"}, "split_by='count': expected 'number' or 'time'"),
        ({"loading": Loading(size=48)}, "loading.size is for images"),
        ({"loading": Loading(mean=(0.5, 0.5))}, "loading.mean is for images"),
    ],
)
def test_options_that_cannot_be_are_refused(root: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_events("nmnist", root=root, **options)


def test_an_unknown_name_gets_its_neighbours() -> None:
    with pytest.raises(DataError, match="Did you mean nmnist"):
        load_events("n-mnist")
    with pytest.raises(DataError, match="Known: nmnist, cifar10_dvs, dvs128_gesture"):
        load_events("shd")


def test_a_recording_shorter_than_its_frames_is_refused() -> None:
    events = drawn(30, 8)._replace(t=np.arange(30) // 10)
    with pytest.raises(DataError, match="span 2 us, fewer than 3 frames"):
        event_frames(events, size=8, steps=3, split_by="time")
