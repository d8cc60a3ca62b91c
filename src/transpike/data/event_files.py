"""The named event sets: where their recordings lie, how to read each format, and errors for wrong files."""

from __future__ import annotations

import math
import os
import stat
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from transpike.checks import shown
from transpike.data.event_checks import Events, Integers, checked_events
from transpike.errors import DataError

__all__ = ["EVENT_SOURCES", "EventSource", "Events", "Recording"]


class Window(NamedTuple):
    """A part of a file: bytes [start, stop), and the events in it from the microseconds [begin, end)."""

    start: int
    stop: int
    begin: int
    end: int


class Recording(NamedTuple):
    """One sample: a file, or a window of one, and its label."""

    path: str
    label: int
    window: Window | None = None


Recordings = list[Recording]

_AGAIN = "Unpack the published archive again."
_LARGEST = 2**29  # bytes of a file; no published file has a quarter of it


@dataclass(frozen=True)
class EventSource:
    """How to find, read and augment a named event set.

    Attributes:
        folder: The set's folder under the root.
        inside: The folder into which the archives unpack, if they create one.
        archives: The published archives and their MD5 sums.
        landmarks: Files that must exist after unpacking.
        recordings: Returns the training and the test recordings in a folder.
        read: Reads a recording.
        size: Side of the sensor in pixels.
        class_names: The classes' names, in the order of the labels.
        shift: The random shift of the standard augmentation, in pixels.
        flip: Whether the standard augmentation mirrors recordings (a mirrored left hand is a right hand).
    """

    folder: str
    inside: str
    archives: Mapping[str, str]
    landmarks: tuple[str, ...]
    recordings: Callable[[Path], tuple[Recordings, Recordings]]
    read: Callable[[Recording], Events]
    size: int
    class_names: tuple[str, ...]
    shift: int
    flip: bool


def _class_files(place: Path, names: Sequence[str], suffix: str) -> list[Recordings]:
    """Return each class folder's recordings, sorted by name."""
    absent = [name for name in names if not (place / name).is_dir()]
    files = {name: sorted(map(str, (place / name).glob(f"*{suffix}"))) for name in names if name not in absent}
    empty = [name for name in files if not files[name]]
    if absent or empty:
        raise DataError(
            f"{place}: no {suffix} files in the class folders {', '.join(absent + empty)}: the download or its "
            f"unpacking was interrupted. {_AGAIN}"
        )
    if damaged := [path for name in names for path in files[name] if Path(path).stat().st_size == 0]:
        raise DataError(f"{damaged[0]} is damaged: it is empty ({len(damaged)} such {suffix} files in all). {_AGAIN}")
    return [[Recording(path, label) for path in files[name]] for label, name in enumerate(names)]


def _list_nmnist(place: Path) -> tuple[Recordings, Recordings]:
    train, test = (list(chain(*_class_files(place / part, _DIGITS, ".bin"))) for part in ("Train", "Test"))
    return train, test


def _list_cifar10_dvs(place: Path) -> tuple[Recordings, Recordings]:
    """List the recordings. The set has no split. As in SpikingJelly, the first nine tenths of a class by name train."""
    train, test = [], []
    for files in _class_files(place, _CIFAR10, ".aedat"):
        cut = math.ceil(0.9 * len(files))
        train += files[:cut]
        test += files[cut:]
    return train, test


def _list_gestures(place: Path) -> tuple[Recordings, Recordings]:
    lists = [_text(place / f"trials_to_{part}.txt").split() for part in ("train", "test")]
    needed = [name for trials in lists for trial in trials for name in (trial, _labels_of(trial))]
    if missing := [f"{name:.80}" for name in needed if not os.path.isfile(place / name)]:
        raise DataError(
            f"{place}: {len(missing)} of {len(needed)} files are missing: {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}. {_AGAIN}"
        )
    train, test = (list(chain(*(_gestures(place / trial) for trial in trials))) for trials in lists)
    return train, test


def _labels_of(trial: str) -> str:
    return f"{trial.removesuffix('.aedat')}_labels.csv"


def _gestures(trial: Path) -> Recordings:
    """Return the recordings of a trial. Each row of its labels is a class from 1 to 11 and a window of microseconds."""
    # Only the ends of each packet are read, because all trials together have three gigabytes.
    packets = [(packet.start, packet.stop, *_times(packet, [0, -1])) for packet in _packets(trial)]
    starts, stops, firsts, lasts = np.array(packets, np.int64).reshape(-1, 4).T
    labels = trial.with_name(_labels_of(trial.name))
    recordings = []
    for number, line in enumerate(_text(labels).splitlines(), start=1):
        if number == 1 or not line.strip():
            continue
        try:
            label, begin, end = map(int, line.split(","))
        except ValueError:
            raise DataError(f"{labels}, line {number}: expected class,start,end; found {shown(line)}.") from None
        if not 1 <= label <= len(_GESTURES):
            raise DataError(f"{labels}, line {number}: class {shown(label)} is not one of 1 to {len(_GESTURES)}.")
        within = (lasts >= begin) & (firsts < end)
        if not within.any():
            raise DataError(
                f"{labels}, line {number}: {trial.name} has no events from {shown(begin)} to {shown(end)} us."
            )
        window = Window(int(starts[within][0]), int(stops[within][-1]), begin, end)
        recordings.append(Recording(str(trial), label - 1, window))
    return recordings


def _read_nmnist(recording: Recording) -> Events:
    """Read five bytes for each event: x, y, then one bit of polarity and 23 of microseconds."""
    data = _file(recording.path)
    if len(data) % 5:
        raise _damaged(recording.path, len(data) // 5 * 5, f"{len(data) % 5} bytes are left, but an event has 5")
    x, y, high, middle, low = data.reshape(-1, 5).T.astype(np.int64)
    return _on_sensor(recording.path, Events(x, y, high >> 7, (high & 0x7F) << 16 | middle << 8 | low), 34)


def _read_cifar10_dvs(recording: Recording) -> Events:
    """Read AEDAT 2.0: lines that begin with '#', then a big-endian address and a time in microseconds, 4 bytes each."""
    data = _file(recording.path)
    content = data.tobytes()
    start = 0
    while content.startswith(b"#", start):
        start = content.find(b"\n", start) + 1 or len(content)
    if rest := (len(content) - start) % 8:
        raise _damaged(recording.path, len(content) - rest, f"{rest} bytes are left, but an event has 8")
    address, t = np.frombuffer(content, ">u4", offset=start).reshape(-1, 2).T.astype(np.int64)
    # The camera has 15 address bits and a 16th for synchronisation. Higher bits stay in the coordinates. If one is set,
    # the file is damaged, and the event lies off the sensor. The axes are turned as in SpikingJelly.
    x, y = 127 - (address >> 8 & ~0x80), 127 - (address >> 1 & 0x7F)
    return _on_sensor(recording.path, Events(x, y, 1 - (address & 1), t), 128)


def _read_gesture(recording: Recording) -> Events:
    assert recording.window is not None
    start, stop, begin, end = recording.window
    packets = list(_packets(recording.path, start, stop))
    data = np.concatenate([packet.events[:, 0] for packet in packets]).astype(np.int64)
    t = np.concatenate([_times(packet) for packet in packets])
    chosen = (t >= begin) & (t < end)
    data, t = data[chosen], t[chosen]
    return _on_sensor(recording.path, Events(data >> 17 & 0x7FFF, data >> 2 & 0x7FFF, data >> 1 & 1, t), 128)


_HEADER = struct.Struct("<HHIIIIII")
_HEADER_END = b"#!END-HEADER\r\n"
_POLARITY = 1


class _Packet(NamedTuple):
    """The position of a packet of polarity events in its file, with each event's data word and low 31 bits of time."""

    start: int
    stop: int
    events: NDArray[np.uint32]
    overflow: int


def _times(packet: _Packet, events: slice | list[int] = slice(None)) -> Integers:
    return packet.events[events, 1].astype(np.int64) | packet.overflow << 31


def _packets(path: str | Path, start: int = 0, stop: int | None = None) -> Iterator[_Packet]:
    """Yield the polarity packets with events of an AEDAT 3.1 file, or of its bytes [start, stop)."""
    content = _file(path, mapped=True)
    if not start:
        start = content[:65536].tobytes().find(_HEADER_END) + len(_HEADER_END)
        if start < len(_HEADER_END):
            raise DataError(f"{path} is no AEDAT 3.1 file: its header has no end. {_AGAIN}")
    stop = len(content) if stop is None else stop
    while start < stop:
        body = start + _HEADER.size
        if body > stop:
            raise _damaged(path, start, f"a packet begins with {_HEADER.size} bytes, but {stop - start} are left")
        kind, _, size, _, overflow, capacity, _, _ = _HEADER.unpack(content[start:body].tobytes())
        if size == 0:
            raise _damaged(path, start, "a packet's events have no bytes")
        after = body + size * capacity
        if after > stop:
            raise _damaged(path, start, f"a packet of {size * capacity} bytes, but {stop - body} are left")
        if kind == _POLARITY and capacity:
            if size != 8:
                raise _damaged(path, start, f"a polarity event has 8 bytes, not {size}")
            yield _Packet(start, after, content[body:after].view("<u4").reshape(-1, 2), overflow)
        start = after


def _file(path: str | Path, *, mapped: bool = False) -> NDArray[np.uint8]:
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode):
            raise DataError(f"{path} is not a regular file. {_AGAIN}")
        if about.st_size > _LARGEST:
            raise DataError(f"{path} has {about.st_size} bytes, more than any published recording. {_AGAIN}")
        return np.asarray(np.memmap(path, np.uint8, mode="r")) if mapped else np.fromfile(path, np.uint8)
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}. {_AGAIN}") from error


def _text(path: Path) -> str:
    return _file(path).tobytes().decode(errors="replace")


def _on_sensor(path: str, events: Events, size: int) -> Events:
    try:
        return checked_events(events, size)
    except DataError as error:
        raise DataError(f"{path} is damaged: {error} {_AGAIN}") from None


def _damaged(path: str | Path, byte: int, what: str) -> DataError:
    return DataError(f"{path} is damaged at byte {byte}: {what}. {_AGAIN}")


_DIGITS = tuple("0123456789")
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_GESTURES = (
    "hand clapping",
    "right hand wave",
    "left hand wave",
    "right arm clockwise",
    "right arm counter clockwise",
    "left arm clockwise",
    "left arm counter clockwise",
    "arm roll",
    "air drums",
    "air guitar",
    "other gestures",
)

EVENT_SOURCES: dict[str, EventSource] = {
    "nmnist": EventSource(
        folder="NMNIST",
        inside="",
        archives={"Train.zip": "20959b8e626244a1b502305a9e6e2031", "Test.zip": "69ca8762b2fe404d9b9bad1103e97832"},
        landmarks=("Train", "Test"),
        recordings=_list_nmnist,
        read=_read_nmnist,
        size=34,
        class_names=_DIGITS,
        shift=2,
        flip=False,
    ),
    "cifar10_dvs": EventSource(
        folder="CIFAR10DVS",
        inside="",
        archives={
            "airplane.zip": "0afd5c4bf9ae06af762a77b180354fdd",
            "automobile.zip": "8438dfeba3bc970c94962d995b1b9bdd",
            "bird.zip": "a9c207c91c55b9dc2002dc21c684d785",
            "cat.zip": "52c63c677c2b15fa5146a8daf4d56687",
            "deer.zip": "b6bf21f6c04d21ba4e23fc3e36c8a4a3",
            "dog.zip": "f379ebdf6703d16e0a690782e62639c3",
            "frog.zip": "cad6ed91214b1c7388a5f6ee56d08803",
            "horse.zip": "e7cbbf77bec584ffbf913f00e682782a",
            "ship.zip": "41c7bd7d6b251be82557c6cce9a7d5c9",
            "truck.zip": "89f3922fd147d9aeff89e76a2b0b70a7",
        },
        landmarks=_CIFAR10,
        recordings=_list_cifar10_dvs,
        read=_read_cifar10_dvs,
        size=128,
        class_names=_CIFAR10,
        shift=5,
        flip=True,
    ),
    "dvs128_gesture": EventSource(
        folder="DVS128Gesture",
        inside="DvsGesture",
        archives={"DvsGesture.tar.gz": "8a5c71fb11e24e5ca5b11866ca6c00a1"},
        landmarks=("trials_to_train.txt", "trials_to_test.txt"),
        recordings=_list_gestures,
        read=_read_gesture,
        size=128,
        class_names=_GESTURES,
        shift=5,
        flip=False,
    ),
}
