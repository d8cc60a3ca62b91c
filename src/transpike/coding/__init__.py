"""Coding schemes: how values become spikes, and what a neuron is in each."""

from transpike.coding.css import CSS

__all__ = ["CSS", "SCHEMES"]

SCHEMES = {"CSS": CSS}
