"""The base class of encoders: an encoder turns images into the input of a spiking network, and back into images."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Self

from torch import Tensor, nn

from transpike.checks import whole
from transpike.errors import DataError

__all__ = ["Encoder", "first"]


class Encoder(nn.Module, ABC):
    """Encodes images [N, C, H, W] as the input of a spiking network over T steps, [T, N, C, H', W'].

    A subclass must define `forward`, `decode`, `operations` and `digits`. It overrides the other methods if it learns
    something or lays out images at another size. The arguments of its constructor after `steps` are its settings. All
    have defaults.

    Args:
        steps: T.

    Attributes:
        takes_pixels: whether the encoder shows pixels in [0, 1], so that it needs the images' `mean` and `std`.
        draws: whether the encoder draws random numbers.

    Raises:
        ConfigError: T is below 1.
    """

    takes_pixels: ClassVar[bool] = False
    draws: ClassVar[bool] = False

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = whole("steps", steps)

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Return the network's input [T, N, *] in the images' dtype. Gradients flow through the images only."""

    @abstractmethod
    def decode(self, spikes: Tensor, *, size: tuple[int, int] | None = None) -> Tensor:
        """Rebuild the images that the first steps represent: [t, N, *] to [N, *] in float32.

        Args:
            spikes: the first t steps of the encoder's result.
            size: (H, W) of the images, if the encoder lays out larger ones.
        """

    @abstractmethod
    def operations(self, image: tuple[int, int, int], *, spikes: float) -> dict[str, float]:
        """Return the operations that encode one image in T steps.

        Args:
            image: (C, H, W).
            spikes: the number of spikes of one image over all steps.

        Returns:
            Counts by the field names of `transpike.metrics.energy.Operations`.
        """

    @abstractmethod
    def digits(self, step: int) -> tuple[float, ...] | None:
        """Return all values that this step (counted from 0) may show, or None for analog values."""

    def fit(self, images: Tensor | Iterable[Tensor | Sequence[Tensor]]) -> Self:
        """Learn from training images, if the encoder learns anything. Returns the encoder itself."""
        return self

    def state(self) -> list[float] | None:
        """Return what `fit` has learned, as numbers for a file, or None for nothing."""
        return None

    def restore(self, state: object) -> None:
        """Restore what `state` returned.

        Raises:
            ModelError: ``state`` has another form.
        """

    def layout(self, images: Tensor) -> Tensor:
        """Return what an artificial network sees in place of the spikes: images in the same layout, [N, C, H', W']."""
        return images

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (H', W') for images of size (H, W)."""
        return size

    def input_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the size (H, W) of images that are laid out as (H', W') without any padding."""
        return size

    @classmethod
    def settings(cls, chosen: Mapping[str, object]) -> dict[str, object]:
        """Return all settings of an encoder with the ``chosen`` ones, including those that keep their defaults."""
        known = inspect.signature(cls).parameters.values()
        own = {one.name: one.default for one in known if one.name not in ("steps", "mean", "std", "generator")}
        return {**own, **chosen}

    @classmethod
    def words(cls, settings: Mapping[str, object]) -> dict[str, str]:
        """Return the report's words for each setting, by name. A setting without words is shown as name and value."""
        return {}


def first(shown: Tensor, steps: int) -> Tensor:
    """Return the first steps of an encoder's result, in float32.

    Raises:
        DataError: There is no step, or there are more than T.
    """
    if not 1 <= len(shown) <= steps:
        raise DataError(f"decode takes 1 to {steps} steps, [t, N, *], not a tensor of shape {list(shown.shape)}.")
    return shown.float()
