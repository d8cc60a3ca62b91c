"""Images rebuilt from the spikes that an encoder has sent so far."""

from __future__ import annotations

from typing import Any

import torch

from transpike.data import ImageSets
from transpike.measure.pictures import chosen_loader, pixels_of, png

__all__ = ["rebuilt"]

SEEN = 64
"""Images of which the error is a mean."""


@torch.no_grad()
def rebuilt(encoder: Any, sets: ImageSets, *, shown: int = 4) -> dict[str, Any]:
    """Test images as an encoder's spikes tell of them after 1, 2, 4, 8, ... and T steps.

    Args:
        encoder: of `transpike.coding`, on the CPU.
        sets: whose test images, evenly spaced, are taken.
        shown: how many of them are written as pictures, of different classes if possible.

    Returns:
        "steps"; "error" after each, the root mean square in pixels of [0, 1] over 64 images; "images", each with
        "label", "png" and "rebuilt", a PNG for each of the steps.
    """
    batches = list(chosen_loader(sets, "test", SEEN))
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    with torch.random.fork_rng(devices=[]):
        spikes = encoder(images)
    height, width = images.shape[-2:]
    steps = [*(2**power for power in range((encoder.steps - 1).bit_length())), encoder.steps]
    truth = pixels_of(images, sets)
    told = [pixels_of(encoder.decode(spikes[:count])[..., :height, :width], sets) for count in steps]
    first = {label: place for place, label in reversed(list(enumerate(labels.tolist())))}
    return {
        "steps": steps,
        "error": [float((pixels - truth).square().mean().sqrt()) for pixels in told],
        "images": [
            {"label": sets.class_names[label], "png": png(truth[place]), "rebuilt": [png(each[place]) for each in told]}
            for label, place in sorted(first.items())[:shown]
        ],
    }
