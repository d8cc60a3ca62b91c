"""Event sets as loaders of frames, time first: N-MNIST, CIFAR10-DVS and DVS128 Gesture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from transpike.checks import choice, near, whole
from transpike.data.augment import Augment, augment_names, augmentation, shift_and_flip
from transpike.data.batches import EpochSampler, seed_of
from transpike.data.event_archives import place_of
from transpike.data.event_checks import Events, checked_events
from transpike.data.event_files import EVENT_SOURCES, EventSource, Recording
from transpike.data.images import Loading, choose_tested, choose_training
from transpike.errors import ConfigError, DataError, reason

__all__ = ["EventFrames", "EventSets", "augmented", "collected", "event_augmentation", "event_frames", "load_events"]

_SPLITS = ("number", "time")
FOR_FRAMES = ("standard", "shift", "flip", "wide", "cutout")
"""The augmentations that frames of events can take."""


@dataclass(frozen=True)
class EventSets:
    """An event set's loaders. Batches are float32 frames ``[T, N, 2, H, W]`` and int64 labels ``[N]``.

    A frame counts the events of each pixel, OFF in channel 0 and ON in channel 1. It is not normalised.

    Attributes:
        name: The set's name.
        train: Shuffled and augmented training recordings. Its ``sampler`` is an :class:`EpochSampler`.
        validation: Training recordings held back, without augmentation. Empty if ``Loading.validation`` is 0.
        test: The test recordings. Under ``torch.distributed`` each process has its share.
        classes: The number of labels.
        class_names: Their names.
        channels: 2.
        size: The longer side of a frame in pixels.
        steps: The frames of a recording, T.
        split_by: How recordings were split into frames. None if they came as frames.
        loading: The options of the loaders.
        root: The folder of the files. None for sets of `event_sets`.
    """

    name: str
    train: DataLoader[Any]
    validation: DataLoader[Any]
    test: DataLoader[Any]
    classes: int
    class_names: tuple[str, ...]
    channels: int
    size: int
    steps: int
    split_by: str | None
    loading: Loading
    root: Path | None = None


def load_events(
    name: str,
    *,
    steps: int = 4,
    split_by: str = "number",
    root: str | PathLike[str] = "data",
    loading: Loading = Loading(),
) -> EventSets:
    """Load an event set by name.

    ``nmnist`` is read from ``NMNIST/{Train,Test}/<digit>/*.bin`` under ``root``, ``cifar10_dvs`` from
    ``CIFAR10DVS/<class>/*.aedat``, ``dvs128_gesture`` from ``DVS128Gesture/DvsGesture/*.aedat``. Each may also be in
    SpikingJelly's folder ``extract`` (as in ``NMNIST/extract/Train``), or in the published archives in its folder
    ``download``. These are then checked and unpacked. CIFAR10-DVS has no split: in each class, sorted by
    file name, the first nine tenths are for training, the rest for testing.

    Recordings are read and turned into frames when a batch needs them. Nothing is written to the disk.

    Args:
        name: One of the names above.
        steps: Frames of a recording, T.
        split_by: How a recording is split, see :func:`event_frames`: ``number`` or ``time``.
        root: The folder of the files.
        loading: Splits, batches, workers and augmentation: ``standard``, a random shift (and mirroring for
            ``cifar10_dvs``), and ``cutout``. Frames have the sensor's size and are not normalised, so ``size``,
            ``mean`` and ``std`` must not be set.

    Raises:
        DataError: The name is unknown, files are missing or damaged, or a recording has fewer events than frames. A
            faulty recording is found when it is read.
        ConfigError: ``steps``, ``split_by`` or ``loading`` have impossible values.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for path in [Path(root, "NMNIST", part, digit) for part in ("Train", "Test") for digit in "0123456789"]:
        ...         path.mkdir(parents=True)
        ...         _ = (path / "00001.bin").write_bytes(bytes([3, 5, 0x80, 0, 1]) * 8)  # x, y, ON, microseconds
        ...     sets = load_events("nmnist", steps=4, root=root, loading=Loading(batch_size=2))
        ...     frames, labels = next(iter(sets.test))
        >>> frames.shape, frames[:, 0, 1, 5, 3], labels
        (torch.Size([4, 2, 2, 34, 34]), tensor([2., 2., 2., 2.]), tensor([0, 1]))
    """
    if name not in EVENT_SOURCES:
        guess = near(name, EVENT_SOURCES, most=3) or f" Known: {', '.join(EVENT_SOURCES)}."
        raise DataError(f"no event set is called {name!r}.{guess}")
    _check(steps, split_by)
    source = EVENT_SOURCES[name]
    augmenting = event_augmentation(loading, shift=source.shift, flip=source.flip)
    try:
        recordings, tests = source.recordings(place_of(name, source, Path(root)))
    except OSError as error:
        raise DataError(f"{name}: {error.filename or root} cannot be read: {reason(error)}") from error
    training, validation = choose_training(len(recordings), loading)

    def frames(part: Sequence[Recording], chosen: Sequence[int], augment: Augment | None = None) -> EventFrames:
        picked = [part[index] for index in chosen]
        return EventFrames(picked, source, steps=steps, split_by=split_by, augment=augment, seed=loading.seed)

    return collected(
        name,
        loading,
        train=frames(recordings, training, augmenting),
        validation=frames(recordings, validation),
        test=frames(tests, choose_tested(len(tests), loading)),
        class_names=source.class_names,
        size=source.size,
        steps=steps,
        split_by=split_by,
        root=Path(root),
    )


class EventFrames(Dataset[tuple[Tensor, int]]):
    """Recordings, read and turned into frames ``[T, 2, H, W]`` one at a time, in worker processes if there are any.

    Item ``epoch * len(self) + index`` is recording ``index`` with that epoch's augmentation. The augmentation depends
    only on ``seed`` and on the item, not on the process that reads it.

    Args:
        recordings: The place of each recording, and its label.
        source: How to read them.
        steps: Frames of a recording, T.
        split_by: ``number`` or ``time``.
        augment: Takes images ``[1, T * 2, H, W]``, so that all frames move alike, and a CPU generator.
        seed: Determines the augmentation.
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        source: EventSource,
        *,
        steps: int,
        split_by: str,
        augment: Augment | None = None,
        seed: int = 0,
    ) -> None:
        self.recordings = recordings
        # Not the source itself, because only these two are sent to worker processes.
        self.read, self.size = source.read, source.size
        self.steps = steps
        self.split_by = split_by
        self.augment = augment
        self.seed = seed

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        recording = self.recordings[item % len(self)]
        events = self.read(recording)
        try:
            frames = event_frames(events, size=self.size, steps=self.steps, split_by=self.split_by)
        except DataError as error:
            raise DataError(f"{recording.path}: {error}") from None
        return augmented(frames, self.augment, seed_of(self.seed, item)), recording.label


def event_frames(events: Events, *, size: int, steps: int, split_by: str = "number") -> Tensor:
    """Count the events of each pixel in T parts of a recording: float32 ``[T, 2, size, size]``.

    With ``number``, each frame has ``floor(n / T)`` of the ``n`` events, and the last one also the remainder. With
    ``time``, each frame has ``floor(d / T)`` of the ``d`` microseconds between the first and the last event, likewise.
    A frame without events is empty. The result equals SpikingJelly's ``integrate_events_by_fixed_frames_number``
    wherever that returns frames.

    Args:
        events: A recording: four arrays of whole numbers of any type. Times are in microseconds. Polarity is 0 and 1,
            or -1 and 1.
        size: Side of the sensor in pixels.
        steps: T.
        split_by: ``number`` or ``time``.

    Raises:
        DataError: There are fewer events, or microseconds, than frames; or the events are not valid, see
            :func:`checked_events`.
        ConfigError: T or ``size`` is not positive, or ``split_by`` is unknown.

    Example:
        >>> x, p, t = np.array([0, 1, 1, 0]), np.array([1, 0, 0, 1]), np.array([0, 1, 2, 100])
        >>> events = Events(x=x, y=np.zeros(4, int), p=p, t=t)
        >>> event_frames(events, size=2, steps=2)[:, :, 0].tolist()
        [[[0.0, 1.0], [1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]]
        >>> event_frames(events, size=2, steps=2, split_by="time").sum((1, 2, 3))
        tensor([3., 1.])
    """
    _check(steps, split_by)
    events = checked_events(events, whole("size", size))
    count = len(events.t)
    if count < steps:
        raise DataError(f"{count} events are fewer than {steps} frames. Take fewer steps.")
    place = np.arange(count) if split_by == "number" else events.t - events.t.min()
    stretch = (count if split_by == "number" else int(place.max())) // steps
    if stretch == 0:
        raise DataError(f"the events span {place.max()} us, fewer than {steps} frames. Take fewer steps.")
    frame = np.minimum(place // stretch, steps - 1)
    pixel = ((frame * 2 + events.p) * size + events.y) * size + events.x
    counts = np.bincount(pixel, minlength=steps * 2 * size * size)
    return torch.from_numpy(counts).view(steps, 2, size, size).float()


def _check(steps: int, split_by: str) -> None:
    whole("steps", steps)
    choice("split_by", split_by, _SPLITS)


def event_augmentation(loading: Loading, *, shift: int, flip: bool) -> Augment | None:
    """Return the augmentation that the options name, among those that frames can take."""
    if unfit := [field for field in ("size", "mean", "std") if getattr(loading, field) is not None]:
        raise ConfigError(f"loading.{unfit[0]} is for images: event frames keep the sensor's size and their counts.")
    if foreign := set(augment_names(loading.augment)) - {"none", *FOR_FRAMES}:
        raise ConfigError(
            f"loading.augment: {', '.join(sorted(foreign))} is for images; frames of events take "
            f"{', '.join(FOR_FRAMES)} or none."
        )
    return augmentation(loading.augment, standard=partial(shift_and_flip, shift=shift, flip=flip))


def augmented(frames: Tensor, augment: Augment | None, seed: int) -> Tensor:
    """Augment a recording's frames [T, 2, H, W], all in the same way."""
    if augment is None:
        return frames
    return augment(frames.flatten(0, 1)[None], Generator().manual_seed(seed)).view_as(frames)


def collected(
    name: str,
    loading: Loading,
    *,
    train: Dataset[Any],
    validation: Dataset[Any],
    test: Dataset[Any],
    class_names: tuple[str, ...],
    **facts: Any,
) -> EventSets:
    """Return three parts as the loaders of a set, with the facts about the set."""
    return EventSets(
        name=name,
        train=_loader(train, loading, shuffle=True),
        validation=_loader(validation, loading),
        test=_loader(test, loading),
        classes=len(class_names),
        class_names=class_names,
        channels=2,
        loading=loading,
        **facts,
    )


def _loader(frames: Any, loading: Loading, *, shuffle: bool = False) -> DataLoader[Any]:
    return DataLoader(
        frames,
        batch_size=loading.batch_size,
        sampler=EpochSampler(len(frames), seed=loading.seed, shuffle=shuffle),
        # A last batch of one or two recordings would disturb batch statistics.
        drop_last=shuffle and len(frames) >= loading.batch_size,
        num_workers=loading.workers,
        persistent_workers=loading.workers > 0,
        collate_fn=_time_first,
        pin_memory=torch.cuda.is_available(),
        # A separate generator: a loader draws a number from it in every pass, which must not affect others.
        generator=Generator(),
    )


def _time_first(samples: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    frames, labels = zip(*samples, strict=True)
    return torch.stack(frames, dim=1), torch.tensor(labels)
