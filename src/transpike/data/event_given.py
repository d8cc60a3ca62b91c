"""Any data sets of event frames as an event set, for instance SpikingJelly's."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from transpike.checks import whole
from transpike.data.augment import Augment
from transpike.data.batches import seed_of
from transpike.data.events import EventSets, augmented, collected, event_augmentation
from transpike.data.images import Loading, choose_tested, choose_training
from transpike.errors import ConfigError, DataError

__all__ = ["GivenFrames", "event_sets"]


def event_sets(
    train: Dataset[Any],
    test: Dataset[Any],
    *,
    name: str,
    class_names: Sequence[str] | None = None,
    shift: int = 0,
    flip: bool = False,
    loading: Loading = Loading(),
) -> EventSets:
    """Turn any data set of event frames into an event set, for example SpikingJelly's with ``data_type="frame"``.

    An item is ``(frames, label)``: counts ``[T, 2, H, W]`` as a NumPy array or a tensor, all of one shape, and an
    integer from 0. Validation items are held back from ``train`` as in :func:`load_events`. A transform of ``train``
    itself would change these items too, so leave the augmentation to ``shift``, ``flip`` and ``loading``.

    Args:
        train: A map-style data set: it has a length and returns an item for an index.
        test: Another one.
        name: The name of the set.
        class_names: The classes' names in the order of the labels. The default is ``train.classes``, which
            torchvision's and SpikingJelly's sets have (also inside ``Subset``).
        shift: The augmentation ``standard`` shifts at random by up to so many pixels.
        flip: Whether it also mirrors. :func:`load_events` shifts ``nmnist`` by 2 and the others by 5, and mirrors
            ``cifar10_dvs``.
        loading: Splits, batches, workers and augmentation, as in :func:`load_events`.

    Raises:
        DataError: An item is not such a pair, its shape differs from the first one's, or its label has no class name.
            The first training item is read at once, and the others when they are needed.
        ConfigError: The sets are not map-style or have no class names, or ``loading`` has impossible values.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> blinks = TensorDataset(torch.ones(20, 4, 2, 8, 8), torch.arange(20) % 2)
        >>> loading = Loading(batch_size=5)
        >>> sets = event_sets(blinks, blinks, name="blinks", class_names=["left", "right"], loading=loading)
        >>> frames, labels = next(iter(sets.test))
        >>> frames.shape, labels, sets.steps, len(sets.validation.dataset)
        (torch.Size([4, 5, 2, 8, 8]), tensor([0, 1, 0, 1, 0]), 4, 2)
    """
    whole("shift", shift, least=0)
    augmenting = event_augmentation(loading, shift=shift, flip=flip)
    names = tuple(class_names or _class_names(train))
    if not names:
        raise ConfigError(f"{name}: the training set has no attribute 'classes'. Name them: class_names=[...].")
    training, held = choose_training(_length(train, f"{name}, train"), loading)
    tested = choose_tested(_length(test, f"{name}, test"), loading)
    first, _ = _item(train[0], f"{name}, train, item 0", classes=len(names))

    def frames(given: Dataset[Any], part: str, chosen: list[int], augment: Augment | None = None) -> GivenFrames:
        title = f"{name}, {part}"
        subset = Subset(given, chosen)
        return GivenFrames(subset, title, shape=first.shape, classes=len(names), augment=augment, seed=loading.seed)

    return collected(
        name,
        loading,
        train=frames(train, "train", training, augmenting),
        validation=frames(train, "train", held),
        test=frames(test, "test", tested),
        class_names=names,
        size=max(first.shape[2:]),
        steps=len(first),
        split_by=None,
    )


class GivenFrames(Dataset[tuple[Tensor, int]]):
    """Chosen items ``(frames, label)`` of any data set, checked: float32 ``[T, 2, H, W]`` and an int.

    Items are numbered and augmented like those of :class:`EventFrames`.

    Args:
        given: The chosen items.
        title: The set's name in messages.
        shape: The shape of all frames.
        classes: The number of labels.
        augment: As for :class:`EventFrames`.
        seed: Determines the augmentation.
    """

    def __init__(
        self,
        given: Subset[Any],
        title: str,
        *,
        shape: Sequence[int],
        classes: int,
        augment: Augment | None = None,
        seed: int = 0,
    ) -> None:
        self.given = given
        self.title = title
        self.shape = list(shape)
        self.classes = classes
        self.augment = augment
        self.seed = seed

    def __len__(self) -> int:
        return len(self.given)

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        place = item % len(self)
        title = f"{self.title}, item {self.given.indices[place]}"
        frames, label = _item(self.given[place], title, classes=self.classes)
        if list(frames.shape) != self.shape:
            raise DataError(
                f"{title}: frames {list(frames.shape)}, but item 0 of train has {self.shape}, and a batch needs one "
                "shape. SpikingJelly's sets give it with frames_number=, not with duration=."
            )
        return augmented(frames, self.augment, seed_of(self.seed, item)), label


def _class_names(given: Any) -> Sequence[str]:
    while isinstance(given, Subset):
        given = given.dataset
    return getattr(given, "classes", ())


def _length(given: Any, title: str) -> int:
    if not hasattr(given, "__len__") or not hasattr(given, "__getitem__"):
        raise ConfigError(f"{title}: {type(given).__name__} is not map-style: it needs __len__ and __getitem__.")
    if len(given) == 0:
        raise DataError(f"{title}: the set is empty.")
    return len(given)


def _item(given: Any, title: str, *, classes: int) -> tuple[Tensor, int]:
    """Return a user's ``(frames, label)``, checked."""
    try:
        frames, label = given
        label = index(label)
        if not isinstance(frames, Tensor) and not (isinstance(frames, np.ndarray) and frames.dtype.kind in "biuf"):
            raise TypeError
    except (TypeError, ValueError):
        kinds = [type(part).__name__ for part in given] if isinstance(given, tuple | list) else type(given).__name__
        raise DataError(
            f"{title}: expected (frames, label), an array or a tensor [T, 2, H, W] and an integer, not {kinds}. "
            "SpikingJelly's sets give frames with data_type='frame'."
        ) from None
    if frames.ndim != 4 or frames.shape[1] != 2 or 0 in frames.shape:
        raise DataError(f"{title}: frames must be [T, 2, H, W], not {list(frames.shape)}.")
    if not 0 <= label < classes:
        raise DataError(f"{title}: label {label} is not one of 0 to {classes - 1}: there are {classes} class names.")
    # An array is copied, because it may be read-only or have negative strides.
    counts = frames.float() if isinstance(frames, Tensor) else torch.from_numpy(np.array(frames, np.float32))
    if not counts.isfinite().all():
        raise DataError(f"{title}: frames must hold finite numbers, and some are NaN or infinite.")
    return counts, label
