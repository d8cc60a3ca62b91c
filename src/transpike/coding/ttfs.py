"""Time to first spike (TTFS): one spike for each neuron, earlier for larger values, in a window for each layer.

Sources: A. Stanojevic, S. Woźniak, G. Bellec, G. Cherubini, A. Pantazi and W. Gerstner, "An exact mapping from ReLU
networks to spiking neural networks", Neural Networks 2023, and "High-performance deep spiking neural networks with 0.3
spikes per neuron", Nature Communications 2024, where spike times are on a grid. LC-TTFS (Yang et al., 2023) is the same
code with a falling threshold. Its difference is that it first trains the network to stay within the code's range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from transpike.checks import whole
from transpike.coding.calibration import Percentile
from transpike.coding.evaluation import COMPARISONS, Evaluation
from transpike.coding.function import Function
from transpike.coding.neuron import gained
from transpike.coding.operations import Operations
from transpike.coding.residuals import Binding
from transpike.coding.scheme import Scheme, decode
from transpike.coding.tracking import TrackingNeuron
from transpike.neurons.tsa import Tracked

__all__ = ["TTFS"]


@dataclass(frozen=True, kw_only=True)
class TTFS(Scheme):
    r"""The TTFS code and its neurons.

    A train has at most one spike. At step t of its layer's window of T steps it represents :math:`\theta (T - t) / T`;
    no spike represents 0. At the synapse a spike switches on a current that stays. This is a sum of sums and needs no
    product. A neuron receives its whole input V, then rises by :math:`\theta / T` in each step until it fires:

    .. math::
        t = \min \{ t : f(V) + t\, \theta / T \ge \theta - \theta / 2T \}

    The source's threshold has no half step, so it rounds spike times up. Here the value is that of the nearest step.
    The window of a layer begins at the end of the window of the layer before. So the latency grows by T for each layer,
    and a new image may enter every 2T steps. A spike carries no bits beside its address. A bias enters with the first
    step. So does the image, as an analog current, because normalised pixels may be negative. Functions that are never
    negative have neurons: ReLU, clips and maxima over windows.

    Args:
        steps: T, the steps of a window.
        percentile: the percentile of \|activation\| over the calibration images that a spike at the first step
            represents. 100 is the maximum.

    Raises:
        ConfigError: A value is outside its range.

    Example:
        >>> scheme = TTFS(steps=4)
        >>> scheme.weights, scheme.wait, scheme.full
        ((1.0, 0.75, 0.5, 0.25), 4, 1.0)
        >>> neuron = scheme.neuron(Function.of("relu.default", 0), amplitude=1.0, wait=4)
    """

    compared: ClassVar[tuple[int, ...]] = (16, 32, 64, 128)

    steps: int = 64
    percentile: float = 99.99

    def __post_init__(self) -> None:
        whole("steps", self.steps, most=2**16)
        _ = self.calibration

    @cached_property
    def weights(self) -> tuple[float, ...]:
        return tuple((self.steps - t) / self.steps for t in range(self.steps))

    @property
    def digits(self) -> tuple[int, ...]:
        return (0, 1)

    @property
    def reach(self) -> float:
        return 1.0

    @property
    def entry(self) -> tuple[float, ...]:
        return (1.0,) + (0.0,) * (self.steps - 1)

    @property
    def wait(self) -> int:
        return self.steps

    @property
    def whole(self) -> bool:
        return True

    @property
    def calibration(self) -> Percentile:
        return Percentile(percentile=self.percentile)

    def remedy(self, binding: Binding, *, foreseen: bool = True) -> Mapping[str, object] | None:
        """Return the maximum for clipping, otherwise two more steps; TTFS neurons know all input before they fire."""
        if binding == "clipping":
            return {"percentile": 100} if foreseen and self.percentile != 100 else None
        return {"steps": 2 * self.steps} if self.steps <= 2**15 else None

    def neuron(self, function: Function, *, amplitude: float, wait: int) -> _Neuron | str:
        return TrackingNeuron.refusal(function, signed=False) or _Neuron(self, function, amplitude)


@dataclass(frozen=True)
class _Neuron:
    """A layer that receives its whole input, then fires once; see `transpike.coding.neuron.WholeNeuron`."""

    scheme: TTFS = field(repr=False)
    function: Function
    amplitude: float

    def __call__(
        self,
        currents: Sequence[Tensor],
        constants: Mapping[str, Tensor],
        *,
        gains: Sequence[float] = (),
        inplace: bool,
        final: bool,
    ) -> Tracked:
        fired = self.values([decode(self.scheme, z) for z in gained(currents, gains)], constants)
        spikes = self.train(fired.spikes, range(self.scheme.steps)).to(currents[0].dtype)
        return Tracked(spikes, fired.residual, fired.target) if final else Tracked(spikes)

    def values(self, operands: Sequence[Tensor], constants: Mapping[str, Tensor]) -> Tracked:
        target, steps = self.function.at(*operands, unit=self.amplitude, constants=constants), self.scheme.steps
        rounded = (target * steps + 0.5).floor_().clamp_(0, steps).div_(steps)
        return Tracked(rounded, target - rounded, target)

    def train(self, values: Tensor, steps: range) -> Tensor:
        t = torch.tensor(steps, device=values.device).view(-1, *(1,) * values.ndim)
        ahead = self.scheme.steps - (values * self.scheme.steps).round()
        return (t == ahead).to(values.dtype)

    def operations(
        self, *, neurons: float, spikes: float, inputs: float, evaluation: Evaluation = COMPARISONS
    ) -> Operations:
        """Count the updates of a layer that first receives input, then fires.

        Each input step adds the switched current to each input's sum. Each firing step adds the slope and compares with
        the threshold until the spike. For uniform spike times this is half of the steps on average, but all are
        counted. Each spike switches itself off. A maximum over windows is compared once.
        """
        steps = self.scheme.steps
        additions = max(inputs, neurons) * steps + 2 * neurons * steps + spikes + max(inputs - neurons, 0)
        return Operations(neuron_accumulates=additions)
