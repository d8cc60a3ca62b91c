"""Whether images lie in the range that the input's spikes can say."""

from __future__ import annotations

import warnings

from torch import Tensor

from transpike.coding.scheme import Scheme, finest, largest

__all__ = ["warn_beyond"]

_SHARE = 0.01  # new images exceed the largest calibration value by some pixels; a wrong scale exceeds it by most


def warn_beyond(scheme: Scheme, images: Tensor, values: Tensor, *, theta: Tensor) -> bool:
    """Warn if more than a hundredth of the input's values are clipped; whether they are.

    Args:
        scheme: the code.
        images: [N, \\*].
        values: the same in units of their amplitude.
        theta: the amplitude, [] or one a channel.
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
        f"the network's input: {share:.0%} of the values are clipped. They lie between {least:.4g} and {most:.4g}; by "
        f"its calibration images, the network can encode values {wide}"
        + (f" (in the channel with the smallest ones {narrow})" if narrow != wide else "")
        + ". Preprocess the images like the calibration images",
        stacklevel=2,
    )
    return True
