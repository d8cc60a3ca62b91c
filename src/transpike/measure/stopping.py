"""A conversion's row with its early answers, and pictures of easy and hard images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from transpike.conversion import SpikingNetwork
from transpike.conversion.stopping import least_images
from transpike.conversion.stream import unstreamed
from transpike.data import ImageSets
from transpike.errors import ConfigError
from transpike.measure.anytime import stopping
from transpike.measure.pictures import pixels_of, png
from transpike.results import Pictured, Row

__all__ = ["early_row", "held_out_images"]

PICTURES, SIDE = 6, 96
"""The number of pictures of either kind, and the largest side in pixels."""


def held_out_images(agreement: float, held_out: int | None, images: int) -> int:
    """Return how many of the test images set the threshold.

    Raises:
        ConfigError: They are too few for the agreement, or none is left for the measurement.

    Example:
        >>> held_out_images(0.9, None, 10_000), held_out_images(0.9, None, 360), held_out_images(0.995, None, 360)
        (512, 180, 199)
    """
    needed = least_images(agreement)
    if held_out is not None and held_out < needed:
        raise ConfigError(f"agreement={agreement} needs held_out={needed} or more, not {held_out}.")
    chosen = max(needed, min(512, images // 2)) if held_out is None else held_out
    if chosen >= images:
        raise ConfigError(
            f"held_out={chosen}: these images set the threshold, and none of {images} test images is left to measure "
            "on; give a smaller --held-out, a smaller --agreement, or more images."
        )
    return chosen


def early_row(
    row: Row,
    snn: SpikingNetwork,
    sets: ImageSets,
    *,
    agreement: float,
    held_out: int,
    total: Callable[[Tensor], Tensor] | None = None,
    batches: Iterable[Sequence[Tensor]] | None = None,
) -> Row:
    """Return ``row`` with the early answers of its network, or with the reason why it has none.

    Args:
        row: the network's row from `transpike.measure.conversion.compare`.
        snn: the network.
        sets: the data set. The first ``held_out`` test images set the threshold.
        agreement: as in `transpike.measure.anytime.early`.
        held_out: as there.
        total: as there.
        batches: batches of the test images, for instance with a progress bar.
    """
    if reason := unstreamed(snn):
        return replace(row, unstreamed=reason)
    rows, order = stopping(snn, batches or sets.test, agreement=agreement, held_out=held_out, total=total)
    few = min(PICTURES, len(order) // 2)
    shown = [*order[:few], *order[len(order) - few :]]
    return replace(row, early=rows, pictured=_pictured(sets, shown))


def _pictured(sets: ImageSets, shown: Sequence[tuple[int, int]]) -> tuple[Pictured, ...]:
    """Return test images by number, with the steps that they ran."""
    if not shown:
        return ()
    chosen = Subset(sets.test.dataset, [place for place, _ in shown])
    (batch,) = DataLoader(chosen, batch_size=len(shown), collate_fn=sets.test.collate_fn)
    pixels = pixels_of(batch[0], sets)
    if (largest := max(pixels.shape[-2:])) > SIDE:
        size = [max(1, side * SIDE // largest) for side in pixels.shape[-2:]]
        pixels = torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True)
    return tuple(
        Pictured(png=png(image), label=sets.class_names[int(label)], steps=steps)
        for image, label, (_, steps) in zip(pixels, batch[1], shown, strict=True)
    )
