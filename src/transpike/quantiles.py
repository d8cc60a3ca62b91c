"""Percentiles of a stream of magnitudes in bounded memory, independent of the order and the batches."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from transpike.errors import DataError

__all__ = ["ChannelQuantiles", "Quantiles"]

_CHUNK = 1 << 20
_MANTISSA = 10
# Positive float32 numbers sort like their bits: the exponent and the first bits of the mantissa number the bin.
_SHIFT = 23 - _MANTISSA
_INFINITE = 255 << _MANTISSA
_BINS = 256 << _MANTISSA
_COARSE, _OCTAVES = 5, 12  # for channels: bins of 3 %, and their range below the largest magnitude


class Quantiles:
    """A histogram of ``|x|`` with bins of 0.1 % relative width. It gives any percentile to 0.1 %.

    It takes 2 MB for any number of values. Equal values give equal results to the bit, in any order and any division
    into batches. Magnitudes below 1.2e-41 count as zero. The maximum is exact.

    Args:
        name: a name of the values, for messages.

    Attributes:
        count: the number of values.
        maximum: the largest magnitude, 0 if there are no values.

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
        """Count the magnitudes of ``x``, a tensor of any shape, real dtype and device.

        Raises:
            DataError: A value is NaN or infinite, also in float32. Then nothing of ``x`` is counted.
        """
        counts, maximum = torch.zeros(_BINS, dtype=torch.int64, device=x.device), 0.0
        # In memory order, so that channels-last activations are not copied. The order does not matter.
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
        """Return the ``q``-th percentile of the magnitudes, as ``numpy.percentile`` defines it, to 0.1 %. 100 is exact.

        Raises:
            DataError: There are no values.
            ValueError: ``q`` is outside [0, 100].
        """
        if not 0 <= q <= 100:
            raise ValueError(f"a percentile lies between 0 and 100, not {q}")
        if not self.count:
            raise DataError(f"{self.name}: no values were seen, so there is no percentile of them")
        position = q / 100 * (self.count - 1)
        rank = min(math.floor(position), self.count - 1)
        below, above = self._ordered(rank), self._ordered(min(rank + 1, self.count - 1))
        return below + (above - below) * (position - rank)

    def histogram(self) -> tuple[Tensor, Tensor]:
        """Return magnitudes [bins], rising, and the number of values in each bin."""
        bins = self._counts.nonzero().flatten()
        edges = (bins.to(torch.int32) << _SHIFT).view(torch.float32)
        return torch.where(bins == 0, 0, edges * (1 + 2.0 ** -(_MANTISSA + 1))), self._counts[bins]

    def share_above(self, value: float) -> float:
        """Return the share of the magnitudes above ``value``, interpolated inside its bin. 0 if there are no values."""
        if not self.count or value >= self.maximum:
            return 0.0
        if value < 0:
            return 1.0
        index = int(torch.tensor(value, dtype=torch.float32).view(torch.int32)) >> _SHIFT
        low, high = self._edges(index)
        split = index and high > max(low, value)  # a maximum on the edge of its bin leaves the bin no width
        inside = int(self._counts[index]) * (high - value) / (high - low) if split else 0.0
        return (int(self._counts[index + 1 :].sum()) + inside) / self.count

    def _ordered(self, rank: int) -> float:
        """Return the value with ``rank`` values before it, counted from 0."""
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
    """Whether the elements fill their memory without gaps or overlaps, in any order of dimensions."""
    return x.permute(sorted(range(x.ndim), key=x.stride, reverse=True)).is_contiguous()


class ChannelQuantiles:
    """Upper percentiles of ``|x|`` for each of many channels, to 3 %, over 12 octaves below the largest magnitude.

    It takes 3 KB for each channel. Equal values give equal results to the bit, in any order and any division into
    batches. Smaller magnitudes count as zero. The maxima are exact.

    Attributes:
        count: the number of values of each channel.
        maximum: the largest magnitude of each channel, [channels].
        excited: the number of samples in which each channel has a value that is not 0, [channels].

    Example:
        >>> seen = ChannelQuantiles(2)
        >>> seen.update(torch.tensor([[1.0, -8.0], [0.5, 4.0]]), axis=1)
        >>> seen.maximum, seen.quantile(100)
        (tensor([1., 8.]), tensor([1., 8.]))
    """

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.maximum = torch.zeros(channels)
        self.excited = torch.zeros(channels, dtype=torch.int64)
        self._top = 0  # the bin of the largest magnitude; rows count downwards from it
        self._counts = torch.zeros(channels, _OCTAVES << _COARSE, dtype=torch.int64)

    @torch.no_grad()
    def update(self, x: Tensor, *, axis: int) -> None:
        """Count the magnitudes of ``x`` [samples, \\*], finite values whose ``axis`` counts channels."""
        channels, width = self._counts.shape
        values = x.detach().movedim(axis, -1).reshape(-1, channels).to(torch.float32).abs()
        if not len(values):
            return
        self.excited += (values.view(len(x), -1, channels).amax(1) > 0).sum(0).cpu()
        peaks = values.amax(0)
        self.maximum = torch.maximum(self.maximum, peaks.cpu())
        if (higher := _coarse(peaks.max()).item() - self._top) > 0:
            moved = torch.zeros_like(self._counts)
            moved[:, higher:] = self._counts[:, : max(width - higher, 0)]
            moved[:, -1] += self._counts[:, max(width - higher, 0) :].sum(1)
            self._counts, self._top = moved, self._top + int(higher)
        starts = torch.arange(channels, device=x.device) * width
        for part in values.split(max(1, _CHUNK // channels)):
            bins = (self._top - _coarse(part)).clamp_(max=width - 1) + starts
            self._counts += torch.bincount(bins.flatten(), minlength=channels * width).view_as(self._counts).cpu()
        self.count += len(values)

    def quantile(self, q: float) -> Tensor:
        """Return the ``q``-th percentile of each channel's magnitudes, [channels]: the upper edge of its bin."""
        above = math.floor((1 - q / 100) * max(self.count - 1, 0))
        bins = (self._counts.cumsum(1) <= above).sum(1)
        return torch.minimum(self._edges()[bins.clamp(max=self._counts.shape[1] - 1)], self.maximum)

    def informative(self) -> Tensor:
        """Return how many values say how large each channel becomes, [channels]: those that are not 0.

        Of a channel that is mostly 0, only one a sample counts: what excites it does so at many places at once.
        """
        active = self._counts[:, :-1].sum(1)
        return torch.where(2 * active < self.count, self.excited, active)

    def histogram(self) -> tuple[Tensor, Tensor]:
        """Return magnitudes [bins], falling, and the number of values of each channel in them, [channels, bins]."""
        return self._edges() * 2 ** (-0.5 / (1 << _COARSE)), self._counts

    def share_above(self, values: Tensor) -> float:
        """Return the share of all magnitudes above their channel's entry of ``values`` [channels], to a bin's width."""
        above = self._counts * (self._edges() > values.to(torch.float32)[:, None])
        return float(above[self.maximum > values].sum()) / max(self.count * len(values), 1)

    def _edges(self) -> Tensor:
        """Return the upper edge of each bin. The last bin holds all that counts as zero."""
        bins = self._top + 1 - torch.arange(self._counts.shape[1], dtype=torch.int32)
        edges = (bins.clamp(min=0) << (23 - _COARSE)).view(torch.float32)
        edges[-1] = 0
        return edges


def _coarse(magnitude: Tensor) -> Tensor:
    """Return the number of a magnitude's bin: its exponent and the first bits of its mantissa."""
    return magnitude.view(torch.int32).long() >> (23 - _COARSE)
