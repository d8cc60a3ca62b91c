"""Input encoders by name, and as a run's model.json tells of them."""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from transpike.coding import (
    BurstEncoder,
    DCTEncoder,
    DirectEncoder,
    LatencyEncoder,
    PhaseEncoder,
    PoissonEncoder,
)
from transpike.coding.settings import INTERMITTENT
from transpike.errors import ConfigError, ModelError

__all__ = ["ENCODERS", "describe_encoder", "encoder_scheme", "make_encoder", "read_encoder", "takes_pixels"]

ENCODERS: dict[str, type[nn.Module]] = {
    "dct": DCTEncoder,
    "direct": DirectEncoder,
    "poisson": PoissonEncoder,
    "latency": LatencyEncoder,
    "phase": PhaseEncoder,
    "burst": BurstEncoder,
}
_NORMALISED = ("dct", "direct")


def make_encoder(
    name: str, *, steps: int, settings: Mapping[str, Any], mean: tuple[float, ...], std: tuple[float, ...]
) -> nn.Module:
    """An encoder of `ENCODERS`, for images that were normalised by `mean` and `std`.

    Raises:
        ConfigError: for an unknown name, and for settings that it does not take, of the wrong type or out of range.

    >>> make_encoder("phase", steps=4, settings={"phases": 4}, mean=(0.5,), std=(0.5,))
    PhaseEncoder(steps=4, mean=[0.5], std=[0.5], phases=4)
    """
    if name not in ENCODERS:
        near = difflib.get_close_matches(name, ENCODERS, n=1)
        guess = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(f"encoder={name!r} is none of {', '.join(ENCODERS)}.{guess}")
    known = _defaults(name)
    if not settings.keys() <= known.keys():
        takes = ", ".join(known) or "none"
        raise ConfigError(f"settings={dict(settings)} are not the {name} encoder's, which takes {takes}.")
    scale = {"mean": mean, "std": std} if takes_pixels(name) else {}
    return ENCODERS[name](steps=steps, **scale, **settings)


def takes_pixels(name: str) -> bool:
    """Whether an encoder's spikes tell of pixels in [0, 1], however the images were normalised."""
    return name not in _NORMALISED


def describe_encoder(name: str, settings: Mapping[str, Any], encoder: nn.Module) -> dict[str, Any]:
    """What `read_encoder` makes it from."""
    thresholds = encoder.thresholds.tolist() if isinstance(encoder, DCTEncoder) else None
    return {"name": name, "steps": encoder.steps, "settings": dict(settings), "thresholds": thresholds}


def encoder_scheme(name: str, settings: Mapping[str, Any], *, steps: int) -> dict[str, Any]:
    """An encoder's name, T and all of its settings, also those left at their defaults.

    >>> encoder_scheme("phase", {}, steps=4)
    {'name': 'phase', 'steps': 4, 'phases': 8}
    >>> encoder_scheme("dct", {"order": "intermittent"}, steps=16)["frequencies"]
    8
    """
    scheme = {"name": name, "steps": steps, **_defaults(name), **settings}
    if scheme.get("order") == "intermittent" and scheme["frequencies"] is None:
        scheme["frequencies"] = len(INTERMITTENT)
    return scheme


def _defaults(name: str) -> dict[str, Any]:
    """An encoder's own settings."""
    known = inspect.signature(ENCODERS[name]).parameters.values()
    return {one.name: one.default for one in known if one.name not in ("steps", "mean", "std", "generator")}


def read_encoder(model: Mapping[str, Any], *, steps: int | None = None) -> nn.Module:
    """The encoder that a run's model.json tells of, with its thresholds.

    Args:
        model: the description, with `encoder`, `mean` and `std`.
        steps: another T than the run's. What a period has and T leaves out is not warned of again.

    Raises:
        ModelError: if the description lacks something.
    """
    try:
        told = model["encoder"]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="steps=.* show only the first")
            encoder = make_encoder(
                told["name"],
                steps=steps or told["steps"],
                settings=told["settings"],
                mean=tuple(model["mean"]),
                std=tuple(model["std"]),
            )
        if isinstance(encoder, DCTEncoder):
            encoder.thresholds.copy_(torch.tensor(told["thresholds"]))
    except (KeyError, TypeError) as error:
        raise ModelError(f"model.json tells of no whole encoder ({error!r}). Run the experiment again.") from error
    return encoder
