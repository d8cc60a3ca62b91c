"""Image sets as loaders of normalised batches: training, validation, test and calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from transpike.checks import choice, near, number, refuse, whole
from transpike.data.augment import Augment, augment_names, augmentation, shift_and_flip
from transpike.data.batches import EpochSampler, MemoryImages
from transpike.data.folder import FolderImages, Samples, class_names, list_images
from transpike.data.sources import SOURCES, Part
from transpike.data.transforms import evaluation_transform, training_transform
from transpike.errors import ConfigError, DataError, reason

__all__ = ["ImageSets", "Loading", "choose_tested", "choose_training", "load_images"]

Images = MemoryImages | FolderImages

_INTERPOLATION = ("nearest", "bilinear", "bicubic")
_LARGEST_SIDE = 2**15
_MOST_WORKERS = 1024


@dataclass(frozen=True)
class Loading:
    """How images are split, batched, normalised and augmented.

    Attributes:
        batch_size: Images in a batch. If there are several processes, this is the batch of each process. Training
            leaves an incomplete last batch out.
        validation: The share of the training images that is used only for validation, in [0, 1).
        seed: Seed of the validation split, the order of images in each epoch and the augmentation.
        workers: The number of processes that read files. Only `folder` and data sets of events need them, because the
            other data sets are kept in memory.
        augment: Names joined by `+`, as in `standard+autoaugment+cutout:16`, or `none`. `standard` shifts images at
            random (`folder`: crops and resizes them). It also mirrors them (not in digits, mnist, nmnist and
            dvs128_gesture). `shift`, `flip`, `autoaugment`, `randaugment`, `wide`, `cutout` and `erasing` can follow
            it, or be used alone. `transpike.data.augment.augmentation` describes all names.
        size: Side of the images in pixels. The default is the size in the data set; for `folder` it is 224.
        crop: For `folder`: the share of the resized image's side that the centre crop keeps in evaluation, in (0, 1].
            The default is 0.875. A network of timm has its own default.
        interpolation: For `folder`: how images are resized: `nearest`, `bilinear` (the default) or `bicubic`. A network
            of timm has its own default.
        device: The device that holds images and batches, for data sets that are kept in memory (all but `folder` and
            data sets of events).
        train_images: Use this many of the training images, validation included. `seed` fixes which ones.
        test_images: Use this many of the test images, the same ones for every seed.
        mean: This value is subtracted from the pixels, which lie between 0 and 1. There is one value for each channel.
            The default is the mean of the data set; for `folder` it is that of ImageNet.
        std: After the subtraction, the pixels are divided by this value. There is one value for each channel. The
            default is the deviation of the data set; for `folder` it is that of ImageNet.
        outputs: The number of outputs of the network. If it is 1000 and the classes of a `folder` are named by
            ImageNet's synsets, the labels are those of ImageNet.
    """

    batch_size: int = 128
    validation: float = 0.1
    seed: int = 0
    workers: int = 0
    augment: str = "standard"
    size: int | None = None
    crop: float | None = None
    interpolation: str | None = None
    device: str = "cpu"
    train_images: int | None = None
    test_images: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    outputs: int | None = None

    def __post_init__(self) -> None:
        whole("loading.batch_size", self.batch_size)
        number("loading.validation", self.validation, least=0, below=1)
        whole("loading.seed", self.seed, least=0, most=2**63 - 1)
        whole("loading.workers", self.workers, least=0, most=_MOST_WORKERS)
        augmentation(self.augment)
        for name, least, most in (
            ("size", 1, _LARGEST_SIDE),
            ("train_images", 1, None),
            ("test_images", 1, None),
            ("outputs", 0, None),
        ):
            if getattr(self, name) is not None:
                whole(f"loading.{name}", getattr(self, name), least=least, most=most)
        if self.crop is not None:
            number("loading.crop", self.crop, above=0, most=1)
        if self.interpolation is not None:
            choice("loading.interpolation", self.interpolation, _INTERPOLATION)
        _check_device(self.device)
        for name, above in (("mean", None), ("std", 0)):
            values = getattr(self, name)
            if values is None:
                continue
            if not isinstance(values, list | tuple) or not values:
                raise refuse(f"loading.{name}", values, "a number for each channel")
            for value in values:
                number(f"loading.{name}", value, above=above)


def _check_device(name: object) -> None:
    try:
        torch.zeros(1, device=name).item()  # type: ignore[call-overload]
    except (RuntimeError, AssertionError, TypeError) as error:
        why = str(error).partition("\n")[0]
        raise ConfigError(f"loading.device={name!r} cannot hold images here ({why}). Take cpu.") from error


@dataclass(frozen=True)
class ImageSets:
    """An image set's loaders. Batches are normalised float32 images ``[N, C, H, W]`` and int64 labels ``[N]``.

    Attributes:
        name: The set's name.
        train: Shuffled and augmented training images. Its ``sampler`` is an :class:`EpochSampler`.
        validation: Training images held back, without augmentation. Empty if ``Loading.validation`` is 0.
        test: The test images, for ``folder`` those in ``val/``. Under ``torch.distributed`` each process has its share.
        classes: The number of labels.
        class_names: Their names.
        channels: Channels of an image.
        size: Side of an image in pixels.
        mean: The mean that was subtracted from pixels between 0 and 1, for each channel.
        std: The divisor after the subtraction, for each channel.
        plain: The training images without augmentation, from which :meth:`calibration` draws.
        loading: The options of the loaders.
        root: The folder of the files. None if `load_images` did not load them.
    """

    name: str
    train: DataLoader[Any]
    validation: DataLoader[Any]
    test: DataLoader[Any]
    classes: int
    class_names: tuple[str, ...]
    channels: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    plain: Images
    loading: Loading
    root: Path | None = None

    def calibration(self, images: int = 512) -> DataLoader[Any]:
        """Return a loader of training images without augmentation, in a seeded order that is equal in all processes."""
        chosen = _shuffled(len(self.plain), self.loading.seed)[: whole("images", images)]
        return _loader(Subset(self.plain, chosen), self.loading)


def load_images(
    name: str, *, root: str | PathLike[str] = "data", download: bool = False, loading: Loading = Loading()
) -> ImageSets:
    """Load an image set by name.

    ``digits`` comes with scikit-learn. ``mnist``, ``fashion_mnist``, ``cifar10`` and ``cifar100`` are read from
    torchvision's layout under ``root``. ``folder`` reads ``root/train/<class>/*`` and ``root/val/<class>/*``.

    Args:
        name: One of the names above.
        root: The folder of the files.
        download: Download missing files into ``root`` (not for ``folder``).
        loading: Splits, batches, normalisation and augmentation.

    Raises:
        DataError: The name is unknown, files are missing or damaged, or a class folder is empty.
        ConfigError: ``loading`` has values that are impossible for this set.

    Example:
        >>> digits = load_images("digits", loading=Loading(batch_size=64))
        >>> images, labels = next(iter(digits.test))
        >>> images.shape, labels.dtype, len(digits.test.dataset)
        (torch.Size([64, 1, 8, 8]), torch.int64, 360)
    """
    known = [*SOURCES, "folder"]
    if name not in known:
        guess = near(name, known, most=3) or f" Known: {', '.join(known)}."
        raise DataError(f"no image set is called {name!r}.{guess}")
    try:
        folder = Path(root)
        sets = _folder_sets(folder, loading) if name == "folder" else _memory_sets(name, folder, download, loading)
    except OSError as error:
        raise DataError(f"{name}: {error.filename or root} cannot be read: {reason(error)}") from error
    return replace(sets, root=folder)


def _memory_sets(name: str, root: Path, download: bool, loading: Loading) -> ImageSets:
    source = SOURCES[name]
    mean, std = _statistics(source.mean, source.std, loading)
    raw = source.read(root, download)
    training, validation = choose_training(len(raw.train.labels), loading)
    standard = partial(shift_and_flip, shift=source.shift, flip=source.flip)

    def images(part: Part, chosen: Sequence[int], augment: Augment | None = None) -> MemoryImages:
        pixels, labels = (tensor[list(chosen)].to(loading.device) for tensor in part)
        return MemoryImages(pixels, labels, mean, std, size=loading.size, augment=augment, seed=loading.seed)

    return _sets(
        name,
        loading,
        train=images(raw.train, training, augmentation(loading.augment, standard=standard)),
        plain=images(raw.train, training),
        validation=images(raw.train, validation),
        test=images(raw.test, choose_tested(len(raw.test.labels), loading)),
        class_names=raw.class_names,
        size=loading.size or raw.train.images.shape[-1],
        mean=mean,
        std=std,
    )


def _folder_sets(root: Path, loading: Loading) -> ImageSets:
    mean, std = _statistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), loading)
    train, val = list_images(root / "train"), list_images(root / "val")
    if strange := sorted(set(val) - set(train)):
        raise DataError(
            f"{root / 'val'} has classes that train/ lacks: {', '.join(strange[:5])}. Add them there, or remove them "
            "here."
        )
    names = class_names(list(train), loading.outputs)
    label = {name: index for index, name in enumerate(names)}
    samples, tests = ([(file, label[name]) for name in part for file in part[name]] for part in (train, val))
    size = loading.size or 224
    crop, interpolation = loading.crop or 0.875, loading.interpolation or "bilinear"
    center = partial(evaluation_transform, size, mean, std, crop=crop, interpolation=interpolation)
    anywhere = partial(training_transform, size, mean, std, interpolation=interpolation)
    evaluating, cropping = center(), anywhere if "standard" in augment_names(loading.augment) else center
    training, validation = choose_training(len(samples), loading)

    def images(part: Samples, chosen: Sequence[int], transform: Callable[[Any], Tensor] = evaluating) -> FolderImages:
        return FolderImages([part[index] for index in chosen], transform, seed=loading.seed)

    return _sets(
        "folder",
        loading,
        train=images(samples, training, cropping(augment=augmentation(loading.augment))),
        plain=images(samples, training),
        validation=images(samples, validation),
        test=images(tests, choose_tested(len(tests), loading)),
        class_names=names,
        size=size,
        mean=mean,
        std=std,
    )


def _sets(
    name: str, loading: Loading, *, train: Images, plain: Images, validation: Images, test: Images, **facts: Any
) -> ImageSets:
    sampler = EpochSampler(len(train), seed=loading.seed)
    return ImageSets(
        name=name,
        # A last batch of one or two images would disturb batch statistics.
        train=_loader(train, loading, sampler=sampler, drop_last=len(train) >= loading.batch_size),
        validation=_loader(validation, loading, sampler=EpochSampler(len(validation), shuffle=False)),
        test=_loader(test, loading, sampler=EpochSampler(len(test), shuffle=False)),
        classes=len(facts["class_names"]),
        channels=len(facts["mean"]),
        plain=plain,
        loading=loading,
        **facts,
    )


def _loader(
    images: Dataset[Any], loading: Loading, *, sampler: EpochSampler | None = None, drop_last: bool = False
) -> DataLoader[Any]:
    in_memory = isinstance(images.dataset if isinstance(images, Subset) else images, MemoryImages)
    workers = 0 if in_memory else loading.workers
    return DataLoader(
        images,
        batch_size=loading.batch_size,
        sampler=sampler,
        drop_last=drop_last,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=_whole if in_memory else None,
        pin_memory=not in_memory and torch.cuda.is_available(),
        # A separate generator: a loader draws a number from it in every pass, which must not affect others.
        generator=Generator(),
    )


def _whole(batch: Any) -> Any:
    """Return the result of ``__getitems__``, which already is a batch."""
    return batch


def choose_training(images: int, loading: Loading) -> tuple[list[int], list[int]]:
    """Return the indices of the training images for training, and of those held back.

    Raises:
        DataError: None is left for training.
    """
    order = _shuffled(images, loading.seed)[: loading.train_images]
    held = round(len(order) * loading.validation)
    if not order:
        raise DataError("the training part of the data set is empty.")
    if held == len(order):
        raise DataError(f"loading.validation={loading.validation} leaves no image of {len(order)} to train with.")
    return sorted(order[held:]), sorted(order[:held])


def choose_tested(images: int, loading: Loading) -> list[int]:
    """Return the indices of the test images. They are the same for every seed, so that runs are comparable.

    Raises:
        DataError: There is none.
    """
    if not images:
        raise DataError("the test part of the data set is empty, so training could not be measured.")
    return sorted(_shuffled(images, 0)[: loading.test_images])


def _shuffled(images: int, seed: int) -> list[int]:
    order: list[int] = torch.randperm(images, generator=Generator().manual_seed(seed)).tolist()
    return order


def _statistics(
    mean: tuple[float, ...], std: tuple[float, ...], loading: Loading
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    chosen = loading.mean or mean, loading.std or std
    if any(len(values) != len(mean) for values in chosen):
        raise ConfigError(
            f"loading.mean and loading.std need {len(mean)} values, one per channel: got {loading.mean}, {loading.std}."
            " If they come from a run, the images of --data need as many channels as those of the run."
        )
    return chosen
