"""Operations on a layer's current inside the neuron's kernel: a factor, a bias, a second current.

A convolution's bias and a skip connection are such operations. In the kernel they need no separate pass over memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transpike.neurons.kernels.track_reference import Feed, Pattern

__all__ = ["Inflow", "pattern"]


@dataclass(frozen=True)
class Inflow:
    """An operation on a current: ``z * scale + shift * shares[t] + other * factor``. Parts that are None are left out.

    Every product and every sum is rounded separately, to float32 (float64 for float64).

    Args:
        scale: a factor that broadcasts against one sample.
        shift: a constant that broadcasts against one sample.
        shares: factors of ``shift``, one for each step. By default each is 1.
        other: a second current ``[T, N, *]``.
        factor: the factor of ``other``, which broadcasts against one sample.

    Example:
        >>> inflow = Inflow(shift=torch.tensor([1.0]), shares=(0.5, 0.0), other=torch.ones(2, 1, 1))
        >>> inflow.apply(torch.zeros(2, 1, 1)).flatten().tolist()
        [1.5, 1.0]
    """

    scale: Tensor | None = None
    shift: Tensor | None = None
    shares: Sequence[float] = ()
    other: Tensor | None = None
    factor: Tensor | None = None

    def apply(self, z: Tensor) -> Tensor:
        """Return the resulting current ``[T, N, *]``, computed by PyTorch operations."""
        z = z if z.dtype == torch.float64 else z.float()
        if self.scale is not None:
            z = z * self.scale.to(z.dtype)
        if self.shift is not None:
            shift = self.shift.to(z.dtype)
            if self.shares:
                shares = torch.tensor(self.shares, dtype=z.dtype, device=z.device)
                shift = shift * shares.view(len(z), *(1,) * (z.ndim - 1))
            z = z + shift
        if self.other is not None:
            other = self.other.to(z.dtype)
            z = z + (other if self.factor is None else other * self.factor.to(z.dtype))
        return z

    def feed(self, source: Tensor) -> Feed | None:
        """Return the same for a kernel that reads ``source`` [T, N, \\*], dense. None if no kernel can do it.

        A kernel can do it if each factor varies along one axis, and the second current has the memory layout of the
        first.
        """
        other, factor = self.other, self.factor
        if other is not None:
            if other.shape != source.shape or other.stride() != source.stride() or other.dtype != source.dtype:
                return None
            width = source[0].numel()
            other = other.as_strided((len(other), width), (width, 1))
            factor = source.new_ones(()) if factor is None else factor
        patterns = []
        for values in (self.scale, self.shift, factor):
            found = None if values is None else pattern(values, source)
            if found is None and values is not None:
                return None
            patterns.append(found)
        scale, shift, by = patterns
        return Feed(scale, shift, self._shares(len(source)), other, by)

    def _shares(self, steps: int) -> tuple[float, ...]:
        return tuple(self.shares) or (1.0,) * steps


def pattern(values: Tensor, source: Tensor) -> Pattern | None:
    """Return values that broadcast against one sample of ``source`` [T, N, \\*], by their place in memory.

    None if they vary along several axes.
    """
    dtype = torch.float64 if source.dtype == torch.float64 else torch.float32
    along = [axis for axis in range(-values.ndim, 0) if values.shape[axis] > 1]
    flat = values.detach().to(dtype).reshape(-1)
    if not along:
        return Pattern(flat, 1)
    if len(along) > 1 or math.prod(values.shape) != source.shape[along[0]]:
        return None
    return Pattern(flat.contiguous(), source.stride(along[0]))
