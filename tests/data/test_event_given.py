"""Anyone's frames as event sets: SpikingJelly's own classes read small files in the published formats."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.data.recordings import write_cifar10_dvs, write_gestures, write_nmnist
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from transpike.data import Loading, event_sets, load_events
from transpike.data.event_files import EVENT_SOURCES
from transpike.errors import ConfigError, DataError
from transpike.neurons import LIFNode
from transpike.train import Loaders, Machine, Optim, TrainOptions, evaluate, fit

# SpikingJelly wants every gesture in each part.
GESTURES = [f"{label},{700 + 300 * label},{1000 + 300 * label}" for label in (8, *range(1, 12))]
WRITERS = {
    "nmnist": write_nmnist,
    "cifar10_dvs": write_cifar10_dvs,
    "dvs128_gesture": partial(write_gestures, rows=GESTURES),
}
FRAMES = {"data_type": "frame", "frames_number": 4, "split_by": "number"}


@pytest.fixture(scope="module")
def theirs(jelly: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A root with the three sets as published, in archives, and SpikingJelly's classes that expect just these."""
    root = tmp_path_factory.mktemp("root")
    classes = {
        "nmnist": jelly.n_mnist.NMNIST,
        "cifar10_dvs": jelly.cifar10_dvs.CIFAR10DVS,
        "dvs128_gesture": jelly.dvs128_gesture.DVS128Gesture,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, writer in WRITERS.items():
            source = EVENT_SOURCES[name]
            files, download = root / "files" / name, root / source.folder / "download"
            writer(files / source.inside)
            resources = []
            for archive in source.archives:
                stem, kind = archive.split(".", 1)
                made = shutil.make_archive(str(download / stem), {"zip": "zip", "tar.gz": "gztar"}[kind], files, stem)
                resources.append((archive, "", hashlib.md5(Path(made).read_bytes()).hexdigest()))
            patch.setattr(classes[name], "resource_url_md5", lambda resources=resources: resources)
        yield root, classes


@pytest.fixture(scope="module")
def pairs(jelly: Any, theirs: Any) -> dict[str, tuple[Any, Any]]:
    """Their training and test sets of frames."""
    root, classes = theirs
    whole = classes["cifar10_dvs"](root / "CIFAR10DVS", **FRAMES)
    made = {"cifar10_dvs": jelly.utils.split_to_train_test_set(0.9, whole, 10)}
    for name in ("nmnist", "dvs128_gesture"):
        folder = root / EVENT_SOURCES[name].folder
        made[name] = tuple(classes[name](folder, train=train, **FRAMES) for train in (True, False))
    return made


def ordered(loader: DataLoader[Any], labels: list[int]) -> tuple[Tensor, Tensor]:
    """All frames and labels, sorted by what each label means."""
    frames, found = (torch.cat(parts, dim) for parts, dim in zip(zip(*loader, strict=True), (1, 0), strict=True))
    meant = torch.tensor(labels)[found]
    order = meant.argsort(stable=True)
    return frames[:, order], meant[order]


@pytest.mark.parametrize("name", EVENT_SOURCES)
def test_their_sets_give_our_batches(theirs: Any, pairs: Any, name: str) -> None:
    source = EVENT_SOURCES[name]
    loading = Loading(batch_size=4, validation=0, seed=3)
    ours = load_events(name, steps=4, root=theirs[0], loading=loading)
    given = event_sets(*pairs[name], name=name, shift=source.shift, flip=source.flip, loading=loading)
    assert (given.classes, given.channels, given.size, given.steps) == (ours.classes, 2, ours.size, 4)
    if name == "dvs128_gesture":  # whose folders are numbers, sorted as words: 0, 1, 10, 2, ...
        assert given.class_names[2] == "10"
        meaning = [int(label) for label in given.class_names]
    else:
        assert given.class_names == ours.class_names
        meaning = list(range(10))
        # Sorted alike, so that the seed shuffles and augments them alike.
        torch.testing.assert_close(next(iter(given.train)), next(iter(ours.train)), rtol=0, atol=0)
    known = list(range(ours.classes))
    torch.testing.assert_close(ordered(given.test, meaning), ordered(ours.test, known), rtol=0, atol=0)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(2), nn.Linear(2 * 34 * 34, 16), LIFNode(step_mode="m"), nn.Linear(16, 10))


def test_training_on_their_frames_equals_training_on_ours(theirs: Any, pairs: Any, tmp_path: Path) -> None:
    loading = Loading(batch_size=20, validation=0.2)
    given = event_sets(*pairs["nmnist"], name="nmnist", shift=2, loading=loading)
    ours = load_events("nmnist", steps=4, root=theirs[0], loading=loading)
    assert len(given.train) == 2 and len(given.validation.dataset) == 10
    cpu = Machine(accelerator="cpu")
    options = TrainOptions(epochs=1, steps=4, machine=cpu, optim=Optim(lr=0.1))
    one, other = (
        fit(network(), Loaders(sets.train, sets.validation), options, folder=tmp_path / str(number)).model
        for number, sets in enumerate((given, ours))
    )
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)
    assert all(
        (parameter != start).any() for parameter, start in zip(one.parameters(), network().parameters(), strict=True)
    )
    assert evaluate(one, given.test, machine=cpu, steps=4) == evaluate(one, ours.test, machine=cpu, steps=4)
    assert evaluate(one, given.test, machine=cpu, steps=4).images == 20


def test_their_recordings_of_unequal_length_are_refused(theirs: Any) -> None:
    root, classes = theirs
    timed = classes["nmnist"](root / "NMNIST", train=True, data_type="frame", duration=50)
    sets = event_sets(timed, timed, name="own", loading=Loading(augment="none"))
    with pytest.raises(DataError, match=r"item 3: frames \[6, 2, 34, 34\], but item 0 .* has \[5, .*frames_number="):
        list(sets.test)


def test_their_events_without_frames_are_refused(theirs: Any) -> None:
    root, classes = theirs
    events = classes["nmnist"](root / "NMNIST", train=True)
    with pytest.raises(DataError, match=r"own, train, item 0: .* not \['dict', 'int'\].*data_type='frame'"):
        event_sets(events, events, name="own")


def given(*items: Any) -> Any:
    """A data set as small as can be: a list has a length and gives an item for an index."""
    return list(items)


GOOD = (np.ones((4, 2, 6, 8), np.uint8), 1)


def test_any_array_or_tensor_will_do() -> None:
    frames = np.arange(4 * 2 * 6 * 8, dtype=np.int16).reshape(4, 2, 6, 8)
    frozen = frames.astype(np.float32)
    frozen.flags.writeable = False
    items = given((frames[..., ::-1], 0), (frozen, np.int64(1)), (torch.from_numpy(frames).half(), torch.tensor(2)))
    sets = event_sets(items, items, name="own", class_names="abc", loading=Loading(validation=0))
    batch, labels = next(iter(sets.test))
    expected = torch.from_numpy(frames).float()
    torch.testing.assert_close(batch, torch.stack([expected.flip(-1), expected, expected], 1), rtol=0, atol=0)
    assert labels.tolist() == [0, 1, 2] and labels.dtype == torch.int64
    assert (sets.size, sets.steps, sets.split_by, sets.class_names) == (8, 4, None, ("a", "b", "c"))


def test_validation_is_held_back_and_not_augmented() -> None:
    items = given(*((np.full((1, 2, 5, 5), number + 1), 0) for number in range(10)))
    sets = event_sets(items, items, name="own", class_names="a", shift=2, loading=Loading(validation=0.3, batch_size=7))
    (held, _), (trained_on, _) = next(iter(sets.validation)), next(iter(sets.train))
    assert (held == held[..., :1, :1]).all()  # whole: a shift would show the padding
    assert (trained_on == 0).any()
    numbers = [int(frames.max()) for frames in (*held[0], *trained_on[0])]
    assert sorted(numbers) == list(range(1, 11)) and len(held[0]) == 3


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ((np.ones((2, 6, 8)), 0), r"frames must be \[T, 2, H, W\], not \[2, 6, 8\]"),
        ((np.ones((4, 3, 6, 8)), 0), r"frames must be \[T, 2, H, W\], not \[4, 3, 6, 8\]"),
        ((np.ones((5, 2, 6, 8)), 0), r"frames \[5, 2, 6, 8\], but item 0 of train has \[4, 2, 6, 8\]"),
        ((np.ones((4, 2, 6, 8)), 2), "label 2 is not one of 0 to 1: there are 2 class names"),
        ((np.ones((4, 2, 6, 8)), 0.5), r"and an integer, not \['ndarray', 'float'\]"),
        (np.ones((4, 2, 6, 8)), "and an integer, not ndarray"),
    ],
)
def test_a_wrong_item_is_named(item: Any, said: str) -> None:
    tests = Subset(given(GOOD, GOOD, item), [1, 2])
    sets = event_sets(given(GOOD, GOOD), tests, name="own", class_names="ab", loading=Loading(validation=0))
    with pytest.raises(DataError, match=f"own, test, item 1: .*{said}"):
        list(sets.test)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([GOOD])


@pytest.mark.parametrize(
    ("train", "options", "error", "said"),
    [
        (Stream(), {}, ConfigError, "own, train: Stream is not map-style"),
        (given(), {}, DataError, "own, train: the set is empty"),
        (given(GOOD), {"class_names": None}, ConfigError, "no attribute 'classes'"),
        (given(GOOD), {"class_names": "a"}, DataError, "own, train, item 0: label 1 is not one of 0 to 0"),
        (given(GOOD), {"shift": -1}, ConfigError, "shift=-1: expected a whole number of at least 0"),
        (given(GOOD), {"loading": Loading(size=32)}, ConfigError, "loading.size is for images"),
        (given(GOOD), {"loading": Loading(augment="erasing")}, ConfigError, "erasing is for images"),
    ],
)
def test_what_cannot_be_is_refused(train: Any, options: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        event_sets(train, given(GOOD), **{"name": "own", "class_names": "ab"} | options)


def test_names_are_found_behind_subsets() -> None:
    blinks = TensorDataset(torch.ones(6, 4, 2, 8, 8), torch.arange(6) % 2)
    blinks.classes = ["left", "right"]
    sets = event_sets(Subset(Subset(blinks, range(5)), [1, 2, 3]), blinks, name="own", loading=Loading(validation=0))
    assert sets.class_names == ("left", "right")
    assert [sets.train.dataset[item][1] for item in range(3)] == [1, 0, 1]
