"""The base class of coding schemes: a scheme is the weights of its steps, and the neuron for each function.

A value is sent as a train ``s`` of T steps and decoded as ``theta * sum_t weights[t] s[t]``, with theta the amplitude
of the layer. Functions of a scheme compute once what follows from the weights. The converter, the measures and the
report do not depend on the name of any scheme.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from transpike.coding.calibration import Calibration, Percentile
from transpike.coding.function import Function
from transpike.coding.neuron import Correction, Neuron
from transpike.coding.operations import Operations, amplification
from transpike.coding.residuals import Binding
from transpike.neurons.tsa import decode as horner

__all__ = [
    "Neuron",
    "Scheme",
    "constant_entry",
    "decode",
    "encoder_operations",
    "finest",
    "followed",
    "injected",
    "largest",
    "payload_bits",
    "ratio",
    "readout_operations",
    "spelled",
    "total",
    "train_bits",
]


class Scheme(ABC):
    """A coding scheme: a frozen dataclass that states the facts below. Time is the first axis.

    A scheme must define ``weights``, ``digits`` and ``neuron``. The other facts have the defaults that most schemes
    share. The fields of the dataclass are the scheme's settings.

    Attributes:
        compared: The numbers of steps at which a comparison measures the scheme by default, from where it begins to
            work to where it needs no more steps.
    """

    compared: ClassVar[tuple[int, ...]] = (4, 6, 8, 12, 16)

    @property
    @abstractmethod
    def weights(self) -> tuple[float, ...]:
        """The value of a unit spike at each of the T steps. It is 0 in steps that only prepare."""

    @property
    @abstractmethod
    def digits(self) -> tuple[int, ...]:
        """All values that a spike may have, including 0."""

    @abstractmethod
    def neuron(self, function: Function, *, amplitude: float, wait: int) -> Neuron | str:
        """Return a layer of neurons that computes ``function`` (of real values), or the reason why there is none.

        Args:
            function: see `transpike.coding.function`.
            amplitude: theta of the layer.
            wait: the number of silent steps before the layer's first spike.
        """

    @property
    def entry(self) -> tuple[float, ...]:
        """The share of a constant (a bias) that enters at each step: ``sum_t weights[t] entry[t] = 1``."""
        return (1 / total(self),) * len(self.weights)

    @property
    def wait(self) -> int | None:
        """The silent steps of a layer before its first spike. None if conversion chooses them for each layer."""
        return 0

    @property
    def encoded(self) -> tuple[int, ...] | None:
        """All values in the input's train. None if the input is an analog current."""
        return None

    @property
    def reach(self) -> float:
        """The largest value of a train, in units of theta. It is less than a train of ones if few steps may spike."""
        return total(self) * max(self.digits)

    @property
    def full(self) -> float:
        """The decoded value, in units of theta, that represents the calibrated peak of a layer."""
        return self.reach

    @property
    def calibration(self) -> Calibration:
        """The way in which amplitudes are computed."""
        return Percentile()

    @property
    def label(self) -> str:
        """A short name that distinguishes the scheme in a table. T stands beside it."""
        return type(self).__name__

    @property
    def words(self) -> Mapping[str, str]:
        """The report's words for each setting, by name. A setting without words is shown as name and value."""
        return {}

    @property
    def terms(self) -> Mapping[str, str]:
        """The report's glossary of this scheme: terms and their meanings."""
        return {}

    @property
    def correction(self) -> Correction | None:
        """What is added to each layer after calibration, so that its mean over the images equals the original's."""
        return None

    @property
    def whole(self) -> bool:
        """Whether every layer receives its whole input before it fires, and so depends only on decoded values.

        Then a simulation may pass on these values in place of trains: see `transpike.coding.neuron.WholeNeuron`.
        """
        return False

    def given(self, function: Function) -> float | None:
        """Return theta of a layer whose ``function`` itself determines it, or None to calibrate."""
        return None

    def remedy(self, binding: Binding, *, foreseen: bool = True) -> Mapping[str, object] | None:
        """Return the setting, by name, that reduces the error most if this cause is the largest. None if there is none.

        Args:
            binding: the largest cause of the error.
            foreseen: for clipping, whether calibration saw about as much of it. New images alone can exceed a maximum
                too.
        """
        return None

    def encode(self, x: Tensor) -> Tensor:
        """Return the input's train: values [N, \\*] in units of theta to [T, N, \\*]."""
        return injected(self, x)


def total(scheme: Scheme) -> float:
    """Return the value of a train of ones, in units of theta.

    Example:
        >>> from transpike.coding import CSS
        >>> scheme = CSS(steps=3, levels=(1, 2))
        >>> total(scheme), largest(scheme), finest(scheme)
        (7.0, 14.0, 1.0)
    """
    return sum(scheme.weights)


def largest(scheme: Scheme) -> float:
    """Return the largest value of a train, in units of theta."""
    return scheme.reach


def finest(scheme: Scheme) -> float:
    """Return the value of a unit spike in the last step, in units of theta."""
    return min(weight for weight in scheme.weights if weight)


def followed(scheme: Scheme, wait: int) -> float | None:
    r"""Return the current, in units of theta, below which a neuron surely follows its input. None if none is known.

    The residual ends within half a unit if no step brings more than :math:`(2L + 1 - \beta) \beta^{Ts} / 2`, and the Ts
    silent steps accumulate at most :math:`\beta^{Ts} / 2`. L is the last level before the first gap in 1 ... L. The
    function must be one that a neuron tracks, with slopes of at most 1. The bound is ours; it is sufficient, but not
    necessary.

    Example:
        >>> from transpike.coding import CSS, Rate
        >>> followed(CSS(steps=8), 0), followed(CSS(steps=8), 2), followed(Rate(steps=8), 0)
        (0.5, 2.0, None)
    """
    beta, digits = ratio(scheme), set(scheme.digits)
    if beta is None or finest(scheme) != 1 or digits != {-digit for digit in digits}:
        return None
    run = next(level for level in itertools.count(1) if level not in digits) - 1
    return (2 * run + 1 - beta) * beta**wait / 2


def spelled(settings: Mapping[str, object]) -> str:
    """Return settings as Python code.

    Example:
        >>> spelled({"silent": "auto"})
        "silent='auto'"
    """
    return ", ".join(f"{name}={value!r}" for name, value in settings.items())


def ratio(scheme: Scheme) -> float | None:
    """Return the ratio of each weight to the next, if it is constant, otherwise None.

    Example:
        >>> from transpike.coding import CSS, Rate
        >>> ratio(CSS(steps=8, beta=1.5)), ratio(Rate(steps=8))
        (1.5, 1.0)
    """
    weights = scheme.weights
    if not all(weights):
        return None
    quotient = weights[-2] / weights[-1] if len(weights) > 1 else 1.0  # the last two give the radix most exactly
    pairs = itertools.pairwise(weights)
    return quotient if all(math.isclose(a, b * quotient, rel_tol=1e-9) for a, b in pairs) else None


def decode(scheme: Scheme, s: Tensor) -> Tensor:
    """Decode a train or a current [T, N, \\*] to values [N, \\*] in units of theta, in float32 (or float64 as given).

    Example:
        >>> from transpike.coding import CSS
        >>> decode(CSS(steps=3), torch.tensor([[1.0], [0.0], [-1.0]])).item()
        3.0
    """
    if (beta := ratio(scheme)) is not None:
        value = horner(s, beta=beta)
        return value if scheme.weights[-1] == 1 else value * scheme.weights[-1]
    state = torch.float64 if s.dtype == torch.float64 else torch.float32
    weights = torch.tensor(scheme.weights, dtype=state, device=s.device)
    return torch.einsum("t,t...->...", weights, s.to(state))


def injected(scheme: Scheme, x: Tensor) -> Tensor:
    """Return values [N, \\*] as an analog current [T, N, \\*], which enters as a constant does.

    Example:
        >>> from transpike.coding import Rate
        >>> injected(Rate(steps=2), torch.tensor([[0.5]])).flatten()
        tensor([0.5000, 0.5000])
    """
    if constant_entry(scheme) is not None:
        return (x * scheme.entry[0]).expand(len(scheme.entry), *x.shape)
    return torch.tensor(scheme.entry, dtype=x.dtype, device=x.device).view(-1, *(1,) * x.ndim) * x


def constant_entry(scheme: Scheme) -> float | None:
    """Return the value of a train of ones, if a constant enters in equal shares, otherwise None.

    A constant is divided by it.

    Example:
        >>> from transpike.coding import CSS
        >>> constant_entry(CSS(steps=3, beta=2.0))
        7.0
    """
    return total(scheme) if len(set(scheme.entry)) == 1 else None


# -- what it costs ----------------------------------------------------------------------------------------------------


def payload_bits(digits: Sequence[int]) -> int:
    """Return the bits that a spike carries beside its address, to name one of the digits.

    Example:
        >>> payload_bits((0, 1)), payload_bits((-1, 0, 1)), payload_bits((-8, -4, -2, -1, 0, 1, 2, 4, 8))
        (0, 1, 3)
    """
    return math.ceil(math.log2(max(sum(digit != 0 for digit in digits), 1)))


def train_bits(scheme: Scheme) -> float:
    """Return the bits that a train may carry: T times those of a digit, including zero. This is the width of a wire.

    A value of an 8-bit quantised network takes 8 bits.

    Example:
        >>> from transpike.coding import CSS, Rate
        >>> train_bits(Rate(steps=32)), round(train_bits(CSS(steps=8)), 2)
        (32.0, 12.68)
    """
    return len(scheme.weights) * math.log2(len(scheme.digits))


def comparisons(digits: Sequence[int]) -> int:
    """Return the comparisons of a binary search that finds a digit by its magnitude, if the sign is known.

    Example:
        >>> comparisons((-1, 0, 1)), comparisons((-8, -4, -2, -1, 0, 1, 2, 4, 8))
        (1, 3)
    """
    return math.ceil(math.log2(len({abs(digit) for digit in digits})))


def encoder_operations(scheme: Scheme, *, values: float, spikes: float) -> Operations:
    """Return the operations that encode one image: each step amplifies and compares each value; a spike is subtracted.

    An analog current needs none. The products of the first layer count as its synapses.
    """
    if scheme.encoded is None:
        return Operations()
    steps = len(scheme.weights)
    additions = values * steps * comparisons(scheme.encoded) + spikes
    return _weighting(scheme) * (values * steps) + Operations(neuron_accumulates=additions)


def readout_operations(scheme: Scheme, *, values: float) -> Operations:
    """Return the operations of neurons that only accumulate: each step weighs its input and adds the bias."""
    steps = len(scheme.weights)
    return _weighting(scheme) * (values * steps) + Operations(neuron_accumulates=values * steps)


def _weighting(scheme: Scheme) -> Operations:
    """Return the operations that weigh one step of a train: an amplification of the sum, an addition, or a product.

    Weights that fall by a constant difference need only sums of sums, because a spike switches on a lasting current.
    """
    beta, last = ratio(scheme), scheme.weights[-1]
    if beta is not None:
        return amplification(beta)
    steps = enumerate(reversed(scheme.weights), start=1)
    ramp = all(math.isclose(weight, k * last, rel_tol=1e-9) for k, weight in steps)
    return Operations(neuron_accumulates=1) if ramp else Operations(neuron_multiplications=1)
