"""Percentiles of a stream of magnitudes in bounded memory, independent of the order and the batches it comes in."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from transpike.errors import DataError

__all__ = ["Quantiles"]

_CHUNK = 1 << 20
_MANTISSA = 10
# A positive float32 sorts as its bits do: the exponent and the first bits of the mantissa number its bin.
_SHIFT = 23 - _MANTISSA
_INFINITE = 255 << _MANTISSA
_BINS = 256 << _MANTISSA


class Quantiles:
    """A histogram of ``|x|`` whose bins are 0.1 % wide, whatever the magnitude: any percentile, to 0.1 %.

    It takes 2 MB however much it has seen, and equal values give equal results to the bit, in any order and any
    division into batches. Magnitudes below 1.2e-41 count as zero; the maximum is exact.

    Args:
        name: what the values are, for messages.

    Attributes:
        count: how many values were seen.
        maximum: the largest magnitude, 0 if none was seen.

    Example:
        >>> seen = Quantiles()
        >>> for batch in torch.arange(-1000.0, 1.0).split(300):
        ...     seen.update(batch)
        >>> seen.count, seen.quantile(100), round(seen.quantile(50))
        (1001, 1000.0, 500)
    """

    def __init__(self, name: str = "values") -> None:
        self.name = name
        self.count = 0
        self.maximum = 0.0
        self._counts = torch.zeros(_BINS, dtype=torch.int64)

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Count the magnitudes of ``x``, a tensor of any shape, real data type and device.

        Raises:
            DataError: if a value is NaN or infinite, also in float32; nothing of ``x`` is counted then.
        """
        counts, maximum = torch.zeros(_BINS, dtype=torch.int64, device=x.device), 0.0
        # Memory order, so that channels-last activations are not copied; the order does not matter.
        values = x.detach().as_strided((x.numel(),), (1,)) if _is_dense(x) else x.detach().flatten()
        for start in range(0, len(values), _CHUNK):
            magnitude = values[start : start + _CHUNK].to(torch.float32).abs()
            counts += torch.bincount(magnitude.view(torch.int32) >> _SHIFT, minlength=_BINS)
            maximum = max(maximum, float(magnitude.max()))
        counts = counts.cpu()
        if broken := int(counts[_INFINITE:].sum()):
            raise DataError(f"{self.name}: {broken} of {x.numel()} values are NaN or infinite; check data and weights")
        self._counts += counts
        self.count += x.numel()
        self.maximum = max(self.maximum, maximum)

    def quantile(self, q: float) -> float:
        """The ``q``-th percentile of the magnitudes, as ``numpy.percentile`` defines it, to 0.1 %; 100 is exact.

        Raises:
            DataError: if nothing was seen.
            ValueError: if ``q`` is outside [0, 100].
        """
        if not 0 <= q <= 100:
            raise ValueError(f"a percentile lies between 0 and 100, not {q}")
        if not self.count:
            raise DataError(f"{self.name}: no values were seen, so there is no percentile of them")
        position = q / 100 * (self.count - 1)
        rank = min(math.floor(position), self.count - 1)
        below, above = self._ordered(rank), self._ordered(min(rank + 1, self.count - 1))
        return below + (above - below) * (position - rank)

    def share_above(self, value: float) -> float:
        """The share of the magnitudes that exceed ``value``, interpolated inside its bin; 0 if nothing was seen."""
        if not self.count or value >= self.maximum:
            return 0.0
        if value < 0:
            return 1.0
        index = int(torch.tensor(value, dtype=torch.float32).view(torch.int32)) >> _SHIFT
        low, high = self._edges(index)
        split = index and high > max(low, value)  # a maximum on its bin's edge leaves the bin no width
        inside = int(self._counts[index]) * (high - value) / (high - low) if split else 0.0
        return (int(self._counts[index + 1 :].sum()) + inside) / self.count

    def _ordered(self, rank: int) -> float:
        """The value with ``rank`` values before it, counted from 0."""
        if rank == self.count - 1:
            return self.maximum
        cumulated = self._counts.cumsum(0)
        index = int(torch.searchsorted(cumulated, rank, right=True))
        if index == 0:
            return 0.0
        inside, before = int(self._counts[index]), int(cumulated[index]) - int(self._counts[index])
        low, high = self._edges(index)
        return low + (high - low) * (rank - before + 0.5) / inside

    def _edges(self, index: int) -> tuple[float, float]:
        low, high = (torch.tensor([index, index + 1], dtype=torch.int32) << _SHIFT).view(torch.float32).tolist()
        return low, min(high, self.maximum)


def _is_dense(x: Tensor) -> bool:
    """Whether the elements fill their memory without gaps or overlaps, in whatever order of dimensions."""
    return x.permute(sorted(range(x.ndim), key=x.stride, reverse=True)).is_contiguous()
