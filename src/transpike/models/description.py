"""The description of a run's network: `model.json`, which is written beside the weights and checked when it is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from transpike import files
from transpike.errors import ModelError
from transpike.files import Record, read_json
from transpike.models.weights import WEIGHTS

__all__ = ["describe_images", "read_description", "save_network"]

AGAIN = "Train again."
NEEDED = ("name", "num_classes", "in_channels")
OWN = {*NEEDED, "image_size", "weights"}
FIELDS: dict[str, Callable[[Record, str], object]] = {
    "name": Record.text,
    "num_classes": partial(Record.whole, least=0, most=1_000_000),
    "in_channels": partial(Record.whole, least=1, most=100_000),
    "image_size": partial(Record.whole, least=1, most=100_000),
    "kwargs": Record.record,
    "data": Record.text,
    "steps": partial(Record.whole, least=1, most=100_000),
    "class_names": Record.texts,
    "mean": Record.numbers,
    "std": Record.numbers,
    "encoder": Record.record,
}


def _describes(path: Path) -> bool:
    content = read_json(path)
    return isinstance(content, dict) and (content.get("own") is True or all(name in content for name in NEEDED))


DESCRIPTION = files.Kind("a description of a network (model.json)", _describes)


def read_description(folder: str | Path) -> dict[str, Any]:
    """Read `model.json` of a training run: `name`, `num_classes`, `in_channels`, `image_size`, `kwargs`, data facts.

    Raises:
        ModelError: The folder has no description or a damaged one, or its network is the user's own module, which
            cannot be created here.
    """
    path = Path(folder) / "model.json"
    if not os.path.lexists(path):
        instead = _instead(Path(folder))
        raise ModelError(
            f"{folder}: not the folder of a finished `transpike train` run: it has no model.json.{instead}"
        )
    record = Record(read_json(path, remedy=AGAIN, error=ModelError), f"{path}: damaged", remedy=AGAIN, error=ModelError)
    if record.has("own") and record.flag("own"):
        raise ModelError(
            f"{folder}: its network, {record.text('name')}, is a module of your own, which no command can make again. "
            f"From Python: make it, transpike.models.load_weights(model, {str(folder)!r}), then "
            "transpike.train.evaluate(model, loader) or transpike.convert(model, images)."
        )
    if missing := [name for name in NEEDED if name not in record.content]:
        raise ModelError(f"{path}: lacks {', '.join(missing)}; it was not written by `transpike train`.")
    for name, read in FIELDS.items():
        if name in NEEDED or record.has(name):
            read(record, name)
    if record.has("kwargs") and (own := OWN & record.record("kwargs").content.keys()):
        raise record.wrong(f"kwargs holds {', '.join(sorted(own))}, which stands beside it.")
    return {name: value for name, value in record.content.items() if value is not None or name != "kwargs"}


def _instead(folder: Path) -> str:
    """Return what a folder without a description contains, as the end of a message."""
    if not os.path.isdir(folder):  # also for a name that no folder can have
        return ""
    if os.path.isfile(folder / "network.json") or any(folder.glob("*/network.json")):
        return " It holds what `transpike convert` made; give the network that was converted."
    inner = sorted(str(path.parent) for path in folder.glob("*/model.json"))
    return f" In it lie {', '.join(inner[:8])}." if inner else ""


def save_network(model: nn.Module, description: Mapping[str, object], folder: str | Path) -> None:
    """Write a trained network to a folder as one change: weights.safetensors, and its description as model.json.

    Args:
        model: the network.
        description: as from `read_description`. For the user's own module, ``own`` is true.
        folder: the folder, which is created if it is missing.

    Raises:
        ModelError: The files cannot be written, or existing files are of another kind.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_network(nn.Linear(2, 1), {"name": "linear", "num_classes": 1, "in_channels": 2}, folder)
        ...     read_description(folder)["name"]
        'linear'
    """
    with files.Change(Path(folder), error=ModelError) as change:
        change.write("weights.safetensors", files.tensors(model.state_dict(), WEIGHTS), kind=WEIGHTS)
        change.write("model.json", files.dumps(description), kind=DESCRIPTION)


def describe_images(name: str) -> dict[str, Any]:
    """Return timm's facts about the images of one of its networks, in the form of `read_description`.

    They are ``mean``, ``std``, ``image_size``, ``crop`` and ``interpolation``. Other networks have none.

    Example:
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
