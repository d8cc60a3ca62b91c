"""Counts of operations, and the energy of each operation in a technology.

Figures for 45 nm: M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014,
doi:10.1109/ISSCC.2014.6757323. For 7 nm: N. P. Jouppi et al., "Ten lessons from three generations shaped Google's
TPUv4i", ISCA 2021, doi:10.1109/ISCA52012.2021.00010, Table 2. Both give 32-bit floating-point additions and
multiplications, 32-bit integer additions, and 64-bit accesses to SRAM by its size. Neither gives shifts. A product with
a power of two adds to a number's exponent, so a shift costs an integer addition here.

Memory traffic is left out by default. With it, the figures compare arithmetic with memory of one size. They still do
not compare chips, because they leave out the transport of spikes and the control.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

from transpike.checks import choice

__all__ = [
    "ACCUMULATE",
    "MEMORIES",
    "MULTIPLICATION",
    "MULTIPLY_ACCUMULATE",
    "SHIFT",
    "TECHNOLOGIES",
    "Memory",
    "Node",
    "Operations",
    "Technology",
    "amplification",
]

Node = Literal["45nm", "7nm"]
Memory = Literal["none", "8KB", "32KB", "1MB"]
MEMORIES: tuple[Memory, ...] = ("none", "8KB", "32KB", "1MB")


@dataclass(frozen=True)
class Technology:
    """The energy of each operation, in joules, for numbers of 32 bits.

    Attributes:
        name: the name of the technology, and of the memory if its traffic counts.
        add: a floating-point addition, or a comparison.
        multiply: a floating-point multiplication.
        shift: an integer addition.
        access: reading or writing a number in memory. 0 if memory is left out.
    """

    name: str
    add: float
    multiply: float
    shift: float
    access: float = 0.0

    @classmethod
    def of(cls, node: Node = "45nm", memory: Memory = "none") -> Technology:
        """Return a technology by name, without memory, or with weights and states in an SRAM of this size.

        Raises:
            ConfigError: The name or the size is unknown.

        Example:
            >>> Technology.of("7nm").add, Technology.of("45nm", "32KB").access
            (3.8e-13, 1e-11)
        """
        choice("technology", node, TECHNOLOGIES)
        technology = TECHNOLOGIES[node]
        if choice("memory", memory, MEMORIES) == "none":
            return technology
        # A number is half of the 64 bits of an access.
        return replace(technology, name=f"{technology.name}, SRAM of {memory}", access=_SRAM[node][memory] / 2)


TECHNOLOGIES: dict[Node, Technology] = {
    "45nm": Technology("45 nm", add=0.9e-12, multiply=3.7e-12, shift=0.1e-12),
    "7nm": Technology("7 nm", add=0.38e-12, multiply=1.31e-12, shift=0.03e-12),
}
_SRAM: dict[Node, dict[Memory, float]] = {
    "45nm": {"8KB": 10e-12, "32KB": 20e-12, "1MB": 100e-12},
    "7nm": {"8KB": 7.5e-12, "32KB": 8.5e-12, "1MB": 14e-12},
}

ACCUMULATE = TECHNOLOGIES["45nm"].add
MULTIPLICATION = TECHNOLOGIES["45nm"].multiply
MULTIPLY_ACCUMULATE = MULTIPLICATION + ACCUMULATE
SHIFT = TECHNOLOGIES["45nm"].shift


@dataclass(frozen=True, kw_only=True)
class Operations:
    """Counts of operations. Counts add up with ``+`` and scale with ``*``.

    Args:
        macs: dense multiply-accumulates of an ANN, or of a layer with analog input.
        accumulates: synaptic additions, one for each spike and target.
        shifts: synaptic shifts, one for each spike and target if the spike's magnitude is 2, 4, 8 ...
        multiplications: synaptic multiplications, likewise for other magnitudes above 1.
        products: multi-bit operations of products of two trains: one for each spike and number of the other operand.
        function_additions: additions and comparisons that evaluate the neurons' functions.
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
        """Synaptic operations: one for each spike and target, for any magnitude of the spike."""
        return self.accumulates

    @property
    def accesses(self) -> float:
        """The number of reads from and writes to memory.

        A synaptic operation reads its weight, and reads and writes the accumulated sum of the target neuron. An
        operation of a product of trains does the same. A multiply-accumulate of a dense layer reads a weight and an
        activation; its sum stays in a register. Each addition of a neuron's own update reads and writes a number of its
        state.
        """
        return 3 * (self.accumulates + self.products) + 2 * (self.macs + self.neuron_accumulates)

    def energy(self, technology: Technology = TECHNOLOGIES["45nm"]) -> dict[str, float]:
        """Return the energy of each part in joules.

        The parts are the synaptic operations, the evaluations of functions, the neurons' other updates, and memory if
        the technology counts it.

        A product's multi-bit operation counts as a multiply-accumulate. That is an upper bound: where the spike is a
        power of two, the product of its value with the other number is a shift.

        Example:
            >>> {part: joules for part, joules in Operations(accumulates=1).energy().items() if joules}
            {'accumulates': 9e-13}
            >>> sum(Operations(macs=1).energy(Technology.of("7nm", "8KB")).values())
            9.19e-12
        """
        add, multiply, shift = technology.add, technology.multiply, technology.shift
        memory = {"memory": self.accesses * technology.access} if technology.access else {}
        return {
            "macs": self.macs * (multiply + add),
            "accumulates": self.accumulates * add,
            "shifts": self.shifts * shift,
            "multiplications": self.multiplications * multiply,
            "products": self.products * (multiply + add),
            "functions": self.function_additions * add + self.function_multiplications * multiply,
            "neurons": self.neuron_accumulates * add
            + self.neuron_shifts * shift
            + self.neuron_multiplications * multiply,
        } | memory

    def joules_in(self, technology: Technology) -> float:
        """Return the energy of all parts in a technology."""
        return sum(self.energy(technology).values())

    @property
    def joules(self) -> float:
        """The energy of all parts in 45 nm, without memory."""
        return sum(self.energy().values())


def amplification(factor: float) -> Operations:
    """Return the cost of one product with ``factor``: nothing for 1, and shifts for one or a sum of two powers of two.

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
