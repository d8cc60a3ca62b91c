"""Passes over a loader that can be repeated exactly, and shared among processes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

__all__ = ["Passes", "seed_pass", "share"]


def seed_pass(*numbers: int) -> None:
    """Set the random states of Python, NumPy and torch from a few numbers, such as a seed and an epoch."""
    state = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    random.seed(state)
    np.random.seed(state)
    torch.manual_seed(state)


class Passes:
    """A loader whose every pass starts from random states set by (seed, epoch).

    An epoch is thereby the same whether the run came to it by itself or was resumed there, and no random state has to
    be stored. The states are set when the first batch is asked for, not when iteration is announced, since Lightning
    announces it before it knows the epoch.

    Args:
        loader: gives batches. Its sampler is told the epoch where it has `set_epoch`; a `DataLoader` with a generator
            of its own keeps that generator's order, which cannot be repeated after a restart.
        seed: the run's seed.
        epoch: tells the number of the pass that begins.
        rank: this process's number; the processes draw the same order and differ after the first batch.
    """

    def __init__(self, loader: Iterable[Any], *, seed: int, epoch: Callable[[], int], rank: int = 0) -> None:
        self.loader, self.seed, self.epoch, self.rank = loader, seed, epoch, rank

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        epoch = self.epoch()
        seed_pass(self.seed, epoch)
        if _shares_itself(self.loader):
            self.loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        for index, batch in enumerate(self.loader):
            if index == 0 and self.rank:
                seed_pass(self.seed, epoch, self.rank)
            yield batch


class _Indices:
    """Every world-th index of each batch of a batch sampler, beginning with index `rank`."""

    def __init__(self, batches: Iterable[list[int]], rank: int, world: int) -> None:
        self.batches, self.rank, self.world = batches, rank, world

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            mine = batch[self.rank :: self.world]
            if mine:
                yield mine


class _Slices:
    """Every world-th sample of each batch, for loaders that do not go by index."""

    def __init__(self, loader: Iterable[Any], rank: int, world: int) -> None:
        self.loader, self.rank, self.world = loader, rank, world

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        for batch in self.loader:
            yield tuple(part[self.rank :: self.world] for part in batch)


def share(loader: Iterable[Any], rank: int, world: int) -> Iterable[Any]:
    """One process's share of a loader: of each batch, every world-th sample, beginning with sample `rank`.

    The batches of all processes, taken together, are those of a single one, so that results do not depend on how many
    there are and no sample counts twice. A `DataLoader` loads its share only; of other loaders the batches are cut. One
    whose sampler has `set_epoch` (torch's `DistributedSampler`, ours) shares by itself and is left as it is: there the
    batch size is that of one process.

    >>> loader = DataLoader([10, 11, 12, 13, 14], batch_size=3)
    >>> [batch.tolist() for batch in share(loader, 1, 2)]
    [[11], [14]]
    """
    if not isinstance(loader, DataLoader):
        return _Slices(loader, rank, world)
    if world == 1 or _shares_itself(loader):
        return loader
    if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        return _Slices(loader, rank, world)
    return DataLoader(
        loader.dataset,
        batch_sampler=_Indices(loader.batch_sampler, rank, world),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        persistent_workers=loader.persistent_workers,
    )


def _shares_itself(loader: Iterable[Any]) -> bool:
    return hasattr(getattr(loader, "sampler", None), "set_epoch")
