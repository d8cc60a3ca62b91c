"""What a network computes, operation by operation, and the energy of it in 45 nm CMOS.

Figures: M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014,
doi:10.1109/ISSCC.2014.6757323: 32-bit floating-point addition 0.9 pJ and multiplication 3.7 pJ, 32-bit integer addition
0.1 pJ. His table has no shifts. A product with a power of two adds to a number's exponent, so a shift is charged as an
integer addition. Memory traffic is not in these figures: they compare arithmetic, not chips.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from transpike.neurons.tsa import Code

__all__ = [
    "ACCUMULATE",
    "MULTIPLICATION",
    "MULTIPLY_ACCUMULATE",
    "SHIFT",
    "Operations",
    "accumulator_operations",
    "encoder_operations",
    "neuron_operations",
    "payload_bits",
    "synaptic_operations",
]

ACCUMULATE = 0.9e-12  # joules, as all of these
MULTIPLICATION = 3.7e-12
MULTIPLY_ACCUMULATE = MULTIPLICATION + ACCUMULATE
SHIFT = 0.1e-12


@dataclass(frozen=True, kw_only=True)
class Operations:
    """How often each operation happens; counts add up with ``+`` and scale with ``*``.

    Args:
        macs: dense multiply-accumulates, of an ANN or of a layer fed with analog values.
        accumulates: synaptic additions, one per spike and target.
        shifts: synaptic shifts, one per spike and target where the spike's magnitude is 2, 4, 8 ...
        multiplications: synaptic multiplications, likewise for other magnitudes above 1.
        neuron_accumulates: additions and comparisons of the neurons' own updates.
        neuron_shifts: shifts of the neurons' own updates.
        neuron_multiplications: multiplications of the neurons' own updates.
        spikes: spikes sent.
        payload_bits: bits that the spikes carry beside their address.

    Example:
        >>> ann, snn = Operations(macs=1e6), Operations(accumulates=2e6, neuron_accumulates=1e4)
        >>> f"{snn.joules / ann.joules:.2f}"
        '0.39'
    """

    macs: float = 0
    accumulates: float = 0
    shifts: float = 0
    multiplications: float = 0
    neuron_accumulates: float = 0
    neuron_shifts: float = 0
    neuron_multiplications: float = 0
    spikes: float = 0
    payload_bits: float = 0

    def __add__(self, other: Operations) -> Operations:
        return Operations(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def __mul__(self, factor: float) -> Operations:
        return Operations(**{f.name: getattr(self, f.name) * factor for f in fields(self)})

    @property
    def synops(self) -> float:
        """Synaptic operations: one per spike and target, whatever the spike's magnitude."""
        return self.accumulates

    def energy(self) -> dict[str, float]:
        """Joules by part: what the neurons' own updates take is one part, each synaptic operation another."""
        return {
            "macs": self.macs * MULTIPLY_ACCUMULATE,
            "accumulates": self.accumulates * ACCUMULATE,
            "shifts": self.shifts * SHIFT,
            "multiplications": self.multiplications * MULTIPLICATION,
            "neurons": self.neuron_accumulates * ACCUMULATE
            + self.neuron_shifts * SHIFT
            + self.neuron_multiplications * MULTIPLICATION,
        }

    @property
    def joules(self) -> float:
        """The energy of all parts."""
        return sum(self.energy().values())


def payload_bits(code: Code) -> int:
    """Bits a spike carries beside its address: its sign, and which of the levels it is.

    Example:
        >>> payload_bits(Code(steps=8, beta=2.0)), payload_bits(Code(steps=8, beta=2.0, levels=(1, 2, 4, 8)))
        (1, 3)
    """
    return int(code.signed) + math.ceil(math.log2(len(code.levels)))


def synaptic_operations(counts: Mapping[int, float], *, code: Code, fan_out: float) -> Operations:
    """What spikes cause where they arrive: an addition each, and a shift or a multiplication above magnitude 1.

    Args:
        counts: how many spikes there are of each digit.
        code: tells the payload.
        fan_out: targets per spike, on average.

    Example:
        >>> synaptic_operations({-4: 1, 1: 2, 3: 1}, code=Code(steps=4, beta=2.0, levels=(1, 2, 3, 4)), fan_out=9)
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
        payload_bits=spikes * payload_bits(code),
    )


def accumulator_operations(neurons: float, *, code: Code) -> Operations:
    """The own updates of neurons that accumulate and never fire, such as a classifier's, over T steps.

    Each step amplifies the sum once and adds the bias.
    """
    return _amplification(code.beta) * (neurons * code.steps) + Operations(neuron_accumulates=neurons * code.steps)


def encoder_operations(neurons: float, *, code: Code, spikes: float) -> Operations:
    """The own updates of the input's encoder: a step amplifies and compares its membrane; a spike is subtracted."""
    comparisons = math.ceil(math.log2(len(code.levels) + 1))
    additions = neurons * code.steps * comparisons + spikes
    return _amplification(code.beta) * (neurons * code.steps) + Operations(neuron_accumulates=additions)


def neuron_operations(neurons: float, *, code: Code, spikes: float, inputs: float | None = None) -> Operations:
    """The own updates of tracking neurons over their T + Ts steps, whether or not they fire.

    Each step amplifies the two sums H and G; each input step adds the bias; each firing step subtracts G from H and
    compares the difference with the thresholds (a binary search); each spike is added to G.

    Args:
        neurons: how many neurons.
        code: steps, radix, silent steps and levels.
        spikes: how many spikes they send in all.
        inputs: how many inputs accumulate, where each neuron tracks the maximum of a window of them: each then keeps
            its own sum H, and is compared once a firing step. By default one a neuron.

    Example:
        >>> work = neuron_operations(1, code=Code(steps=8, beta=2.0), spikes=2)
        >>> work.neuron_shifts, work.neuron_accumulates, work.neuron_multiplications
        (18, 26, 0)
    """
    comparisons = math.ceil(math.log2(len(code.levels) + 1))
    further = max((inputs or neurons) - neurons, 0)
    additions = neurons * code.steps * (2 + comparisons) + spikes + 2 * further * code.steps
    amplified = (2 * neurons + further) * (code.steps + code.silent)
    return _amplification(code.beta) * amplified + Operations(neuron_accumulates=additions)


def _amplification(beta: float) -> Operations:
    """One product by beta: shifts and an addition if beta is one or the sum of two powers of two, such as 1.5."""
    numerator, denominator = beta.as_integer_ratio()
    terms = [bit for bit in range(numerator.bit_length()) if numerator >> bit & 1]
    if len(terms) > 2:
        return Operations(neuron_multiplications=1)
    shifts = sum(1 << bit != denominator for bit in terms)
    return Operations(neuron_shifts=shifts, neuron_accumulates=len(terms) - 1)
