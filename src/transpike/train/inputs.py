"""Checks of loaders and batches from any source: images or frames, and a class index for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from transpike.checks import tensor
from transpike.errors import ConfigError, DataError, ModelError, TranspikeError

__all__ = ["batch_count", "check_loader", "check_outputs", "read_batch"]


def batch_count(loader: object) -> int | None:
    """Return the number of a loader's batches, if it is known.

    Example:
        >>> batch_count([1, 2]), batch_count(batch for batch in [1, 2])
        (2, None)
    """
    try:
        return len(loader)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):  # torch's loader of an IterableDataset has a method that fails
        return None


def check_loader(name: str, loader: object, *, counted: bool) -> None:
    """Raise an error if a loader has no batches or, if ``counted``, no known length.

    Raises:
        ConfigError: The message names the loader.
    """
    if not isinstance(loader, Iterable) and not hasattr(loader, "__getitem__"):
        raise ConfigError(
            f"the {name} loader, a {type(loader).__name__}, gives no batches: take a DataLoader or a list."
        )
    if counted and not batch_count(loader):
        has = "has none" if batch_count(loader) is None else "has none to give"
        raise ConfigError(
            f"the {name} loader needs a length, its number of batches, of at least 1, and this {type(loader).__name__} "
            f"{has}: take a DataLoader or a list."
        )


def read_batch(batch: object, *, axis: Callable[[Tensor], int], dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
    """Return any batch as images and int64 class indices [N].

    NumPy arrays and lists become tensors. Class indices of any whole-number type become int64. Images of any
    floating-point type become `dtype`. Images of whole numbers stay unchanged, because a network may take them.

    Args:
        batch: a pair (images, labels).
        axis: returns the axis of the samples in images.
        dtype: the dtype of the network's weights. None leaves images unchanged.

    Raises:
        DataError: The batch is not a pair, images or labels are not numbers, the batch is empty, or the labels are not
            class indices, one for each image.

    Example:
        >>> images, labels = read_batch((np.zeros((2, 1, 4, 4)), [0, 1]), axis=lambda images: 0, dtype=torch.float32)
        >>> images.dtype, labels
        (torch.float32, tensor([0, 1]))
    """
    if not (isinstance(batch, list | tuple) and len(batch) == 2):
        found = f"{len(batch)} values" if isinstance(batch, list | tuple) else f"a {type(batch).__name__}"
        raise DataError(f"a batch must be a pair (images, labels), not {found}.")
    images, labels = _converted("images", batch[0]), _converted("labels", batch[1])
    if images.ndim == 0 or images.numel() == 0:
        raise DataError(f"images: expected a batch of at least one, got a tensor {list(images.shape)}.")
    samples = images.shape[axis(images)]
    tensor("labels", labels, (samples,), floating=False, error=lambda message: _hinted(message, labels, samples))
    return images.to(dtype) if dtype and images.is_floating_point() else images, labels.long()


def check_outputs(outputs: object, labels: Tensor, *, extent: tuple[int, int] | None, network: str) -> None:
    """Check that outputs are logits of the batch, and that labels are among the classes.

    Args:
        outputs: the network's outputs.
        labels: class indices [N].
        extent: the smallest and the largest label, if they are known.
        network: the network's name, for the message.

    Raises:
        ModelError: The outputs are not [N, classes] or [T, N, classes].
        DataError: The network does not have a class.
    """
    if not isinstance(outputs, Tensor) or outputs.ndim not in (2, 3) or outputs.shape[-2] != len(labels):
        found = list(outputs.shape) if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
        raise ModelError(
            f"{network} gives {found} for a batch of {len(labels)}: expected a tensor [N, classes], or [T, N, classes]."
        )
    classes = outputs.shape[-1]
    if extent is not None and not (extent[0] >= 0 and extent[1] < classes):
        raise DataError(
            f"labels: class indices from {extent[0]} to {extent[1]}, but {network} has {classes} classes, 0 to "
            f"{classes - 1}. Number the classes from 0, or give the network more outputs."
        )


def _converted(name: str, values: object) -> Tensor:
    if isinstance(values, Tensor):
        return values
    try:
        # First as an array: torch is slow with lists of NumPy's numbers and accepts no arrays with negative strides.
        return torch.from_numpy(np.array(values))
    except (TypeError, ValueError) as error:  # words, objects, lists of unequal length
        raise DataError(
            f"{name}: expected a tensor or an array of numbers, not this {type(values).__name__}."
        ) from error


def _hinted(message: str, labels: Tensor, samples: int) -> TranspikeError:
    """Return the error for labels that are not class indices, with a hint how to convert them."""
    hint = ""
    if labels.ndim == 0:
        hint = "This is one sample: make batches, by a DataLoader for one."
    elif labels.shape == (samples, 1):
        hint = "Take labels.squeeze(1)."
    elif labels.ndim == 2 and len(labels) == samples:
        hint = "Take labels.argmax(1) if they are one-hot."
    elif labels.shape == (samples,) and labels.is_floating_point():
        hint = "Take labels.long()."
    return DataError(f"{message} Labels are class indices from 0. {hint}".strip())
