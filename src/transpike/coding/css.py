"""Canonic signed spikes (CSS): weighted ternary spikes from self-amplifying neurons, in 8 to 16 steps.

Source: "Canonic Signed Spike Coding for Efficient Spiking Neural Networks". The neurons have the tracking form of its
Appendix A.6. `transpike.neurons.tsa` contains the equations. Two parts go beyond the paper: neurons that track any
piecewise linear function or maximum, and spikes of several levels. The redundancy of these levels replaces the silent
steps (the online delay of signed-digit arithmetic: Trivedi and Ercegovac, 1977).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from torch import Tensor

from transpike.checks import choice, refuse, whole
from transpike.coding.calibration import Percentile
from transpike.coding.function import Function
from transpike.coding.residuals import Binding
from transpike.coding.scheme import Scheme, total
from transpike.coding.tracking import TrackingNeuron
from transpike.errors import ConfigError
from transpike.neurons.tsa import Code, encode

__all__ = ["CSS"]


@dataclass(frozen=True, kw_only=True)
class CSS(Scheme):
    r"""The CSS code and its neurons.

    A train ``s`` represents :math:`\theta \sum_t \beta^{T-1-t} s_t` with every :math:`s_t` in {0, ±levels}. The
    amplitude :math:`\theta` of a layer is its ``percentile`` of activations divided by :math:`\sum_t \beta^t` (Section
    4.2.2).

    Args:
        steps: T, the steps that encode one value.
        beta: the amplification of one step, above 1. If the levels are all integers from 1 to k, it is at most 2k + 1
            (3 for ternary spikes), because larger radices cannot represent every value.
        silent: the silent steps, in which a neuron listens before it fires: one number for all layers, or ``"auto"``,
            which lets the conversion choose a number for each layer. Each silent step adds one step of latency on the
            longest path.
        levels: the magnitudes of spikes, increasing integers from 1. ``(1,)`` is ternary. Larger digits add redundancy,
            which replaces silent steps: with ``(1, 2, 4, 8)`` most layers need no silent step.
        span: uses larger digits for range instead of redundancy: the calibrated peak is ``span`` times the value of a
            train of ones. It is at most the largest level. One step, levels 1 to 127 and span 127 quantise a layer to
            8 bits.
        signed: whether neurons fire negative spikes. If not (the paper's ablation), only ReLU-like neurons exist.
        amplitude: one amplitude for each ``"channel"``, or one for each ``"layer"``, as in the paper.
        percentile: the percentile of |activation| over the calibration images that sets the amplitudes. 100 is the
            maximum. ``"fit"`` takes the value with the least squared error of decoded activations at this T.
        adjustments: how often to enlarge amplitudes by the residuals seen in calibration (Appendix A.3). 0 is off.

    Raises:
        ConfigError: A value is outside its range.

    Example:
        >>> CSS.paper(steps=12)
        CSS(steps=12, beta=1.5, silent=1, levels=(1,), span=1, signed=True, amplitude='layer', percentile=99.99, ...)
        >>> scheme = CSS(steps=4, beta=2.0, silent=1)
        >>> scheme.weights, scheme.full, scheme.wait, scheme.digits
        ((8.0, 4.0, 2.0, 1.0), 15.0, 1, (-1, 0, 1))
        >>> CSS(steps=0)
        Traceback (most recent call last):
        ...
        transpike.errors.ConfigError: steps=0: expected a whole number of at least 1.
    """

    steps: int = 8
    beta: float = 2.0
    silent: int | Literal["auto"] = "auto"
    levels: tuple[int, ...] = (1,)
    span: int = 1
    signed: bool = True
    amplitude: Literal["layer", "channel"] = "channel"
    percentile: float | Literal["fit"] = 99.99
    adjustments: int = 0

    @classmethod
    def paper(cls, *, steps: int = 12, **others: Any) -> CSS:
        """Return the paper's setting: beta 1.5, one silent step, an amplitude for each layer. ``others`` are fields."""
        paper: dict[str, Any] = {"beta": 1.5, "silent": 1, "amplitude": "layer"}
        return cls(steps=steps, **paper | others)

    def __post_init__(self) -> None:
        whole("steps", self.steps)
        if self.silent != "auto":
            whole("silent", self.silent, least=0)
        choice("amplitude", self.amplitude, ("layer", "channel"))
        if not isinstance(self.signed, bool):
            raise refuse("signed", self.signed, "true or false")
        if not isinstance(self.levels, Sequence):
            raise refuse("levels", self.levels, "increasing integers from 1, such as (1, 2, 4, 8)")
        object.__setattr__(self, "levels", tuple(self.levels))
        run = next((k for k, level in enumerate(self.levels) if level != k + 1), len(self.levels))
        if not 1 < self._code(self.wait or 0).beta <= 2 * run + 1:
            raise ConfigError(
                f"beta must lie in (1, {2 * run + 1}] for levels {self.levels}, not {self.beta}: a larger radix leaves "
                "values that no train encodes; use more consecutive levels or a smaller beta"
            )
        whole("span", self.span, most=self.levels[-1])
        _ = self.calibration

    @cached_property
    def weights(self) -> tuple[float, ...]:
        return self._code(0).weights

    @property
    def full(self) -> float:
        return total(self) * self.span

    @property
    def wait(self) -> int | None:
        return None if self.silent == "auto" else self.silent

    @cached_property
    def digits(self) -> tuple[int, ...]:
        return (*(-level for level in reversed(self.levels) if self.signed), 0, *self.levels)

    @property
    def encoded(self) -> tuple[int, ...]:
        return (*(-level for level in reversed(self.levels)), 0, *self.levels)

    @property
    def calibration(self) -> Percentile:
        return Percentile(percentile=self.percentile, adjustments=self.adjustments, per=self.amplitude)

    @property
    def label(self) -> str:
        consecutive = len(self.levels) > 3 and self.levels[-1] == len(self.levels)
        listed = f"1..{self.levels[-1]}" if consecutive else ",".join(map(str, self.levels))
        spikes = ("ternary" if self.signed else "binary") if self.levels == (1,) else listed
        unsigned = "" if self.signed or self.levels == (1,) else " unsigned"
        beta = "" if self.beta == 2 else f" β{self.beta:g}"
        span = "" if self.span == 1 else f" span {self.span}"
        return f"{spikes}{unsigned}{span} Ts={self.silent}{beta}"

    @property
    def words(self) -> dict[str, str]:
        many = len(self.levels) > 4
        listed = f"1, 2 … {self.levels[-1]}" if many else ", ".join(map(str, self.levels))
        spikes = f"{'' if self.signed else 'unsigned '}levels {listed}"
        if self.levels == (1,):
            spikes = "ternary" if self.signed else "binary"
        silent = "silent steps by layer"
        if self.silent != "auto":
            silent = f"{self.silent or 'no'} silent step{'s' * (self.silent > 1)}"
        percentile = "least squares" if self.percentile == "fit" else f"percentile {self.percentile:g}"
        return {
            "beta": f"β {self.beta:g}",
            "silent": silent,
            "amplitude": f"one amplitude per {self.amplitude}",
            "span": f"span {self.span}",
            "levels": spikes,
            "signed": spikes,
            "percentile": "maximum" if self.percentile == 100 else percentile,
        }

    @property
    def terms(self) -> dict[str, str]:
        return {
            "β": "Amplification: a spike counts β times as much as a spike one step later.",
            "silent period": "Silent steps: a layer listens in them before it may fire. Every firing layer and the "
            "classifier add them to the latency. Late corrections then come before the digits that they would change.",
            "levels": "The sizes that a spike may have, with either sign. Ternary spikes have one size. Powers of two "
            "need a shift at the synapse and no multiplication. More levels reduce coupling, as silent steps do.",
        }

    def remedy(self, binding: Binding, *, foreseen: bool = True) -> Mapping[str, object] | None:
        """Return silent steps or levels for coupling, the maximum or levels for clipping, otherwise two more steps."""
        levels: dict[str, object] = {"levels": (1, 2, 4, 8)} if self.levels == (1,) else {}
        setting: dict[str, object] = {"steps": self.steps + 2}
        if binding == "clipping":
            setting = {"percentile": 100} if foreseen and self.percentile != 100 else levels
        elif binding == "coupling":
            setting = {"silent": "auto"} if self.silent != "auto" else levels or setting
        try:
            replace(self, **setting)  # type: ignore[arg-type]
        except ConfigError:  # more steps than float32 can represent
            return None
        return setting or None

    def encode(self, x: Tensor) -> Tensor:
        return encode(x, code=self._code(0))

    def neuron(self, function: Function, *, amplitude: float, wait: int) -> TrackingNeuron | str:
        if reason := TrackingNeuron.refusal(function, signed=self.signed):
            return reason if self.signed else f"{reason}; use signed=True"
        return TrackingNeuron(code=self._code(wait), function=function, amplitude=amplitude)

    def _code(self, wait: int) -> Code:
        return Code(steps=self.steps, beta=self.beta, silent=wait, levels=self.levels, signed=self.signed)
