"""Coding schemes, how values become spikes and what a neuron is in each; and encoders, how images become spikes."""

from transpike.coding.css import CSS
from transpike.coding.dct import DCTEncoder, ycbcr
from transpike.coding.encoders import BurstEncoder, DirectEncoder, LatencyEncoder, PhaseEncoder, PoissonEncoder

__all__ = [
    "CSS",
    "SCHEMES",
    "BurstEncoder",
    "DCTEncoder",
    "DirectEncoder",
    "LatencyEncoder",
    "PhaseEncoder",
    "PoissonEncoder",
    "ycbcr",
]

SCHEMES = {"CSS": CSS}
