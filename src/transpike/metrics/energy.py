"""The operations of a converted network where spikes arrive, and the energy of each operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transpike.coding.operations import ACCUMULATE, MULTIPLICATION, MULTIPLY_ACCUMULATE, SHIFT, Operations
from transpike.coding.scheme import payload_bits

__all__ = [
    "ACCUMULATE",
    "MULTIPLICATION",
    "MULTIPLY_ACCUMULATE",
    "SHIFT",
    "Operations",
    "synaptic_operations",
]


def synaptic_operations(counts: Mapping[int, float], *, digits: Sequence[int], fan_out: float) -> Operations:
    """Return the operations that spikes cause where they arrive.

    Each is an addition, and above magnitude 1 also a shift or a multiplication.

    Args:
        counts: the number of spikes of each digit.
        digits: all values that a spike may have. They determine the payload.
        fan_out: targets of a spike, on average.

    Example:
        >>> synaptic_operations({-4: 1, 1: 2, 3: 1}, digits=range(-4, 5), fan_out=9)
        ... # doctest: +ELLIPSIS
        Operations(macs=0, accumulates=36, shifts=9, multiplications=9, ...spikes=4, payload_bits=12)
    """
    magnitudes = [(abs(digit), count) for digit, count in counts.items() if digit]
    spikes = sum(count for _, count in magnitudes)
    shifted = sum(count for magnitude, count in magnitudes if magnitude > 1 and magnitude.bit_count() == 1)
    multiplied = sum(count for magnitude, count in magnitudes if magnitude.bit_count() > 1)
    return Operations(
        accumulates=spikes * fan_out,
        shifts=shifted * fan_out,
        multiplications=multiplied * fan_out,
        spikes=spikes,
        payload_bits=spikes * payload_bits(digits),
    )
