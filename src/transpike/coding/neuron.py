"""What a layer of neurons is to the network that runs it: currents to spikes; in values or in pieces where it can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

from torch import Tensor

from transpike.coding.evaluation import COMPARISONS, Evaluation
from transpike.coding.operations import Operations
from transpike.neurons.inflow import Inflow
from transpike.neurons.pieces import Change
from transpike.neurons.tsa import Tracked

__all__ = [
    "CORRECTION",
    "Correction",
    "FedNeuron",
    "FedSteps",
    "Neuron",
    "SteppingNeuron",
    "Steps",
    "WholeNeuron",
    "gained",
]

CORRECTION = "correction"
"""The constant of a layer of neurons that says its correction, in units of theta."""
Correction = Literal["bias", "potential"]
"""A constant current for each channel, or the first membrane potential of each neuron."""


class Neuron(Protocol):
    """A layer of neurons of one function: currents to spikes, over all T steps."""

    def __call__(
        self,
        currents: Sequence[Tensor],
        constants: Mapping[str, Tensor],
        *,
        gains: Sequence[float] = (),
        inplace: bool,
        final: bool,
    ) -> Tracked:
        """Spikes for one current [T, N, \\*] an operand, in units of theta.

        Args:
            currents: one an operand; the function of the decoded currents is what the spikes must say.
            constants: of the function, by name.
            gains: multiply the currents, one an operand; without any, all are 1.
            inplace: whether the spikes may be written over the first current.
            final: whether to give the residual and the target [N, \\*] too, in units of theta.
        """

    def operations(
        self, *, neurons: float, spikes: float, inputs: float, evaluation: Evaluation = COMPARISONS
    ) -> Operations:
        """What the layer's own updates take for one image: so many neurons, spikes, and accumulated inputs.

        ``evaluation`` is what one evaluation of the layer's function takes.
        """


class WholeNeuron(Neuron, Protocol):
    """A layer of a scheme that is `Scheme.whole`."""

    def values(self, operands: Sequence[Tensor], constants: Mapping[str, Tensor]) -> Tracked:
        """The same for decoded operands [N, \\*]; ``spikes`` are the decoded values of the trains [N, \\*]."""

    def train(self, values: Tensor, steps: range) -> Tensor:
        """These steps of the trains of such values: [steps, N, \\*]."""


@runtime_checkable
class FedNeuron(Protocol):
    """A `Neuron` of one operand whose kernel makes the current itself: with a bias, a skip, a factor a channel."""

    def fed(
        self,
        z: Tensor,
        inflow: Inflow | None,
        constants: Mapping[str, Tensor],
        *,
        gains: Sequence[float] = (),
        inplace: bool,
        final: bool,
    ) -> Tracked:
        """As called with the current that ``inflow`` makes of ``z``, to the bit."""


class Steps(Protocol):
    """A layer of neurons that runs in pieces of steps, and keeps its state between them."""

    def __call__(self, currents: Sequence[Tensor], *, idle: int, inplace: bool = False) -> Tensor:
        """The spikes [k, N, \\*] of the next steps, those that `Neuron` gives, to the bit.

        Args:
            currents: the next ones, [steps, N, \\*] an operand.
            idle: steps after them in which no input comes, once all T have come.
            inplace: whether the spikes may be written over the first current.
        """

    def rebatch(self, change: Change) -> None:
        """Replace every tensor of the state by what ``change`` makes of it and of its axis of samples."""

    def ended(self) -> tuple[Tensor, Tensor]:
        """After the last step: the residual and the target [N, \\*], in units of theta."""


@runtime_checkable
class FedSteps(Protocol):
    """`Steps` of a `FedNeuron`."""

    def fed(self, z: Tensor, inflow: Inflow, *, idle: int, inplace: bool) -> Tensor:
        """As called with the current that ``inflow`` makes of ``z``, to the bit."""


@runtime_checkable
class SteppingNeuron(Protocol):
    """A `Neuron` that can run in pieces of steps, at any wait, and let samples go."""

    def begin(self, constants: Mapping[str, Tensor], *, gains: Sequence[float] = ()) -> Steps:
        """The layer before its first step, with the constants of its function and the gains of its currents."""


def gained(currents: Sequence[Tensor], gains: Sequence[float]) -> list[Tensor]:
    """Currents times their gains, for a neuron that has no kernel which does it; without any, all are 1."""
    return [z if gain == 1 else z * gain for z, gain in zip(currents, gains or (1.0,) * len(currents), strict=True)]
