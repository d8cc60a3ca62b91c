"""The errors that a user can cause. Each message says what was wrong, where, and what to do."""

from __future__ import annotations

import errno
from typing import Any

__all__ = ["ConfigError", "ConversionError", "DataError", "GoalError", "ModelError", "TranspikeError", "reason"]


class TranspikeError(ValueError):
    """The base class of every error that bad input can raise. The command line prints it and exits with its code."""

    code = 2


class ConfigError(TranspikeError):
    """An option has a value that is not allowed."""


class ConversionError(TranspikeError):
    """A network, or its calibration data, has no spiking form under the chosen scheme."""


class GoalError(ConversionError):
    """No converted network meets the goal within the limits.

    Args:
        message: the closest try, and the limit that it breaks.
        tries: the tried networks: `transpike.results.Try`.
    """

    code = 1

    def __init__(self, message: str, tries: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.tries = tries


class DataError(TranspikeError):
    """A data set is missing, damaged or of the wrong shape."""


class ModelError(TranspikeError):
    """A network or its weights cannot be found, built or loaded."""


_REASONS = {
    errno.EACCES: "permission denied. Change its permissions, or name another place",
    errno.EPERM: "permission denied. Change its permissions, or name another place",
    errno.EROFS: "it lies on a read-only disk. Name a place on another one",
    errno.ENOSPC: "no space is left on its disk. Free some, or name a place on another disk",
    errno.EDQUOT: "your quota on its disk is used up. Free some of it, or name a place on another disk",
    errno.EFBIG: "it would be larger than a file may be there. Raise the limit (ulimit -f), or name another disk",
    errno.ENAMETOOLONG: "its name is too long. Name a shorter one",
    errno.EISDIR: "it is a folder. Name a file in it",
    errno.ENOTDIR: "a part of its path is a file, not a folder. Name another place",
    errno.EEXIST: "a file lies where a folder is needed. Name another place",
    errno.ENOENT: "no such file or folder. Check the path",
    errno.ELOOP: "its links lead in a circle. Name the file itself",
    errno.ENXIO: "it is a pipe, and no program reads from it. Start the reader first",
    errno.EPIPE: "the program that read from it has ended. Start it again",
    errno.EMFILE: "this process has too many files open. Raise the limit (ulimit -n)",
}


def reason(error: OSError | ValueError) -> str:
    """Return why a file could not be read or written, and what to do, as text after its path and a colon.

    Example:
        >>> reason(OSError(errno.ENOSPC, "No space left on device"))
        'no space is left on its disk. Free some, or name a place on another disk.'
    """
    number = getattr(error, "errno", None)
    if number in _REASONS:
        return f"{_REASONS[number]}."
    if isinstance(error, OSError):
        return f"{error.strerror or error}."
    return f"no file can have such a name ({error}). Name another one."
