"""Images rebuilt from the spikes that an encoder has sent so far."""

from __future__ import annotations

import torch

from transpike.coding import Encoder
from transpike.data import ImageSets
from transpike.measure.pictures import chosen_loader, pixels_of, png
from transpike.results import Rebuilt

__all__ = ["rebuilt"]

SEEN = 64
"""The number of images over which the error is averaged."""


@torch.no_grad()
def rebuilt(
    encoder: Encoder, sets: ImageSets, *, shown: int = 4
) -> tuple[tuple[int, ...], tuple[float, ...], tuple[Rebuilt, ...]]:
    """Rebuild test images from an encoder's spikes after 1, 2, 4, 8, ... and T steps.

    Args:
        encoder: an encoder on the CPU.
        sets: the data set, whose test images are used, evenly spaced.
        shown: how many of them are returned as pictures, of different classes if possible.

    Returns:
        The steps; the error after each, as the root mean square in pixels of [0, 1] over 64 images; and images, each
        with a picture for each of the steps.
    """
    batches = list(chosen_loader(sets, "test", SEEN))
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    with torch.random.fork_rng(devices=[]):
        spikes = encoder(images)
    height, width = images.shape[-2:]
    steps = (*(2**power for power in range((encoder.steps - 1).bit_length())), encoder.steps)
    truth = pixels_of(images, sets)
    decoded = [pixels_of(encoder.decode(spikes[:count])[..., :height, :width], sets) for count in steps]
    first = {label: place for place, label in reversed(list(enumerate(labels.tolist())))}
    pictures = (
        Rebuilt(
            label=sets.class_names[label], png=png(truth[place]), rebuilt=tuple(png(each[place]) for each in decoded)
        )
        for label, place in sorted(first.items())[:shown]
    )
    return steps, tuple(float((pixels - truth).square().mean().sqrt()) for pixels in decoded), tuple(pictures)
