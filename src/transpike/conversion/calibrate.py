"""What the calibration images say about each neuron: the distribution of its activation, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from transpike.conversion.graph import Graph
from transpike.conversion.op import Op
from transpike.errors import ConversionError, DataError
from transpike.quantiles import Quantiles

__all__ = ["IMAGES", "Statistics", "collect", "measure"]

IMAGES = 512
_CHUNK = 32


@dataclass(frozen=True)
class Statistics:
    """|activation| of the input and of every neuron (by name) over ``images`` calibration images."""

    quantiles: dict[str, Quantiles]
    images: int


def collect(calibration: Iterable[Any], images: int = IMAGES) -> Tensor:
    """The first ``images`` images of an iterable of batches; a batch is a tensor [N, \\*] or begins with one.

    Raises:
        ConversionError: for no images, integers, values that are not finite, or batches of different image shapes.
    """
    if not isinstance(calibration, Iterable):
        raise ConversionError(
            f"calibration: expected batches of images, not {_describe(calibration)}; pass a DataLoader, or a list of "
            "batches"
        )
    batches: list[Tensor] = []
    found = 0
    for batch in [calibration] if isinstance(calibration, Tensor) else calibration:
        x = batch[0] if isinstance(batch, (list, tuple)) and batch else batch
        if not isinstance(x, Tensor) or x.ndim < 2:
            raise ConversionError(
                f"calibration: a batch must be a tensor [N, *] or a pair (images, labels), not {_describe(x)}; "
                "pass a DataLoader, or a list of batches"
            )
        check_images(x, "calibration")
        if batches and x.shape[1:] != batches[0].shape[1:]:
            raise ConversionError(
                f"calibration: images of shape {tuple(x.shape[1:])} after images of shape "
                f"{tuple(batches[0].shape[1:])}; resize them to one shape"
            )
        batches.append(x.detach()[: images - found])
        found += len(batches[-1])
        if found >= images:
            break
    if not found:
        raise ConversionError(
            "calibration: no images; pass batches of training images, preprocessed as for the network"
        )
    return torch.cat(batches)


def check_images(x: Tensor, what: str) -> None:
    """Raise ConversionError unless ``x`` holds finite floating-point images."""
    if not x.is_floating_point():
        raise ConversionError(
            f"{what}: images are {x.dtype}; convert them to float and normalise them as in the network's training"
        )
    if not x.isfinite().all():
        raise ConversionError(f"{what}: images hold NaN or infinity; check the preprocessing")


def measure(graph: Graph, images: Tensor) -> Statistics:
    """Run the analog network on ``images`` and keep each neuron's distribution of |activation|.

    Raises:
        ConversionError: if an activation is NaN or infinite, naming the layer.
    """
    quantiles: dict[str, Quantiles] = {}

    def observe(op: Op, value: Tensor) -> None:
        try:
            quantiles.setdefault(op.name, Quantiles()).update(value)
        except DataError as error:
            raise ConversionError(
                f"{op.name}: its activations on the calibration images are NaN or infinite; check the weights and the "
                "preprocessing"
            ) from error

    with torch.no_grad():
        for chunk in images.split(_CHUNK):
            graph.run(chunk, observe)
    return Statistics(quantiles, len(images))


def _describe(value: object) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
