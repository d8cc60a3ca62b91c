"""Coding schemes and encoders.

A coding scheme states how values become spikes and what a neuron computes. An encoder turns images into spikes.
"""

from transpike.coding.burst import Burst
from transpike.coding.color import ycbcr
from transpike.coding.css import CSS
from transpike.coding.dct import DCTEncoder
from transpike.coding.differential import Differential
from transpike.coding.encoder import Encoder
from transpike.coding.encoders import BurstEncoder, DirectEncoder, LatencyEncoder, PhaseEncoder, PoissonEncoder
from transpike.coding.encoding import ENCODERS, create_encoder, describe_encoder, encoder_scheme, read_encoder
from transpike.coding.fs import FS
from transpike.coding.multithreshold import MultiThreshold
from transpike.coding.phase import Phase
from transpike.coding.qcfs import QCFS
from transpike.coding.quantised import Quantised
from transpike.coding.rate import Rate
from transpike.coding.scheme import Scheme
from transpike.coding.schemes import DEFAULT, SCHEMES, create_scheme, scheme_settings
from transpike.coding.tsc import TSC
from transpike.coding.ttfs import TTFS

__all__ = [
    "CSS",
    "DEFAULT",
    "ENCODERS",
    "FS",
    "QCFS",
    "SCHEMES",
    "TSC",
    "TTFS",
    "Burst",
    "BurstEncoder",
    "DCTEncoder",
    "Differential",
    "DirectEncoder",
    "Encoder",
    "LatencyEncoder",
    "MultiThreshold",
    "Phase",
    "PhaseEncoder",
    "PoissonEncoder",
    "Quantised",
    "Rate",
    "Scheme",
    "create_encoder",
    "create_scheme",
    "describe_encoder",
    "encoder_scheme",
    "read_encoder",
    "scheme_settings",
    "ycbcr",
]
