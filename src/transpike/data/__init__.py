"""Data: image sets by name, as loaders of normalised batches."""

from transpike.data.batches import EpochSampler, MemoryImages
from transpike.data.images import ImageSets, Loading, load_images

__all__ = ["EpochSampler", "ImageSets", "Loading", "MemoryImages", "load_images"]
