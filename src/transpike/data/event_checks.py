"""Checks of events and recordings from any source: whole numbers, on the sensor, ON or OFF."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from transpike.errors import DataError

__all__ = ["Events", "Integers", "checked_events"]

Integers = NDArray[np.int64]

_LONGEST = 2**62


class Events(NamedTuple):
    """The events of one recording in the file's order: four int64 arrays of one length.

    Attributes:
        x: The column of the pixel, from the left.
        y: The row of the pixel, from the top.
        p: 1 if the pixel became brighter (ON), 0 if it became darker (OFF).
        t: The time in microseconds.
    """

    x: Integers
    y: Integers
    p: Integers
    t: Integers


def checked_events(events: Events, size: int) -> Events:
    """Return any events in our form: four int64 arrays of one length, polarity 0 or 1.

    Whole numbers of other types are converted. Polarity may be -1 and 1, as in tonic's and Prophesee's files; -1
    becomes 0.

    Args:
        events: any four sequences x, y, p, t.
        size: side of the sensor in pixels.

    Raises:
        DataError: The lengths differ, numbers are not whole, pixels lie off the sensor, polarities have more than two
            values, or times differ by more than 64 bits can represent.

    Example:
        >>> events = Events(x=[0, 1], y=np.zeros(2, np.uint8), p=np.array([-1, 1]), t=np.array([0.0, 5.0]))
        >>> checked_events(events, 2).p, checked_events(events, 2).t
        (array([0, 1]), array([0, 5]))
    """
    fields = {name: _whole(name, values) for name, values in zip(Events._fields, events, strict=True)}
    lengths = [len(values) for values in fields.values()]
    if len(set(lengths)) > 1:
        raise DataError(f"events need x, y, p and t of one length, not {', '.join(map(str, lengths))}.")
    whole = Events(**fields)
    if not lengths[0]:
        return whole
    outside = (whole.x < 0) | (whole.x >= size) | (whole.y < 0) | (whole.y >= size)
    if outside.any():
        first = int(outside.argmax())
        place = f"({whole.x[first]}, {whole.y[first]})"
        raise DataError(f"event {first} of {lengths[0]} is at {place}, outside the {size}x{size} pixels.")
    low, high = int(whole.t.min()), int(whole.t.max())
    if high - low > _LONGEST:
        raise DataError(f"the times of events reach from {low} to {high}: they cannot be microseconds.")
    return whole._replace(p=_polarity(whole.p))


def _whole(name: str, values: object) -> Integers:
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        raise DataError(f"events' {name}: expected whole numbers [n], got {array.dtype} {list(array.shape)}.")
    if array.dtype == np.int64:
        return array
    with np.errstate(invalid="ignore"):
        whole = array.astype(np.int64)
        wrong = whole != array
    # A float of 2**63, or an unsigned number of at least that, becomes negative.
    wrong |= (whole < 0) != (array < 0)
    if wrong.any():
        first = int(wrong.argmax())
        hint = ": times are in microseconds; multiply seconds by 1e6 and round them" if name == "t" else ""
        example = f"{name}={array[first]}"
        raise DataError(f"event {first} of {len(array)} has {example}, not a whole number of 64 bits{hint}.")
    return whole


def _polarity(p: Integers) -> Integers:
    low, high = int(p.min()), int(p.max())
    if low >= 0 and high <= 1:
        return p
    if low == -1 and high <= 1 and (p != 0).all():
        return (p > 0).astype(np.int64)
    values = np.unique(p)
    shown = ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")
    raise DataError(f"the polarity of events must be 0 and 1, or -1 and 1, but here it is {shown}.")
