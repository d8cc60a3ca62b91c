"""Passes over a loader that are exactly repeatable, and shared among processes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset

__all__ = ["Passes", "seed_pass", "share", "total"]


def seed_pass(*numbers: int) -> None:
    """Set the random states of Python, NumPy and torch from a few numbers, such as a seed and an epoch."""
    state = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    random.seed(state)
    np.random.seed(state)
    torch.manual_seed(state)


class Passes:
    """A loader whose random states are set from numbers before every batch and the step that trains on it.

    So an epoch is the same whether the run reached it directly or resumed within it, and no random state has to be
    stored. The first states are set when the first batch is requested, not when the iteration starts, because Lightning
    starts it before it knows the epoch.

    Args:
        loader: yields batches. Its sampler receives the epoch if it has `set_epoch`. A `DataLoader` with its own
            generator keeps that generator's order, which cannot be repeated after a restart.
        seed: the run's seed.
        epoch: returns the number of the starting pass.
        done: returns how many batches of this pass are already trained. They are fetched and skipped.
        rank: this process's number. The processes draw the same order and differ after the first batch.
    """

    def __init__(
        self,
        loader: Iterable[Any],
        *,
        seed: int,
        epoch: Callable[[], int],
        done: Callable[[], int] = lambda: 0,
        rank: int = 0,
    ) -> None:
        self.loader, self.seed, self.epoch, self.done, self.rank = loader, seed, epoch, done, rank

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        epoch, done = self.epoch(), self.done()
        seed_pass(self.seed, epoch)
        if _shares_itself(self.loader):
            self.loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        for index, batch in enumerate(self.loader):
            if index == 0:
                seed_pass(self.seed, epoch, self.rank)
            if index >= done:
                yield batch
            # The next batch starts from the same states, whatever the step drew, and even without a step.
            seed_pass(self.seed, epoch, self.rank, index + 1)


class _Every:
    """Every world-th of some batches, starting with batch `rank`. If `even`, each rank gets the same number."""

    def __init__(self, batches: Iterable[Any], rank: int, world: int, *, even: bool) -> None:
        self.batches, self.rank, self.world, self.even = batches, rank, world, even

    def __len__(self) -> int:
        count = len(self.batches)  # type: ignore[arg-type]
        return count // self.world if self.even else len(range(self.rank, count, self.world))

    def __iter__(self) -> Iterator[Any]:
        stop = len(self) * self.world if self.even else None
        return islice(self.batches, self.rank, stop, self.world)


class _Once:
    """The indices of torch's sampler without those that it repeats at the end to make all shares equal."""

    def __init__(self, sampler: DistributedSampler[Any]) -> None:
        self.sampler = sampler

    def __len__(self) -> int:
        own = range(self.sampler.rank, len(self.sampler.dataset), self.sampler.num_replicas)  # type: ignore[arg-type]
        return min(len(own), len(self.sampler))

    def __iter__(self) -> Iterator[int]:
        return islice(self.sampler, len(self))


def share(loader: Iterable[Any], rank: int, world: int, *, even: bool = False) -> Iterable[Any]:
    """Return one process's share of a loader: every world-th batch, starting with batch `rank`.

    So the batch size is that of one process, and no sample counts twice. A `DataLoader` loads only its share. A loader
    whose sampler has `set_epoch` (torch's `DistributedSampler`, ours) already shares and stays unchanged. torch's
    sampler repeats samples to make all shares equally long. Unless `even`, these are left out.

    Args:
        loader: yields batches. If `even`, it must have a length.
        rank: this process's number.
        world: the number of processes.
        even: leave out the last batches if they are fewer than the processes, so that each has as many. Training needs
            this.

    Example:
        >>> loader = DataLoader([10, 11, 12, 13, 14], batch_size=2)
        >>> [batch.tolist() for batch in share(loader, 0, 2)], [batch.tolist() for batch in share(loader, 1, 2)]
        ([[10, 11], [14]], [[12, 13]])
    """
    if _shares_itself(loader):
        sampler = loader.sampler  # type: ignore[attr-defined]
        if even or not (isinstance(loader, DataLoader) and isinstance(sampler, DistributedSampler)):
            return loader
        return _reloaded(loader, BatchSampler(_Once(sampler), loader.batch_size or 1, loader.drop_last))
    if not isinstance(loader, DataLoader):
        return _Every(loader, rank, world, even=even)
    if world == 1:
        return loader
    if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        return _Every(loader, rank, world, even=even)
    return _reloaded(loader, _Every(loader.batch_sampler, rank, world, even=even))


def _reloaded(loader: DataLoader[Any], batches: Iterable[Any]) -> DataLoader[Any]:
    """Return a loader that differs from another only in its batches' indices."""
    return DataLoader(
        loader.dataset,
        batch_sampler=batches,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        persistent_workers=loader.persistent_workers,
    )


def total(value: Tensor) -> Tensor:
    """Return a tensor summed over all processes, if there are several. All processes must call it equally often.

    Example:
        >>> total(torch.tensor([1.0, 2.0]))
        tensor([1., 2.])
    """
    if not torch.distributed.is_initialized():
        return value
    place = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    summed = value.to(place, copy=True)
    torch.distributed.all_reduce(summed)
    return summed.to(value.device)


def _shares_itself(loader: Iterable[Any]) -> bool:
    return hasattr(getattr(loader, "sampler", None), "set_epoch")
