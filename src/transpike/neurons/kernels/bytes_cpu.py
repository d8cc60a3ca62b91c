"""Multiplies whole digits with weights on a CPU, as products of bytes.

A row of weights is written as ``scale * (256 * high + low)`` with bytes ``high`` and ``low``. The sums of products of
bytes are whole numbers, so they do not depend on the order of the terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from transpike.neurons.kernels.threads import compiled, spread

__all__ = ["Weights", "linear"]

_LARGEST = 127 * 256  # the largest weight in units of its row's scale, so that `high` is at most 127
_ROWS = 512  # rows of digits at a time, so that their sums stay in the second-level cache


@dataclass(frozen=True)
class Weights:
    """Weights [N, K] with 16 bits each.

    Attributes:
        parts: bytes [K, 2N]: ``high`` of all outputs, then ``low`` of all outputs.
        scale: the scale of each row, [N].
    """

    parts: Tensor
    scale: Tensor

    @classmethod
    def of(cls, weight: Tensor) -> Weights:
        """Round float32 ``weight`` [N, K]. Each error is at most 1/65,000 of the largest weight in the row."""
        scale = weight.abs().amax(1).clamp_min(torch.finfo(weight.dtype).tiny * _LARGEST) / _LARGEST
        whole = (weight / scale.unsqueeze(1)).round_()
        high = ((whole + 128) / 256).floor_()
        return cls(torch.cat([high, whole - 256 * high]).to(torch.int8).t(), scale)


def linear(digits: Tensor, weights: Weights, bias: Tensor | None) -> Tensor:
    """Return ``torch.nn.functional.linear`` for int8 digits [M, K], as float32 [M, N]."""
    scale = weights.scale
    bias = torch.zeros_like(scale) if bias is None else bias
    result = scale.new_empty(len(digits), len(scale))
    for first in range(0, len(digits), _ROWS):
        sums = torch._int_mm(digits[first : first + _ROWS], weights.parts)
        rows = result[first : first + _ROWS]
        arguments: tuple[Any, ...] = (sums.numpy(), scale.numpy(), bias.numpy(), rows.numpy())
        spread(_joined, arguments, items=len(rows), cost=3 * len(scale), align=1)
    return result


@compiled
def _joined(sums, scale, bias, result, first, last):  # type: ignore[no-untyped-def]
    outputs = result.shape[1]
    for m in range(first, last):
        high, low, row = sums[m, :outputs], sums[m, outputs:], result[m]
        for n in range(outputs):
            row[n] = (np.float32(high[n]) * np.float32(256) + np.float32(low[n])) * scale[n] + bias[n]
