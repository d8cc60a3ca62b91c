"""The base class of encoders of pixels: normalised images to pixels, and spikes back to pixels and images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from transpike.coding.encoder import Encoder, first
from transpike.errors import ConfigError, DataError

__all__ = ["Pixels"]

_TOLERANCE = 1e-2


class Pixels(Encoder):
    """The base class of encoders that encode intensities. It maps normalised images back to pixels in [0, 1]."""

    takes_pixels = True
    mean: Tensor
    std: Tensor

    def __init__(self, steps: int, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        super().__init__(steps)
        for name, value in (("mean", mean), ("std", std)):
            tensor = torch.as_tensor(value, dtype=torch.float32)
            self.register_buffer(name, tensor if tensor.ndim == 0 else tensor.view(-1, 1, 1), persistent=False)
        if not (self.std > 0).all():
            raise ConfigError(f"std={std}: expected deviations above 0.")

    def pixels(self, images: Tensor) -> Tensor:
        """Return the pixels ``image * std + mean`` in float32, clipped to [0, 1] if they exceed it by at most 0.01.

        Raises:
            DataError: The images are integers, their channels do not fit, or values are NaN or further outside [0, 1].
        """
        if not images.is_floating_point():
            raise DataError(f"{type(self).__name__} takes floats, not {images.dtype}: divide bytes by 255.")
        channels = max(self.mean.numel(), self.std.numel())
        if channels > 1 and (images.ndim < 4 or images.shape[1] != channels):
            raise DataError(
                f"{type(self).__name__}: mean and std have {channels} channels, but the images have shape "
                f"{list(images.shape)}."
            )
        pixels = images.detach().float() * self.std + self.mean
        low, high = (float(bound) for bound in pixels.aminmax()) if pixels.numel() else (0.0, 1.0)
        if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
            raise DataError(
                f"{type(self).__name__} codes pixels in [0, 1], and these lie in [{low:.4g}, {high:.4g}]: pass the "
                "mean= and std= with which the images were normalised."
            )
        return pixels.clamp_(0, 1)

    def decode(self, spikes: Tensor, *, size: tuple[int, int] | None = None) -> Tensor:
        """Rebuild the images that the first steps represent, normalised as the encoder's input was.

        Args:
            spikes: the first t steps of the encoder's result, [t, N, *].
            size: ignored, because the encoder's result has the images' size.

        Returns:
            [N, *] in float32.

        Raises:
            DataError: There is no step, or there are more than T.
        """
        return (self._pixels_of(first(spikes, self.steps)) - self.mean) / self.std

    def _pixels_of(self, spikes: Tensor) -> Tensor:
        """Return the pixels that spikes [t, N, *] represent: here the mean over the steps."""
        return spikes.mean(0)

    def extra_repr(self) -> str:
        return f"steps={self.steps}, mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()}"
