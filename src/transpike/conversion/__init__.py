"""Conversion: a trained network in, a spiking network out."""

from transpike.conversion.fired import LayerTrace
from transpike.conversion.network import SpikingNetwork
from transpike.conversion.prepare import Prepared, convert, prepare
from transpike.conversion.store import load
from transpike.conversion.until import Continued

__all__ = ["Continued", "LayerTrace", "Prepared", "SpikingNetwork", "convert", "load", "prepare"]
