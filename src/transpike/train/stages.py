"""The networks of the hybrid route: what each is made from, and the folders in which runs leave them."""

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
"""Where a stage that is not the last leaves its network."""


class Shape(TypedDict):
    """What `create_model` takes of images and their classes."""

    num_classes: int
    in_channels: int
    image_size: int


@dataclass(frozen=True)
class Network:
    """A network, and what `create_model` makes it from."""

    model: nn.Module
    name: str
    kwargs: Arguments

    @classmethod
    def load(cls, folder: Path) -> Network:
        """The network that a run left in a folder."""
        about = read_description(folder)
        return cls(create_model(folder), about["name"], about.get("kwargs", {}))

    @property
    def thresholds(self) -> dict[str, float]:
        """By layer of neurons; none of an artificial network."""
        found = ((name, getattr(node, "v_threshold", None)) for name, node in self.model.named_modules())
        return {name: float(threshold) for name, threshold in found if threshold is not None}


def stage_folder(name: str, stage: str) -> Path | None:
    """The folder in which an earlier run left a stage's network; None where ``name`` is a network's."""
    folder = Path(name)
    if name in model_names() or not os.path.isdir(folder):
        return None
    inner = folder / FOLDERS[stage]
    return inner if os.path.isfile(inner / "model.json") else folder


def check_networks(ann: str, *, network: Arguments, alone: Arguments, neuron: Arguments) -> None:
    """Make sure that an artificial network and its spiking twin can be made.

    Args:
        ann: its name, or a folder that holds it, which knows its arguments.
        network: what both take.
        alone: what it alone takes.
        neuron: what its twin alone takes.

    Raises:
        ConfigError: as `check_twin`.
        ModelError: as `check_twin`, or if the folder holds a spiking network.
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
    """Make sure that a network takes images as this run's encoder lays them out, normalised as it needs them.

    Args:
        folder: the network's.
        about: what its model.json says.
        wanted: what it must say of images and classes.

    Raises:
        ModelError: naming what differs.
    """
    pairs = {name: (_listed(about.get(name)), _listed(value)) for name, value in wanted.items()}
    wrong = [f"{name} {found}, here {needed}" for name, (found, needed) in pairs.items() if found != needed]
    if wrong:
        raise ModelError(
            f"{folder}: trained on other images than this run's: {'; '.join(wrong)}. Train it by `transpike hybrid "
            "--last ann` with this data set and encoder, or give --loading.mean and --loading.std."
        )


def _listed(value: object) -> object:
    """A tuple as JSON holds it."""
    return list(value) if isinstance(value, tuple) else value
