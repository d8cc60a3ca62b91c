"""The neurons of every scheme, neuron by neuron in plain Python: what the library's are compared with.

Nothing here imports the library. Values are chosen by the tests such that float32 holds every sum exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Function = Callable[[float], float]


def nearest(value: float, digits: Sequence[int]) -> int:
    """The digit nearest to ``value``; of two equally near ones the larger in magnitude."""
    return min(digits, key=lambda digit: (abs(value - digit), -abs(digit)))


def below(value: float, digits: Sequence[int]) -> int:
    """The largest digit that does not exceed ``value``; 0 below all."""
    return max((digit for digit in digits if digit <= value), default=0)


def css(currents: Sequence[float], function: Function, *, beta: float, silent: int, levels: Sequence[int]) -> list[int]:
    """The tracking neuron in the form of values: what has come in, less what has been sent, in units of each digit."""
    steps = len(currents)
    digits = sorted({0, *levels, *(-level for level in levels)})
    worth = [beta ** (steps - 1 - t) for t in range(steps)]
    sent, spikes = 0.0, []
    for t in range(steps):
        heard = sum(w * z for w, z in list(zip(worth, currents, strict=True))[: t + silent + 1])
        digit = nearest((function(heard) - sent) / worth[t], digits)
        sent += digit * worth[t]
        spikes.append(digit)
    return spikes


def integrate_and_fire(currents: Sequence[float], *, start: float) -> list[int]:
    """Soft reset, threshold 1."""
    membrane, spikes = start, []
    for z in currents:
        membrane += z
        fired = membrane >= 1
        membrane -= fired
        spikes.append(int(fired))
    return spikes


def few_spikes(currents: Sequence[float]) -> list[int]:
    """Eqs. 1 to 3 of Stoeckl and Maass for ReLU: threshold, reset and weight 2^-t, after the whole input."""
    steps = len(currents)
    membrane = sum(2.0**-t * z for t, z in enumerate(currents, start=1))
    spikes = []
    for t in range(1, steps + 1):
        fired = membrane >= 2.0**-t
        membrane -= fired * 2.0**-t
        spikes.append(int(fired))
    return spikes


def estimates(
    currents: Sequence[Sequence[Sequence[float]]],
    function: Callable[..., Sequence[float]],
    *,
    theta: float,
    beta: float,
    silent: int,
    levels: Sequence[int],
) -> list[list[int]]:
    """Neurons that compute ``function`` of several operands together: [operand][step][value] to digits [step][value].

    Everything in real units; what has been heard by a step is a plain weighted sum from the start, without recursion.
    """
    steps = len(currents[0])
    digits = sorted({0, *levels, *(-level for level in levels)})
    worth = [theta * beta ** (steps - 1 - t) for t in range(steps)]
    sent: list[float] = []
    spikes = []
    for t in range(steps):
        heard = [
            [sum(worth[k] * z for k, z in enumerate(column[: t + silent + 1])) for column in zip(*operand, strict=True)]
            for operand in currents
        ]
        wanted = function(*heard)
        sent = sent or [0.0] * len(wanted)
        row = [nearest((want - before) / worth[t], digits) for want, before in zip(wanted, sent, strict=True)]
        sent = [before + digit * worth[t] for before, digit in zip(sent, row, strict=True)]
        spikes.append(row)
    return spikes
