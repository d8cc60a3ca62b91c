"""The networks of the hybrid route: the arguments that create them, and the folders in which runs save them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from torch import nn

from transpike.errors import ModelError
from transpike.models import check_name, create_model, model_names, read_description
from transpike.train.hybrid import LARGE, check_twin
from transpike.train.options import Arguments

__all__ = ["FOLDERS", "Network", "Shape", "check_images", "check_networks", "stage_folder"]

FOLDERS = {"ann": "ann", "balance": "balanced", "tune": "tuned"}
"""The place in which a stage, except the last, saves its network."""


class Shape(TypedDict):
    """The arguments of `create_model` that describe images and classes."""

    num_classes: int
    in_channels: int
    image_size: int


@dataclass(frozen=True)
class Network:
    """A network, and the arguments of `create_model` that create it."""

    model: nn.Module
    name: str
    kwargs: Arguments

    @classmethod
    def load(cls, folder: Path) -> Network:
        """Load the network that a run saved in a folder."""
        about = read_description(folder)
        return cls(create_model(folder), about["name"], about.get("kwargs", {}))

    @property
    def thresholds(self) -> dict[str, float]:
        """Return the thresholds by layer of neurons; none for an artificial network."""
        found = ((name, getattr(node, "v_threshold", None)) for name, node in self.model.named_modules())
        return {name: float(threshold) for name, threshold in found if threshold is not None}


def stage_folder(name: str, stage: str) -> Path | None:
    """Return the folder in which an earlier run saved a stage's network. None if ``name`` is the name of a network."""
    folder = Path(name)
    if name in model_names() or not os.path.isdir(folder):
        return None
    inner = folder / FOLDERS[stage]
    return inner if os.path.isfile(inner / "model.json") else folder


def check_networks(ann: str, *, network: Arguments, alone: Arguments, neuron: Arguments) -> None:
    """Check that an artificial network and its spiking twin can be created.

    Args:
        ann: its name, or a folder that holds it, which contains its arguments.
        network: the arguments of both.
        alone: the arguments of the artificial network only.
        neuron: the arguments of its twin only.

    Raises:
        ConfigError: As for `check_twin`.
        ModelError: As for `check_twin`; or the folder holds a spiking network.
    """
    given = {"network": network, "pretraining.network": alone, "neuron": neuron}
    folder = stage_folder(ann, "ann")
    if folder is None:
        check_name(ann)
        shape = {"num_classes": 10, "in_channels": 3, "image_size": LARGE}
        check_twin(ann, shape, network | alone, twin=network | neuron, given=given)
        return
    about = read_description(folder)
    if about.get("steps") is not None:
        raise ModelError(f"{folder}: {about['name']} is a spiking network; --ann takes an artificial one.")
    shape = {name: about[name] for name in ("num_classes", "in_channels", "image_size") if name in about}
    own = about.get("kwargs", {})
    check_twin(about["name"], shape, own, twin=own | network | neuron, given=given)


def check_images(folder: Path, about: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    """Check that a network takes images in the layout of this run's encoder, with the normalisation that it needs.

    Args:
        folder: the network's folder.
        about: the content of its model.json.
        wanted: the required facts about images and classes.

    Raises:
        ModelError: The message names the difference.
    """
    pairs = {name: (_listed(about.get(name)), _listed(value)) for name, value in wanted.items()}
    wrong = [f"{name} {found}, here {needed}" for name, (found, needed) in pairs.items() if found != needed]
    if wrong:
        raise ModelError(
            f"{folder}: trained on other images than this run's: {'; '.join(wrong)}. Train it by `transpike hybrid "
            "--last ann` with this data set and encoder, or give --loading.mean and --loading.std."
        )


def _listed(value: object) -> object:
    """Return a tuple as JSON stores it."""
    return list(value) if isinstance(value, tuple) else value
