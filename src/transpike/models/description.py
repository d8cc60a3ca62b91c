"""What a run's folder says of its network: `model.json`, written beside the weights, checked when it is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from transpike import files
from transpike.checks import is_whole, refuse, whole
from transpike.errors import ModelError
from transpike.files import JSON, read_json
from transpike.models.weights import WEIGHTS

__all__ = ["describe_images", "read_description", "save_network"]

AGAIN = "Train again."
Check = Callable[[str, JSON], object]
DESCRIPTION = files.json_kind("a description of a network (model.json)", name=str, num_classes=int, in_channels=int)


def read_description(folder: str | Path) -> dict[str, Any]:
    """`model.json` of a training run: `name`, `num_classes`, `in_channels`, `image_size`, `kwargs`; the data's facts.

    Raises:
        ModelError: if the folder holds none, or a damaged one.
    """
    path = Path(folder) / "model.json"
    if not os.path.lexists(path):
        raise ModelError(f"{folder}: not the folder of a finished `transpike train` run, for it has no model.json.")
    found = read_json(path, remedy=AGAIN, error=ModelError)
    if not isinstance(found, dict):
        raise ModelError(f"{path}: damaged: no names with values. {AGAIN}")
    if missing := [name for name in NEEDED if name not in found]:
        raise ModelError(f"{path}: lacks {', '.join(missing)}; it was not written by `transpike train`.")
    for name, check in FIELDS.items():
        if name in NEEDED or found.get(name) is not None:
            check(f"{path}: damaged: {name}", found[name])
    return {name: value for name, value in found.items() if value is not None or name not in ("kwargs",)}


def save_network(model: nn.Module, description: Mapping[str, object], folder: str | Path) -> None:
    """Write a trained network to a folder as one change: weights.safetensors, and what they are of as model.json.

    Args:
        model: the network.
        description: as `read_description` gives it.
        folder: made if it is missing.

    Raises:
        ModelError: if it cannot be written, or what lies there are no such files.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_network(nn.Linear(2, 1), {"name": "linear", "num_classes": 1, "in_channels": 2}, folder)
    ...     read_description(folder)["name"]
    'linear'
    """
    with files.Change(Path(folder), error=ModelError) as change:
        change.write("weights.safetensors", files.tensors(model.state_dict(), WEIGHTS), kind=WEIGHTS)
        change.write("model.json", files.dumps(description), kind=DESCRIPTION)


def _text(name: str, value: JSON) -> None:
    if not isinstance(value, str) or not value:
        raise refuse(name, value, "a text", error=ModelError)


def _count(least: int, most: int) -> Check:
    return lambda name, value: whole(name, value, least=least, most=most, error=ModelError)


def _mapping(name: str, value: JSON) -> None:
    if not isinstance(value, dict):
        raise refuse(name, value, "names with values", error=ModelError)


def _numbers(name: str, value: JSON) -> None:
    if not isinstance(value, list) or not all(isinstance(each, float) or is_whole(each) for each in value):
        raise refuse(name, value, "a list of numbers", error=ModelError)


def _texts(name: str, value: JSON) -> None:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise refuse(name, value, "a list of names", error=ModelError)


def _kwargs(name: str, value: JSON) -> None:
    _mapping(name, value)
    assert isinstance(value, dict)
    if own := {"name", "num_classes", "in_channels", "image_size", "weights"} & value.keys():
        raise refuse(name, value, f"none that stand beside it, as {', '.join(sorted(own))}", error=ModelError)


NEEDED = ("name", "num_classes", "in_channels")
FIELDS: dict[str, Check] = {
    "name": _text,
    "num_classes": _count(0, 1_000_000),
    "in_channels": _count(1, 100_000),
    "image_size": _count(1, 100_000),
    "kwargs": _kwargs,
    "data": _text,
    "steps": _count(1, 100_000),
    "class_names": _texts,
    "mean": _numbers,
    "std": _numbers,
    "encoder": _mapping,
}


def describe_images(name: str) -> dict[str, Any]:
    """What timm says of the images of one of its networks, as `read_description` does: ``mean``, ``std``,
    ``image_size``, ``crop`` and ``interpolation``; nothing of other networks.

    >>> describe_images("timm/resnet18")["image_size"], describe_images("resnet20")
    (224, {})
    """
    library, _, rest = name.partition("/")
    if library != "timm":
        return {}
    import timm

    config = timm.get_pretrained_cfg(rest) if timm.is_model(rest) else None
    if config is None:
        return {}
    known = {"mean": config.mean, "std": config.std, "image_size": config.input_size[-1], "crop": config.crop_pct}
    return known | {"interpolation": config.interpolation}
