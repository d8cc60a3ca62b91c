"""Data: image sets and event sets by name, as loaders of batches."""

from transpike.data.batches import EpochSampler, MemoryImages
from transpike.data.event_given import event_sets
from transpike.data.events import EventFrames, EventSets, event_frames, load_events
from transpike.data.images import ImageSets, Loading, load_images

__all__ = [
    "EpochSampler",
    "EventFrames",
    "EventSets",
    "ImageSets",
    "Loading",
    "MemoryImages",
    "event_frames",
    "event_sets",
    "load_events",
    "load_images",
]
