"""The errors a user can cause. Each message says what was wrong, where, and what to do about it."""

from __future__ import annotations

__all__ = ["ConfigError", "ConversionError", "DataError", "ModelError", "TranspikeError"]


class TranspikeError(ValueError):
    """Base of every error that bad input can raise; the command line prints it and exits with code 2."""


class ConfigError(TranspikeError):
    """An option has a value it cannot have."""


class ConversionError(TranspikeError):
    """A network, or its calibration data, has no spiking form under the chosen scheme."""


class DataError(TranspikeError):
    """A data set is missing, damaged or of the wrong shape."""


class ModelError(TranspikeError):
    """A network or its weights cannot be found, built or loaded."""
