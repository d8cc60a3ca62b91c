"""What several commands begin with: a network and its images, by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from transpike.data import ImageSets, Loading, load_images
from transpike.errors import ConfigError, ModelError
from transpike.experiments.runs import located

__all__ = ["checked_device", "load_inputs", "network_name", "read_options", "timm_config"]


def load_inputs(
    model: str,
    *,
    data: str | None,
    root: Path,
    download: bool,
    loading: Loading,
    weights: Path | None = None,
    network: dict[str, Any] | None = None,
) -> tuple[nn.Module, ImageSets]:
    """The network named ``model``, in evaluation mode, and images prepared as it was trained on them.

    ``model`` may be the folder of a `transpike train` run, which knows its data set; timm's networks know their image
    size and normalisation. What ``loading`` says goes first.

    Raises:
        TranspikeError: if the network, its weights or its images cannot be had.
    """
    from transpike.models import check_name, create_model, read_description

    described: dict[str, Any] = {}
    if Path(model).is_dir():
        described = read_description(model)
        if described.get("encoder"):
            raise ModelError(f"{model}: a network of `transpike hybrid` takes encoded images, as `evaluate` does.")
    elif weights is None:
        check_name(model)
        raise ModelError(
            f"{model}: give --weights, a file or the folder of a `transpike train` run; an untrained network has "
            "nothing to convert. To train one: transpike train"
        )
    elif Path(weights).is_dir() and (Path(weights) / "model.json").exists():
        described = read_description(weights)
    data = data or described.get("data")
    if data is None:
        raise ConfigError(f"{model}: give --data, the images to calibrate and to test with")
    if described.get("data") == data:
        loading = _filled(loading, described)
    elif model.startswith("timm/"):
        loading = _filled(loading, timm_config(model.removeprefix("timm/")))
    sets = load_images(data, root=root, download=download, loading=loading)
    shape = {"num_classes": loading.outputs or sets.classes, "in_channels": sets.channels, "image_size": sets.size}
    ann = create_model(model, **shape, weights=weights, **(network or {}))
    return ann.eval(), sets


def network_name(model: str) -> str:
    """The network's name, also where ``model`` is the folder of a training run."""
    from transpike.models import read_description

    return str(read_description(model)["name"]) if Path(model).is_dir() else model


def _filled(loading: Loading, known: dict[str, Any]) -> Loading:
    """``loading`` with what it leaves open taken from what is known of the network's training."""
    given: dict[str, Any] = {
        "mean": tuple(known["mean"]) if known.get("mean") else None,
        "std": tuple(known["std"]) if known.get("std") else None,
        "size": known.get("image_size"),
        "crop": known.get("crop"),
        "interpolation": known.get("interpolation"),
        "outputs": known.get("num_classes"),
    }
    return replace(loading, **{key: value for key, value in given.items() if getattr(loading, key) is None})


def timm_config(name: str) -> dict[str, Any]:
    """What timm knows of its network's images: normalisation, size, crop, interpolation; empty if nothing."""
    import timm

    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if config is None:
        return {}
    known = {"mean": config.mean, "std": config.std, "image_size": config.input_size[-1], "crop": config.crop_pct}
    return known | {"interpolation": config.interpolation}


def checked_device(name: str) -> str:
    """``name``, if something can be computed there.

    Raises:
        ConfigError: if PyTorch knows no such device, or this machine has none.
    """
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"device {name!r} cannot be used here ({reason}); use cpu, or cuda on a machine with a GPU"
        ) from error
    return name


def read_options(folder: Path) -> dict[str, Any]:
    """The options of the run in ``folder``; empty if it holds none that can be read."""
    try:
        return located(json.loads((folder / "run.json").read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return {}
