"""Images in memory, fetched and augmented in batches, and the order in which an epoch visits them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset, Sampler

from transpike.data.augment import Augment

__all__ = ["EpochSampler", "MemoryImages", "seed_of"]


class EpochSampler(Sampler[int]):
    """The order of an epoch: seeded, the same on every machine, split among distributed processes.

    It yields ``epoch * images + index``. So a data set knows from the item alone which epoch's augmentation an image
    gets. This does not depend on the process that fetches it, and works also if training resumes in the middle.

    In a plain loop each pass is the next epoch. Lightning calls :meth:`set_epoch` before each epoch. But if training
    resumes, worker processes may already have started to fetch. So also call it in ``train_dataloader``. Under
    ``torch.distributed`` each rank visits its own share, so Lightning's Trainer needs
    ``use_distributed_sampler=False``. Shuffled shares have equal lengths; the images left out of one epoch differ from
    those of the next. Unshuffled shares may differ by one image, and together visit each image exactly once.

    Args:
        images: The number of images.
        seed: Determines the order of every epoch.
        shuffle: Use a random order, for training. Otherwise the order is 0, 1, 2, ... in every epoch.

    Example:
        >>> sampler = EpochSampler(4, seed=0)
        >>> sorted(sampler), sorted(sampler)
        ([0, 1, 2, 3], [4, 5, 6, 7])
    """

    def __init__(self, images: int, *, seed: int = 0, shuffle: bool = True) -> None:
        self.images, self.seed, self.shuffle = images, seed, shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass this epoch (counted from 0)."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        rank, world = _place()
        if self.shuffle:
            generator = Generator().manual_seed(seed_of(self.seed, epoch))
            order = torch.randperm(self.images, generator=generator)[: self.images // world * world]
            return iter((epoch * self.images + order[rank::world]).tolist())
        return iter(range(rank, self.images, world))

    def __len__(self) -> int:
        rank, world = _place()
        return self.images // world if self.shuffle else len(range(rank, self.images, world))


class MemoryImages(Dataset[tuple[Tensor, Tensor]]):
    """uint8 images in memory, on any device, fetched in batches.

    Item ``epoch * len(self) + index`` is image ``index`` with that epoch's augmentation. A batch's augmentation depends
    only on ``seed`` and on the batch's items.

    Args:
        images: uint8 ``[M, C, H, W]``.
        labels: int64 ``[M]``, on the same device.
        mean: The mean of pixels between 0 and 1, for each channel.
        std: Their standard deviation, likewise.
        size: The side to which a fetched batch is resized. None leaves it unchanged.
        augment: A function from uint8 images and a CPU generator to uint8 images. None for evaluation.
        seed: Determines the augmentation.

    Example:
        >>> images = MemoryImages(torch.full((3, 1, 2, 2), 255, dtype=torch.uint8), torch.arange(3), (0.5,), (0.25,))
        >>> pixels, labels = images.__getitems__([2, 0])
        >>> pixels.shape, pixels.unique(), labels
        (torch.Size([2, 1, 2, 2]), tensor([2.]), tensor([2, 0]))
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        size: int | None = None,
        augment: Augment | None = None,
        seed: int = 0,
    ) -> None:
        self.images = images
        self.labels = labels
        self.scale = (1 / (255 * torch.tensor(std))).view(-1, 1, 1).to(images.device)
        self.offset = (torch.tensor(mean) / torch.tensor(std)).view(-1, 1, 1).to(images.device)
        self.size, self.augment, self.seed = size, augment, seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor]:
        images, labels = self.__getitems__([item])
        return images[0], labels[0]

    def __getitems__(self, items: Sequence[int]) -> tuple[Tensor, Tensor]:
        indices = torch.tensor(items, device=self.images.device) % len(self)
        images = self.images[indices]
        if self.augment is not None:
            images = self.augment(images, Generator().manual_seed(seed_of(self.seed, *items)))
        pixels = images.float().mul_(self.scale).sub_(self.offset)
        if self.size not in (None, pixels.shape[-1]):
            pixels = F.interpolate(pixels, size=(self.size, self.size), mode="bilinear", antialias=True)
        return pixels, self.labels[indices]


def seed_of(*numbers: int) -> int:
    """Return one well-mixed seed from several numbers. Any change of a number changes it."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _place() -> tuple[int, int]:
    """Return this process's rank and the number of processes."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
