"""Warns if images lie outside the range that the input's spikes can represent."""

from __future__ import annotations

import warnings

from torch import Tensor

from transpike.coding.scheme import Scheme, finest, largest

__all__ = ["warn_beyond"]

_SHARE = 0.01  # few pixels of new images exceed the range of the calibration images; most do if the scale is wrong


def warn_beyond(scheme: Scheme, images: Tensor, values: Tensor, *, theta: Tensor) -> bool:
    """Warn if more than a hundredth of the input's values are clipped, and return whether a warning was given.

    Args:
        scheme: the coding scheme.
        images: the images [N, \\*].
        values: the same images in units of theta.
        theta: the input's amplitude, [] or one for each channel.
    """
    if not scheme.encoded or not values.numel():
        return False
    top = largest(scheme)
    low, high = top * min(scheme.encoded) / max(scheme.encoded), top
    rounded = finest(scheme) / 2
    least, most = (float(x) for x in values.aminmax())
    if least >= low - rounded and most <= high + rounded:
        return False
    share = float(((values < low - rounded) | (values > high + rounded)).float().mean())
    if share <= _SHARE:
        return False
    least, most = (float(x) for x in images.aminmax())
    wide, narrow = (f"between {low * float(x):.4g} and {high * float(x):.4g}" for x in (theta.max(), theta.min()))
    warnings.warn(
        f"the network's input: {share:.0%} of the images' values are clipped. The values lie between {least:.4g} and "
        f"{most:.4g}. The network was calibrated to encode values {wide}"
        + (f" (in the channel with the narrowest range {narrow})" if narrow != wide else "")
        + ". Preprocess the images exactly like the calibration images.",
        stacklevel=2,
    )
    return True
