"""What an encoder is: images into what a spiking network is shown, step by step, and back."""

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
    """Images [N, C, H, W] to what a spiking network is shown in T steps, [T, N, C, H', W'].

    A child gives `forward`, `decode`, `operations` and `digits`; the rest where it differs from an encoder that learns
    nothing and leaves images as large as they are. Its arguments after `steps` are its settings, all with defaults.

    Args:
        steps: T.

    Attributes:
        takes_pixels: whether what it shows tells of pixels in [0, 1], so that it takes the images' `mean` and `std`.
        draws: whether it draws random numbers.

    Raises:
        ConfigError: for T below 1.
    """

    takes_pixels: ClassVar[bool] = False
    draws: ClassVar[bool] = False

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = whole("steps", steps)

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """What is shown, [T, N, *], in the images' type; no gradient flows back but through the images themselves."""

    @abstractmethod
    def decode(self, spikes: Tensor, *, size: tuple[int, int] | None = None) -> Tensor:
        """The images that the first steps of a call's result tell of: [t, N, *] to [N, *] in float32.

        Args:
            spikes: the first t steps.
            size: (H, W) of the images, where the encoder lays out larger ones.
        """

    @abstractmethod
    def operations(self, image: tuple[int, int, int], *, spikes: float) -> dict[str, float]:
        """What it computes for one image in T steps.

        Args:
            image: (C, H, W).
            spikes: of one image over all steps.

        Returns:
            Counts by the names of `transpike.metrics.energy.Operations`.
        """

    @abstractmethod
    def digits(self, step: int) -> tuple[float, ...] | None:
        """All values that a step may show, counted from 0; None for analog ones."""

    def fit(self, images: Tensor | Iterable[Tensor | Sequence[Tensor]]) -> Self:
        """Learn from training images what there is to learn; returns the encoder itself."""
        return self

    def state(self) -> list[float] | None:
        """What `fit` has learned, as numbers for a file; None for nothing."""
        return None

    def restore(self, state: object) -> None:
        """Take up what `state` gave.

        Raises:
            ModelError: if it is nothing of the kind.
        """

    def layout(self, images: Tensor) -> Tensor:
        """What an artificial network sees in place of the spikes: the images [N, C, H', W'], laid out as these are."""
        return images

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(H', W') for images of size (H, W)."""
        return size

    def input_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size (H, W) of images that are laid out as (H', W') without any padding."""
        return size

    @classmethod
    def settings(cls, chosen: Mapping[str, object]) -> dict[str, object]:
        """All settings of an encoder that is made with some, also those left at their defaults."""
        known = inspect.signature(cls).parameters.values()
        own = {one.name: one.default for one in known if one.name not in ("steps", "mean", "std", "generator")}
        return {**own, **chosen}

    @classmethod
    def words(cls, settings: Mapping[str, object]) -> dict[str, str]:
        """The report's words for each setting, by name. A setting without words is shown as name and value."""
        return {}


def first(shown: Tensor, steps: int) -> Tensor:
    """The first steps of an encoder's result, in float32.

    Raises:
        DataError: for no step, or more than T.
    """
    if not 1 <= len(shown) <= steps:
        raise DataError(f"decode takes 1 to {steps} steps, [t, N, *], not a tensor of shape {list(shown.shape)}.")
    return shown.float()
