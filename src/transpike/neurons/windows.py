"""Tracks a maximum over windows on CUDA. The accumulated input of each neuron stays in registers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from transpike.neurons import tsa
from transpike.neurons.inflow import Inflow
from transpike.neurons.kernels.track_reference import Feed, Final
from transpike.neurons.tsa import Code, Piecewise, Tracked

__all__ = ["Window", "track_windows"]

Pair = tuple[int, int]
MOST = 16  # the largest number of inputs of a window that fit in a thread's registers


@dataclass(frozen=True)
class Window:
    """The windows of `torch.nn.functional.max_pool2d`. Each pair is (height, width)."""

    size: Pair
    stride: Pair
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    ceil_mode: bool = False

    def pooled(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape [C, H, W] after pooling maps of the shape [C, H, W]."""
        maps, how = torch.empty(1, *shape, device="meta"), (self.stride, self.padding, self.dilation, self.ceil_mode)
        return tuple(functional.max_pool2d(maps, self.size, *how)[0].shape)

    def places(self, shape: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        """Return the offset in memory of each input of each output, [inputs, outputs], in units of values.

        The outputs have the order in which they lie in memory. Inputs in the padding are -1.

        Args:
            shape: the shape [C, H, W] of the maps.
            stride: the strides of these axes.

        Example:
            >>> Window((2, 2), (2, 2)).places((1, 2, 4), (8, 4, 1)).T.tolist()
            [[0, 1, 4, 5], [2, 3, 6, 7]]
        """
        out = self.pooled(shape)
        at = torch.arange(shape[0] * shape[1] * shape[2]).as_strided(shape, stride)
        spans = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.size, strict=True)]
        above = [
            max(0, (n - 1) * s + span - p - m)
            for n, s, span, p, m in zip(out[1:], self.stride, spans, self.padding, shape[1:], strict=True)
        ]
        at = functional.pad(at, (self.padding[1], above[1], self.padding[0], above[0]), value=-1)
        for axis in (0, 1):
            at = at.unfold(axis + 1, spans[axis], self.stride[axis])
        at = at[:, : out[1], : out[2], :: self.dilation[0], :: self.dilation[1]].flatten(3)
        order = sorted(range(3), key=lambda axis: stride[axis], reverse=True)
        return at.permute(*order, 3).reshape(-1, at.shape[3]).T.contiguous()


@cache  # without a limit: a recorded CUDA graph keeps reading them
def _places(window: Window, shape: tuple[int, ...], stride: tuple[int, ...], device: torch.device) -> Tensor:
    return window.places(shape, stride).to(device, torch.int32)


@torch.no_grad()
def track_windows(
    z: Tensor,
    window: Window,
    *,
    code: Code,
    function: Piecewise,
    gain: float = 1.0,
    inflow: Inflow | None = None,
    final: bool = False,
) -> Tracked | None:
    """Track the maximum, over each window, of the accumulated currents [T, N, C, H, W].

    The result is exactly that of `transpike.neurons.tsa.track` for the accumulated input after PyTorch's pooling. It is
    None if no kernel can compute it: on devices other than CUDA, for more than 16 inputs in a window, and if a bias or
    a factor varies within a channel. The other arguments are those of `transpike.neurons.tsa.track`.
    """
    backend, source = tsa._prepare(z, rows=code.steps)
    shape, stride = tuple(source.shape[2:]), source.stride()[2:]
    whole = source.ndim == 5 and source.stride(1) == math.prod(shape)
    if not backend.__name__.endswith("track_gpu") or not whole or window.size[0] * window.size[1] > MOST:
        return None
    out = window.pooled(shape)
    order = sorted(range(3), key=lambda axis: stride[axis], reverse=True)
    maps = torch.empty(len(source[0]), *(out[axis] for axis in order), device="meta")
    like = maps.permute(0, *(1 + order.index(axis) for axis in range(3)))
    if (feed := _feed(inflow, source, like)) is None:
        return None
    spikes = _allocate(code.steps, like, source)
    ends = [_allocate(1, like, source, torch.float32) for _ in range(2)] if final else []
    if z.numel():
        nothing = source.new_empty(0)
        places = Final(*(tsa._flat(end)[0] for end in ends)) if final else Final(nothing, nothing)
        at, tables = _places(window, shape, stride, source.device), tsa._tables(code, function, None, gain)
        backend.track_windows(tsa._flat(source), tsa._flat(spikes), places, tables, at, feed=feed)
    return Tracked(spikes, *(end[0] for end in ends)) if final else Tracked(spikes)


def _feed(inflow: Inflow | None, source: Tensor, like: Tensor) -> Feed | None:
    """Return the kernel's operation on the currents, or None. An output has the channel of its inputs, so it finds the
    values of a channel by the place of the output."""
    if inflow is None:
        return Feed()
    constants = [values for values in (inflow.scale, inflow.shift, inflow.factor) if values is not None]
    if any(values.ndim != 3 or values.shape[1:] != (1, 1) for values in constants if values.numel() > 1):
        return None
    if (feed := inflow.feed(source)) is None:
        return None
    patterns = (feed.scale, feed.shift, feed.factor)
    scale, shift, factor = (p._replace(inner=like.stride(1)) if p and len(p.values) > 1 else p for p in patterns)
    return Feed(scale, shift, feed.shares, feed.other, factor)


def _allocate(rows: int, like: Tensor, source: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    shape, stride = (rows, *like.shape), (like.numel(), *like.stride())
    return torch.empty_strided(shape, stride, dtype=dtype or source.dtype, device=source.device)
