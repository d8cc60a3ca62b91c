"""Augmentation of whole batches of uint8 images ``[N, C, H, W]``, on the images' own device.

The random numbers are drawn on the CPU, so that a seed gives the same batch on every device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from transpike.checks import choice, refuse
from transpike.data.wide import wide
from transpike.errors import ConfigError

__all__ = ["Augment", "augment_names", "augmentation", "cutout", "random_flip", "random_shift", "shift_and_flip"]

Augment = Callable[[Tensor, Generator], Tensor]

# torchvision draws once for each call. Here each group of so many images gets its own draws.
_TOGETHER = 8
# The largest shift or side of a square in pixels: beyond any image, and padding still fits into memory.
_FARTHEST = 1024


def augmentation(text: str, *, standard: Augment | None = None) -> Augment | None:
    """Return the augmentation that ``text`` names: names joined by ``+``, in order, each with an optional number.

    ``none``; ``standard``, the set's own; a random ``shift`` by up to ``:1`` pixel; ``flip``, left to right for half of
    the images; ``autoaugment`` with the policy ``:cifar10``, ``:svhn`` or ``:imagenet``; ``randaugment`` with the
    magnitude ``:9`` of 31 and two operations, or ``:9/1`` with one; ``wide``, one operation for frames of events;
    ``cutout`` of a square of ``:16`` pixels, by default half the image's side; ``erasing`` of a rectangle in a share
    ``:0.25`` of the images. Emptied areas are black. AutoAugment, RandAugment and erasing are torchvision's. A few
    images of a batch share their draws, which have the same distribution as single draws.

    Args:
        text: The names.
        standard: The augmentation ``standard``. None if it is done elsewhere.

    Returns:
        A function from uint8 images and a CPU generator to uint8 images. None if there is nothing to do.

    Raises:
        ConfigError: A name is unknown. The message names it.

    Source: Cubuk et al., AutoAugment, CVPR 2019, and RandAugment, NeurIPS 2020; DeVries and Taylor, "Improved
    Regularization of Convolutional Neural Networks with Cutout", 2017; Zhong et al., "Random Erasing Data
    Augmentation", AAAI 2020.

    Example:
        >>> augment = augmentation("autoaugment+cutout:2")
        >>> int((augment(torch.full((1, 3, 8, 8), 200, dtype=torch.uint8), Generator()) == 0).sum()) >= 3
        True
    """
    parts = []
    for name, value in zip(augment_names(text), _values(text), strict=True):
        if name == "standard" and standard is not None:
            parts.append(standard)
        elif name in _MAKERS:
            try:
                parts.append(_MAKERS[name](value))
            except (KeyError, ValueError):
                raise ConfigError(f"loading.augment={text!r}: {value!r} is not a value for {name}.") from None
    return partial(_in_turn, parts=parts) if parts else None


def augment_names(text: str) -> list[str]:
    """Check ``text`` and return its names.

    Example:
        >>> augment_names("standard+cutout:16")
        ['standard', 'cutout']
    """
    if not isinstance(text, str):
        raise refuse("loading.augment", text, "names joined by +")
    names = [part.partition(":")[0] for part in text.split("+")]
    for name, value in zip(names, _values(text), strict=True):
        choice("loading.augment", name, ["none", "standard", *_MAKERS])
        if value and name not in _MAKERS:
            raise ConfigError(f"loading.augment={text!r}: {name} takes no value.")
    if "none" in names and len(names) > 1:
        raise ConfigError(f"loading.augment={text!r}: 'none' cannot be combined with other names.")
    return names


def _values(text: str) -> list[str]:
    return [part.partition(":")[2] for part in text.split("+")]


def _in_turn(images: Tensor, generator: Generator, *, parts: Sequence[Augment]) -> Tensor:
    for part in parts:
        images = part(images, generator)
    return images


def _autoaugment(value: str) -> Augment:
    from torchvision.transforms import v2

    policy = v2.AutoAugmentPolicy(value or "cifar10")
    return partial(_drawn, transform=v2.AutoAugment(policy))


def _randaugment(value: str) -> Augment:
    from torchvision.transforms import v2

    first, slash, second = value.partition("/")
    magnitude, operations = int(first or 9), int(second) if slash else 2
    if not 0 <= magnitude <= 30 or not 1 <= operations <= 10:
        raise ValueError
    return partial(_drawn, transform=v2.RandAugment(num_ops=operations, magnitude=magnitude))


def _flip(value: str) -> Augment:
    if value:
        raise ValueError
    return _flipped


def _flipped(images: Tensor, generator: Generator) -> Tensor:
    return random_flip(images, generator=generator)


def _wide(value: str) -> Augment:
    if value:
        raise ValueError
    return wide


def _erasing(value: str) -> Augment:
    from torchvision.transforms import v2

    share = float(value or 0.25)
    if not 0 <= share <= 1:
        raise ValueError
    return partial(_drawn, transform=v2.RandomErasing(p=share))


def _cutout(value: str) -> Augment:
    if value and not 1 <= int(value) <= _FARTHEST:
        raise ValueError
    return partial(_cut, side=int(value) if value else None)


def _cut(images: Tensor, generator: Generator, *, side: int | None) -> Tensor:
    return cutout(images, side=side or images.shape[-1] // 2, generator=generator)


def _shift(value: str) -> Augment:
    if not 1 <= int(value or 1) <= _FARTHEST:
        raise ValueError
    return partial(_shifted, pixels=int(value or 1))


def _shifted(images: Tensor, generator: Generator, *, pixels: int) -> Tensor:
    return random_shift(images, pixels=pixels, generator=generator)


_MAKERS: dict[str, Callable[[str], Augment]] = {
    "shift": _shift,
    "flip": _flip,
    "wide": _wide,
    "autoaugment": _autoaugment,
    "randaugment": _randaugment,
    "cutout": _cutout,
    "erasing": _erasing,
}


def _drawn(images: Tensor, generator: Generator, *, transform: Callable[[Tensor], Any]) -> Tensor:
    """Apply a torchvision transform, which draws from the CPU's global generator."""
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return torch.cat([transform(part) for part in images.split(_TOGETHER)])


def cutout(images: Tensor, *, side: int, generator: Generator) -> Tensor:
    """Make a square of each image black. Its centre may lie anywhere in the image.

    Args:
        images: ``[N, C, H, W]``.
        side: The side of the square in pixels.
        generator: A CPU generator. It draws two integers for each image.

    Example:
        >>> cut = cutout(torch.ones(1, 1, 5, 5), side=3, generator=Generator())
        >>> int((cut == 0).sum()) in {4, 6, 9}
        True
    """
    hidden = []
    for length in images.shape[-2:]:
        first = torch.randint(0, length, (len(images), 1), generator=generator).to(images.device) - side // 2
        place = torch.arange(length, device=images.device)
        hidden.append((place >= first) & (place < first + side))
    return images.masked_fill(hidden[0][:, None, :, None] & hidden[1][:, None, None, :], 0)


def random_shift(images: Tensor, *, pixels: int, generator: Generator) -> Tensor:
    """Pad with zeros by ``pixels`` on each side, and crop each image at its own random place.

    Args:
        images: ``[N, C, H, W]``.
        pixels: The largest shift in each direction. All directions are equally likely.
        generator: A CPU generator. It draws two integers for each image.

    Example:
        >>> images = torch.ones(1, 1, 4, 4)
        >>> random_shift(images, pixels=1, generator=Generator()).sum().item() in {9, 12, 16}
        True
    """
    count, _, height, width = images.shape
    corners = torch.randint(0, 2 * pixels + 1, (2, count, 1), generator=generator).to(images.device)
    rows = corners[0] + torch.arange(height, device=images.device)
    columns = corners[1] + torch.arange(width, device=images.device)
    padded = F.pad(images, (pixels,) * 4).movedim(1, -1)
    batch = torch.arange(count, device=images.device)[:, None, None]
    return padded[batch, rows[:, :, None], columns[:, None, :]].movedim(-1, 1).contiguous()


def random_flip(images: Tensor, *, generator: Generator) -> Tensor:
    """Mirror each image left to right with probability one half.

    Example:
        >>> images = torch.tensor([1, 2, 3]).expand(100, 1, 1, 3)
        >>> random_flip(images, generator=Generator()).flatten(1).unique(dim=0)
        tensor([[1, 2, 3],
                [3, 2, 1]])
    """
    flipped = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    return torch.where(flipped.to(images.device), images.flip(-1), images)


def shift_and_flip(images: Tensor, generator: Generator, *, shift: int, flip: bool) -> Tensor:
    """Apply the standard augmentation: `random_shift` and, if mirror images keep their class, `random_flip`."""
    images = random_shift(images, pixels=shift, generator=generator)
    return random_flip(images, generator=generator) if flip else images
