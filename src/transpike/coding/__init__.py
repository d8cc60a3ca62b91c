"""Coding schemes, how values become spikes and what a neuron is in each; and encoders, how images become spikes."""

from transpike.coding.color import ycbcr
from transpike.coding.css import CSS
from transpike.coding.dct import DCTEncoder
from transpike.coding.encoder import Encoder
from transpike.coding.encoders import BurstEncoder, DirectEncoder, LatencyEncoder, PhaseEncoder, PoissonEncoder
from transpike.coding.encoding import ENCODERS, create_encoder, describe_encoder, encoder_scheme, read_encoder

__all__ = [
    "CSS",
    "ENCODERS",
    "SCHEMES",
    "BurstEncoder",
    "DCTEncoder",
    "DirectEncoder",
    "Encoder",
    "LatencyEncoder",
    "PhaseEncoder",
    "PoissonEncoder",
    "create_encoder",
    "describe_encoder",
    "encoder_scheme",
    "read_encoder",
    "ycbcr",
]

SCHEMES = {"CSS": CSS}
