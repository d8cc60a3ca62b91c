"""Input encoders by name: made with settings, described for a file, and read back from it."""

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
"""By name, the encoders; nothing else keeps a list of their names."""


def create_encoder(
    name: str, *, steps: int, settings: Mapping[str, object], mean: Sequence[float], std: Sequence[float]
) -> Encoder:
    """An encoder of `ENCODERS`, for images that were normalised by `mean` and `std`.

    Args:
        name: of the encoder.
        steps: T.
        settings: what else it takes, by name.
        mean: by which the images were normalised, one number a channel; what shows images as they are ignores it.
        std: likewise.

    Raises:
        ConfigError: for an unknown name, and for settings that it does not take, of the wrong type or out of range.

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
    """What `read_encoder` makes it from, as JSON.

    >>> encoder = create_encoder("phase", steps=4, settings={"phases": 4}, mean=(0.5,), std=(0.5,))
    >>> describe_encoder("phase", {"phases": 4}, encoder)
    {'name': 'phase', 'steps': 4, 'settings': {'phases': 4}, 'thresholds': None}
    """
    return {"name": name, "steps": encoder.steps, "settings": dict(settings), "thresholds": encoder.state()}


def encoder_scheme(name: str, settings: Mapping[str, object], *, steps: int) -> dict[str, object]:
    """An encoder's name, T and all of its settings, also those left at their defaults.

    >>> encoder_scheme("phase", {}, steps=4)
    {'name': 'phase', 'steps': 4, 'phases': 8}
    >>> encoder_scheme("dct", {"order": "intermittent"}, steps=16)["frequencies"]
    8
    """
    return {"name": name, "steps": steps, **ENCODERS[name].settings(settings)}


def read_encoder(model: Mapping[str, object], *, steps: int | None = None) -> Encoder:
    """The encoder that a run's model.json describes, with what it has learned.

    Args:
        model: the description, with `encoder` as `describe_encoder` gives it, `mean` and `std`.
        steps: another T than the run's. What a period has and T leaves out is not warned of again.

    Raises:
        ModelError: if the description lacks something, or has it of another type.
        ConfigError: as `create_encoder`.

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
        warnings.filterwarnings("ignore", message="steps=.* show only the first")
        encoder = create_encoder(
            name, steps=steps or own, settings=settings, mean=_numbers(model, "mean"), std=_numbers(model, "std")
        )
    encoder.restore(described.get("thresholds"))
    return encoder


def _numbers(model: Mapping[str, object], name: str) -> tuple[float, ...]:
    found = model.get(name)
    if not isinstance(found, list | tuple) or not all(isinstance(value, Real) for value in found):
        raise _damaged(name)
    return tuple(float(value) for value in found)


def _damaged(name: str) -> ModelError:
    return ModelError(
        f"model.json does not describe a complete encoder: {name} is missing or damaged. Run the experiment again."
    )
