"""Input encoders by name: creates them from settings, describes them for a file, and reads them from a file."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from numbers import Real

from transpike.checks import near
from transpike.coding.dct import DCTEncoder
from transpike.coding.encoder import Encoder
from transpike.coding.encoders import BurstEncoder, DirectEncoder, LatencyEncoder, PhaseEncoder, PoissonEncoder
from transpike.errors import ConfigError, ModelError

__all__ = ["ENCODERS", "create_encoder", "describe_encoder", "encoder_scheme", "read_encoder"]

ENCODERS: dict[str, type[Encoder]] = {
    "dct": DCTEncoder,
    "direct": DirectEncoder,
    "poisson": PoissonEncoder,
    "latency": LatencyEncoder,
    "phase": PhaseEncoder,
    "burst": BurstEncoder,
}
"""The encoders by name. No other list of their names exists."""


def create_encoder(
    name: str, *, steps: int, settings: Mapping[str, object], mean: Sequence[float], std: Sequence[float]
) -> Encoder:
    """Create an encoder of `ENCODERS`, for images that were normalised by `mean` and `std`.

    Args:
        name: the encoder's name.
        steps: T.
        settings: the encoder's other settings, by name.
        mean: the mean by which the images were normalised, one number for each channel. Encoders that show images
            unchanged ignore it.
        std: the standard deviation, likewise.

    Raises:
        ConfigError: The name is unknown. Or a setting is unknown, of the wrong type or out of range.

    Example:
        >>> create_encoder("phase", steps=4, settings={"phases": 4}, mean=(0.5,), std=(0.5,))
        PhaseEncoder(steps=4, mean=[0.5], std=[0.5], phases=4)
    """
    if name not in ENCODERS:
        raise ConfigError(f"encoder={name!r} is not one of {', '.join(ENCODERS)}.{near(name, ENCODERS)}")
    known = ENCODERS[name].settings({})
    if not settings.keys() <= known.keys():
        takes = ", ".join(known) or "none"
        raise ConfigError(f"settings={dict(settings)} do not fit the {name} encoder, which takes {takes}.")
    make: Callable[..., Encoder] = ENCODERS[name]
    scale = {"mean": mean, "std": std} if ENCODERS[name].takes_pixels else {}
    return make(steps=steps, **scale, **settings)


def describe_encoder(name: str, settings: Mapping[str, object], encoder: Encoder) -> dict[str, object]:
    """Return the description from which `read_encoder` creates the encoder, as JSON data.

    Example:
        >>> encoder = create_encoder("phase", steps=4, settings={"phases": 4}, mean=(0.5,), std=(0.5,))
        >>> describe_encoder("phase", {"phases": 4}, encoder)
        {'name': 'phase', 'steps': 4, 'settings': {'phases': 4}, 'thresholds': None}
    """
    return {"name": name, "steps": encoder.steps, "settings": dict(settings), "thresholds": encoder.state()}


def encoder_scheme(name: str, settings: Mapping[str, object], *, steps: int) -> dict[str, object]:
    """Return an encoder's name, T and all of its settings, including those that keep their defaults.

    Example:
        >>> encoder_scheme("phase", {}, steps=4)
        {'name': 'phase', 'steps': 4, 'phases': 8}
        >>> encoder_scheme("dct", {"order": "intermittent"}, steps=16)["frequencies"]
        8
    """
    return {"name": name, "steps": steps, **ENCODERS[name].settings(settings)}


def read_encoder(model: Mapping[str, object], *, steps: int | None = None) -> Encoder:
    """Create the encoder that a run's model.json describes, with what it has learned.

    Args:
        model: the description: `encoder` as from `describe_encoder`, `mean` and `std`.
        steps: another T than the run's. There is no second warning about frequencies that this T never shows.

    Raises:
        ModelError: The description lacks an entry, or an entry has another type.
        ConfigError: As for `create_encoder`.

    Example:
        >>> encoder = create_encoder("phase", steps=4, settings={}, mean=(0.5,), std=(0.5,))
        >>> read_encoder({"encoder": describe_encoder("phase", {}, encoder), "mean": [0.5], "std": [0.5]}, steps=8)
        PhaseEncoder(steps=8, mean=[0.5], std=[0.5], phases=8)
    """
    described = model.get("encoder")
    if not isinstance(described, Mapping):
        raise _damaged("encoder")
    name, own, settings = described.get("name"), described.get("steps"), described.get("settings")
    if not isinstance(name, str) or not isinstance(own, int) or not isinstance(settings, Mapping):
        raise _damaged("encoder")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="steps=.*: only the first")
        encoder = create_encoder(
            name, steps=steps or own, settings=settings, mean=_numbers(model, "mean"), std=_numbers(model, "std")
        )
    encoder.restore(described.get("thresholds"))
    return encoder


def _numbers(model: Mapping[str, object], name: str) -> tuple[float, ...]:
    entry = model.get(name)
    if not isinstance(entry, list | tuple) or not all(isinstance(value, Real) for value in entry):
        raise _damaged(name)
    return tuple(float(value) for value in entry)


def _damaged(name: str) -> ModelError:
    return ModelError(
        f"model.json does not describe a complete encoder: {name} is missing or damaged. Run the experiment again."
    )
