"""Small recordings in the published formats."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from transpike.data.event_files import EVENT_SOURCES, Events

CIFAR10 = EVENT_SOURCES["cifar10_dvs"].class_names


def drawn(count: int, size: int, *, seed: int = 0, step: int = 50) -> Events:
    draw = np.random.default_rng(seed)
    x, y = draw.integers(0, size, (2, count))
    return Events(x, y, draw.integers(0, 2, count), draw.integers(0, step, count).cumsum())


def nmnist_bytes(events: Events) -> bytes:
    words = (v.x.item() << 32 | v.y.item() << 24 | v.p.item() << 23 | v.t.item() for v in rows(events))
    return b"".join(word.to_bytes(5, "big") for word in words)


def aedat2_bytes(events: Events) -> bytes:
    """The camera counts columns and rows from the other end, and in CIFAR10-DVS it lay on its side."""
    address = (127 - events.x) << 8 | (127 - events.y) << 1 | (1 - events.p)
    header = b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n"
    return header + np.stack([address, events.t], 1).astype(">u4").tobytes()


AEDAT3_HEADER = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"


def packet(body: bytes, *, kind: int = 1, size: int = 8, overflow: int = 0) -> bytes:
    count = len(body) // size
    return struct.pack("<HHIIIIII", kind, 1, size, 4, overflow, count, count, count) + body


def aedat3_bytes(events: Events, *, per_packet: int = 7) -> bytes:
    """Packets of a few events, and between them packets of another kind, as a camera with a clock gives."""
    data = events.x << 17 | events.y << 2 | events.p << 1 | 1
    words = np.stack([data, events.t & 0x7FFFFFFF], 1).astype("<u4")
    content = AEDAT3_HEADER
    for overflow in np.unique(events.t >> 31):
        part = words[events.t >> 31 == overflow]
        for start in range(0, len(part), per_packet):
            content += packet(part[start : start + per_packet].tobytes(), overflow=int(overflow))
            content += packet(b"\xff" * 12, kind=0, size=12)
    return content


def rows(events: Events) -> Iterator[Events]:
    return (Events(*row) for row in zip(*events, strict=True))


def mark(label: int, size: int, count: int = 24) -> Events:
    """A recording that tells its label: the column of all its ON events."""
    return Events(np.full(count, label), np.arange(count) % size, np.ones(count, int), 10 * np.arange(count))


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_nmnist(folder: Path) -> None:
    for part, count in (("Train", 5), ("Test", 2)):
        for digit in range(10):
            for number in range(count):
                write(folder / part / str(digit) / f"{number:05}.bin", nmnist_bytes(mark(digit, 34, 24 + number)))


def write_cifar10_dvs(folder: Path, count: int = 11) -> None:
    for label, name in enumerate(CIFAR10):
        for number in range(count):
            write(folder / name / f"cifar10_{name}_{number}.aedat", aedat2_bytes(mark(label, 128, 24 + number)))


GESTURES = ("1,1000,1500", "8,1500,2005", "8,2500,2600", "11,4000,9000")


def write_gestures(folder: Path, rows: Sequence[str] = GESTURES) -> None:
    """A trial for each part: 400 events, 10 us apart, the first at 1000 us; class 8 comes twice."""
    for part, trial in (("train", "user01_led"), ("test", "user24_led")):
        events = drawn(400, 128, seed=3)._replace(t=1000 + 10 * np.arange(400))
        write(folder / f"{trial}.aedat", aedat3_bytes(events))
        labels = "\n".join(["class,startTime_usec,endTime_usec", *rows, ""])
        write(folder / f"{trial}_labels.csv", labels.encode())
        write(folder / f"trials_to_{part}.txt", f"{trial}.aedat\n".encode())
