"""How often each arithmetic operation happens, and the energy of it in 45 nm CMOS.

Figures: M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014,
doi:10.1109/ISSCC.2014.6757323: 32-bit floating-point addition 0.9 pJ and multiplication 3.7 pJ, 32-bit integer addition
0.1 pJ. His table has no shifts. A product with a power of two adds to a number's exponent, so a shift is charged as an
integer addition. Memory traffic is not in these figures: they compare arithmetic, not chips.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["ACCUMULATE", "MULTIPLICATION", "MULTIPLY_ACCUMULATE", "SHIFT", "Operations", "amplification"]


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
        products: multi-bit operations of products of two trains: one per spike and number of the other operand.
        function_additions: additions and comparisons of evaluating the neurons' functions.
        function_multiplications: multiplications, likewise.
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
    products: float = 0
    function_additions: float = 0
    function_multiplications: float = 0
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
        """Joules by part: each synaptic operation, evaluations of functions, the neurons' other updates.

        A product's multi-bit operation counts as a multiply-accumulate. That is an upper bound: where the spike is a
        power of two, the product of its value with the other number is a shift.
        """
        return {
            "macs": self.macs * MULTIPLY_ACCUMULATE,
            "accumulates": self.accumulates * ACCUMULATE,
            "shifts": self.shifts * SHIFT,
            "multiplications": self.multiplications * MULTIPLICATION,
            "products": self.products * MULTIPLY_ACCUMULATE,
            "functions": self.function_additions * ACCUMULATE + self.function_multiplications * MULTIPLICATION,
            "neurons": self.neuron_accumulates * ACCUMULATE
            + self.neuron_shifts * SHIFT
            + self.neuron_multiplications * MULTIPLICATION,
        }

    @property
    def joules(self) -> float:
        """The energy of all parts."""
        return sum(self.energy().values())


def amplification(factor: float) -> Operations:
    """One product by ``factor``: nothing for 1, shifts and an addition where it is one or the sum of two powers of two.

    Example:
        >>> work = amplification(1.5)
        >>> work.neuron_shifts, work.neuron_accumulates
        (1, 1)
    """
    numerator, denominator = factor.as_integer_ratio()
    terms = [bit for bit in range(numerator.bit_length()) if numerator >> bit & 1]
    if len(terms) > 2:
        return Operations(neuron_multiplications=1)
    shifts = sum(1 << bit != denominator for bit in terms)
    return Operations(neuron_shifts=shifts, neuron_accumulates=len(terms) - 1)
