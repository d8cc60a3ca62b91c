"""The networks of the hybrid route: what each is made from, and the folders in which runs leave them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from torch import nn

from transpike.errors import ModelError
from transpike.models import create_model, model_names, read_description
from transpike.train.options import Arguments

__all__ = ["FOLDERS", "Network", "Shape", "check_images", "given_folder"]

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


def given_folder(name: str, stage: str) -> Path | None:
    """The folder in which an earlier run left a stage's network; None where ``name`` is a network's."""
    folder = Path(name)
    if name in model_names() or not folder.is_dir():
        return None
    inner = folder / FOLDERS[stage]
    return inner if (inner / "model.json").is_file() else folder


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
