"""Quantised: the network itself in one step, with activations of b bits and no spikes over time.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018. Here the scales come from calibration, and the weights are real numbers. One amplitude for each channel is
the equalisation of Nagel et al. (ICCV 2019). Compare every coding scheme with this one at equal T times bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from transpike.checks import choice, refuse, whole
from transpike.coding.calibration import Percentile
from transpike.coding.function import Function
from transpike.coding.residuals import Binding
from transpike.coding.scheme import Scheme
from transpike.coding.tracking import TrackingNeuron
from transpike.errors import ConfigError
from transpike.neurons.tsa import Code, encode

__all__ = ["Quantised"]


@dataclass(frozen=True, kw_only=True)
class Quantised(Scheme):
    r"""The artificial network with activations of ``bits`` bits, as a scheme of one step.

    The output of every layer, and the input, is

    .. math::
        s = \mathrm{clip}(\mathrm{round}(f(x) / \theta), -L, L), \qquad L = 2^{b-1} - 1, \qquad \theta = p / L

    with p the ``percentile`` of \|f(x)\|. Unsigned activations have L = 2^b - 1 and no negative digits. Then only
    functions that are never negative have neurons, such as ReLU, and the input carries a sign beside its b bits.
    ``Quantised(bits=8)`` is ``CSS(steps=1, levels=range(1, 128), span=127)`` under other names: CSS with one step,
    whose digits are all range and no redundancy. Each layer computes its function once, on its complete input. The
    latency is 1.

    Args:
        bits: the bits of an activation, 2 to 8 with a sign, 1 to 8 without.
        signed: whether an activation has a sign.
        amplitude: one amplitude for each ``"channel"`` of a layer, or one for each ``"layer"``.
        percentile: the percentile of |activation| over the calibration images that sets the amplitudes. 100 is the
            maximum. ``"fit"`` takes the value with the least squared error of an activation.
        steps: must be 1.

    Raises:
        ConfigError: A value is outside its range.

    Example:
        >>> Quantised(bits=4).digits
        (-7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7)
        >>> Quantised(bits=4, signed=False).full
        15.0
        >>> Quantised(steps=8)
        Traceback (most recent call last):
        ...
        transpike.errors.ConfigError: steps=8: a quantised network has one step; set bits instead.
    """

    bits: int = 8
    signed: bool = True
    amplitude: Literal["layer", "channel"] = "channel"
    percentile: float | Literal["fit"] = 99.99
    compared: ClassVar[tuple[int, ...]] = (1,)

    steps: int = 1

    def __post_init__(self) -> None:
        if whole("steps", self.steps) != 1:
            raise ConfigError(f"steps={self.steps}: a quantised network has one step; set bits instead.")
        if not isinstance(self.signed, bool):
            raise refuse("signed", self.signed, "true or false")
        whole("bits", self.bits, least=1 + self.signed, most=8)
        choice("amplitude", self.amplitude, ("layer", "channel"))
        _ = self.calibration

    @property
    def weights(self) -> tuple[float, ...]:
        return (1.0,)

    @property
    def digits(self) -> tuple[int, ...]:
        top = self._code.levels[-1]
        return tuple(range(-top if self.signed else 0, top + 1))

    @property
    def encoded(self) -> tuple[int, ...]:
        top = self._code.levels[-1]
        return tuple(range(-top, top + 1))

    @property
    def calibration(self) -> Percentile:
        return Percentile(percentile=self.percentile, per=self.amplitude)

    @property
    def label(self) -> str:
        return f"{self.bits} bits{'' if self.signed else ' unsigned'}"

    @property
    def words(self) -> dict[str, str]:
        return {"bits": self.label, "signed": self.label, "amplitude": f"one amplitude per {self.amplitude}"}

    @property
    def terms(self) -> dict[str, str]:
        return {
            "bits": "Bits of an activation of the quantised network. Its digits are all integers of this many bits."
        }

    def remedy(self, binding: Binding, *, foreseen: bool = True) -> Mapping[str, object] | None:
        """Return the maximum for clipping, otherwise one more bit."""
        if binding == "clipping":
            return {"percentile": 100} if foreseen and self.percentile != 100 else None
        return {"bits": self.bits + 1} if self.bits < 8 else None

    def encode(self, x: Tensor) -> Tensor:
        return encode(x, code=self._code)

    def neuron(self, function: Function, *, amplitude: float, wait: int) -> TrackingNeuron | str:
        if reason := TrackingNeuron.refusal(function, signed=self.signed):
            return reason if self.signed else f"{reason}; use signed=True"
        return TrackingNeuron(code=self._code, function=function, amplitude=amplitude)

    @property
    def _code(self) -> Code:
        levels = tuple(range(1, 2 ** (self.bits - self.signed)))
        return Code(steps=1, beta=1.0, silent=0, levels=levels, signed=self.signed, start=0.5)
