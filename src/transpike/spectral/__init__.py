"""Transforms of tensors. They know nothing about networks."""

from transpike.spectral.wavelet import dwt2, idwt2, wavedec2, waverec2

__all__ = ["dwt2", "idwt2", "wavedec2", "waverec2"]
