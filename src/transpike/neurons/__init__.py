"""Spiking neurons: surrogate gradients, trainable nodes and the tracking neuron of conversion.

Time is the first axis: [T, N, *]. The nodes take SpikingJelly's keywords.
"""

from transpike.neurons.base import SpikingNode, reset_net
from transpike.neurons.kernels import Dynamics, multi_step
from transpike.neurons.kernels.memory import empty_cache
from transpike.neurons.lif import DCTLIFNode, IFNode, LIFNode, ParametricLIFNode, TSANode
from transpike.neurons.surrogate import ATan, Rectangular, Sigmoid, Surrogate, Ternary, Triangular

__all__ = [
    "ATan",
    "DCTLIFNode",
    "Dynamics",
    "IFNode",
    "LIFNode",
    "ParametricLIFNode",
    "Rectangular",
    "Sigmoid",
    "SpikingNode",
    "Surrogate",
    "TSANode",
    "Ternary",
    "Triangular",
    "empty_cache",
    "multi_step",
    "reset_net",
]
