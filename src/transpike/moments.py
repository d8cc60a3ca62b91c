"""Mean and variance of a stream, for each of many channels."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Moments"]


class Moments:
    """Mean and variance of any number of values of each channel, by Chan's pairwise update.

    Attributes:
        count: the number of values of each channel.
        mean: [channels], float64.

    Example:
        >>> seen = Moments(2)
        >>> for batch in torch.tensor([[1.0, 0.0], [3.0, 0.0], [5.0, 6.0]]).split(2):
        ...     seen.update(batch, axis=1)
        >>> seen.mean, seen.variance
        (tensor([3., 2.], dtype=torch.float64), tensor([2.6667, 8.0000], dtype=torch.float64))
    """

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.mean = torch.zeros(channels, dtype=torch.float64)
        self._squares = torch.zeros(channels, dtype=torch.float64)

    @torch.no_grad()
    def update(self, x: Tensor, *, axis: int | None) -> None:
        """Add the values of ``x``, whose ``axis`` counts channels. None if there is only one channel."""
        values = x.detach().reshape(-1, 1) if axis is None else x.detach().movedim(axis, -1).reshape(-1, len(self.mean))
        if not len(values):
            return
        variance, mean = torch.var_mean(values, 0, correction=0)
        count, apart = len(values), mean.double().cpu() - self.mean
        whole = self.count + count
        self._squares += variance.double().cpu() * count + apart.square() * (self.count * count / whole)
        self.mean += apart * (count / whole)
        self.count = whole

    @property
    def variance(self) -> Tensor:
        """The mean squared distance from the mean, [channels]."""
        return self._squares / max(self.count, 1)

    def joined(self) -> tuple[float, float]:
        """Return mean and variance of all values together."""
        mean = self.mean.mean()
        return float(mean), float((self.variance + (self.mean - mean).square()).mean())
