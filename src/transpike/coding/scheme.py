"""What a coding scheme is: a value that can encode, give a spiking form to a function, decode, and state its latency.

The converter traces, folds, calibrates and asks the scheme; it knows none by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from transpike.neurons.tsa import Piecewise, Tracked

__all__ = ["Activation", "Scheme"]


@dataclass(frozen=True)
class Activation:
    """What a neuron computes: ``function`` of its input, or of the maximum of windows of it, in real units.

    ``slope`` overrides the function's slope by one per channel, broadcast against a sample; ``pool`` maps [N, \\*] to
    the maxima.
    """

    function: Piecewise
    slope: Tensor | None = None
    pool: Pool | None = None


class Pool(Protocol):
    def __call__(self, x: Tensor, /) -> Tensor: ...


class Scheme(Protocol):
    """The interface between a coding scheme and the converter. Time is the first axis; trains are in units of theta."""

    @property
    def steps(self) -> int:
        """T, the steps for which one image is encoded."""

    @property
    def percentile(self) -> float:
        """Which percentile of a layer's activations its amplitude must still encode."""

    @property
    def adjustments(self) -> int:
        """How often amplitudes are adjusted by the residuals of the converted network."""

    @property
    def total(self) -> float:
        """The value of a train of ones; a constant input is divided by it at every step."""

    @property
    def largest(self) -> float:
        """The largest value a train encodes, in units of theta."""

    @property
    def interval(self) -> int:
        """Steps between two images that enter one after the other."""

    def amplitude(self, peak: float) -> float:
        """theta, such that ``peak`` is encoded by the longest train of ones."""

    def adjust(self, amplitude: float, residual: float) -> float:
        """A larger theta where the residual (its 99.9th percentile, in units of theta) exceeds 1."""

    def refuses(self, slope: float, low: float | None) -> str | None:
        """Why no neuron of this scheme has that slope below 0, or that lower bound; None if one has."""

    def encode(self, x: Tensor) -> Tensor:
        """[N, \\*] in units of theta to [T, N, \\*]."""

    def fire(self, z: Tensor, activation: Activation, amplitude: float, *, inplace: bool, final: bool) -> Tracked:
        """Currents [T, N, \\*] in units of theta to spikes [T, N, \\*] of ``activation``."""

    def decode(self, s: Tensor) -> Tensor:
        """[T, N, \\*] to the values [N, \\*], in units of theta."""

    def latency(self, depth: int) -> int:
        """Steps from the image's arrival until the output is complete, over ``depth`` layers with the classifier."""
