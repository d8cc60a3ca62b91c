"""The interface of a layer of neurons: currents to spikes; some layers also take values, or run in pieces of steps."""

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
"""The name of the constant that holds the correction of a layer of neurons, in units of theta."""
Correction = Literal["bias", "potential"]
"""``"bias"`` is a constant current for each channel, ``"potential"`` the first membrane potential of each neuron."""


class Neuron(Protocol):
    """A layer of neurons that computes one function: currents to spikes, over all T steps."""

    def __call__(
        self,
        currents: Sequence[Tensor],
        constants: Mapping[str, Tensor],
        *,
        gains: Sequence[float] = (),
        inplace: bool,
        final: bool,
    ) -> Tracked:
        """Return the spikes for the currents [T, N, \\*] of all operands, in units of theta.

        Args:
            currents: one for each operand. The spikes must represent the function of the decoded currents.
            constants: the function's constants, by name.
            gains: factors of the currents, one for each operand. Without gains, all are 1.
            inplace: whether the spikes may be written over the first current.
            final: whether to return also the residual and the target [N, \\*], in units of theta.
        """

    def operations(
        self, *, neurons: float, spikes: float, inputs: float, evaluation: Evaluation = COMPARISONS
    ) -> Operations:
        """Return the operations of the layer's own updates for one image.

        Args:
            neurons: the number of neurons.
            spikes: the number of spikes that they send.
            inputs: the number of accumulated inputs of each neuron.
            evaluation: the cost of one evaluation of the layer's function.
        """


class WholeNeuron(Neuron, Protocol):
    """A layer of a scheme that is `Scheme.whole`."""

    def values(self, operands: Sequence[Tensor], constants: Mapping[str, Tensor]) -> Tracked:
        """Return what a call returns, but for decoded operands [N, \\*]; ``spikes`` are decoded trains [N, \\*]."""

    def train(self, values: Tensor, steps: range) -> Tensor:
        """Return these steps of the trains that represent ``values``: [steps, N, \\*]."""


@runtime_checkable
class FedNeuron(Protocol):
    """A `Neuron` of one operand whose kernel computes the current itself: with a bias, a skip, or factors."""

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
        """Return exactly the result of a call with the current that ``inflow`` computes from ``z``."""


class Steps(Protocol):
    """A layer of neurons that runs in pieces of steps and keeps its state between them."""

    def __call__(self, currents: Sequence[Tensor], *, idle: int, inplace: bool = False) -> Tensor:
        """Return the spikes [k, N, \\*] of the next steps, exactly those of `Neuron`.

        Args:
            currents: the next currents, [steps, N, \\*] for each operand.
            idle: the number of further steps without input, after all T steps have arrived.
            inplace: whether the spikes may overwrite the first current.
        """

    def rebatch(self, change: Change) -> None:
        """Replace every tensor of the state by the result of ``change`` for it and its axis of samples."""

    def ended(self) -> tuple[Tensor, Tensor]:
        """Return the residual and the target [N, \\*] after the last step, in units of theta."""


@runtime_checkable
class FedSteps(Protocol):
    """`Steps` of a `FedNeuron`."""

    def fed(self, z: Tensor, inflow: Inflow, *, idle: int, inplace: bool) -> Tensor:
        """Return exactly the result of a call with the current that ``inflow`` computes from ``z``."""


@runtime_checkable
class SteppingNeuron(Protocol):
    """A `Neuron` that can run in pieces of steps, with any wait, and can drop samples on the way."""

    def begin(self, constants: Mapping[str, Tensor], *, gains: Sequence[float] = ()) -> Steps:
        """Return the layer before its first step, with the constants of its function and the gains of its currents."""


def gained(currents: Sequence[Tensor], gains: Sequence[float]) -> list[Tensor]:
    """Multiply currents by their gains, for a neuron whose kernel does not. Without gains, all are 1."""
    return [z if gain == 1 else z * gain for z, gain in zip(currents, gains or (1.0,) * len(currents), strict=True)]
