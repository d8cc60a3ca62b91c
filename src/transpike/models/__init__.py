"""Networks by name, created by `create_model`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from transpike import files
from transpike.checks import near, no_network, shown, whole
from transpike.errors import ModelError, TranspikeError
from transpike.models.arguments import (
    check_arguments,
    check_beside,
    describe_arguments,
    guess_argument,
    network_arguments,
)
from transpike.models.description import describe_images, read_description, save_network
from transpike.models.network_files import is_network_file, read_network
from transpike.models.outlines import outlined
from transpike.models.weights import check_weights, load_weights, read_weights, save_weights
from transpike.models.zoo import NETWORKS, build_network

__all__ = [
    "check_arguments",
    "check_beside",
    "check_name",
    "create_model",
    "describe_arguments",
    "describe_images",
    "describe_network",
    "is_network_file",
    "is_run",
    "load_weights",
    "model_names",
    "network_arguments",
    "read_description",
    "read_network",
    "read_weights",
    "save_network",
    "save_weights",
]

FAILURES = (
    TypeError,
    ValueError,
    RuntimeError,
    ArithmeticError,
    LookupError,
    AttributeError,
    MemoryError,
    AssertionError,
)
"""The exceptions that a network's constructor may raise for arguments that are not possible."""


LIBRARIES = {"timm": "timm.list_models()", "torchvision": "torchvision.models.list_models()"}
"""Libraries whose networks are known too, and the function that lists their names."""

MADE = "_transpike_made"
"""The attribute in which a network stores the arguments of `create_model` that created it."""


def model_names() -> list[str]:
    """Return the names of our own networks, artificial and spiking ones.

    Example:
        >>> [name for name in model_names() if "resnet19" in name]
        ['resnet19', 'sew_resnet19', 'spiking_resnet19']
    """
    return sorted(NETWORKS)


def check_name(name: str) -> None:
    """Check that `create_model` knows a network ``name``, without creating it.

    Raises:
        ModelError: It does not know the name. The message lists near matches.

    Example:
        >>> check_name("torchvision/resnet18")
        >>> check_name("torchvision/resnet19")
        Traceback (most recent call last):
        ...
        transpike.errors.ModelError: no network 'torchvision/resnet19'. Did you mean torchvision/resnet18, ...
    """
    library, _, rest = name.partition("/")
    if library == "timm":
        import timm

        # Names with the tag of their weights are known too, but not listed.
        known = [name if timm.is_model(rest) else "", *(f"timm/{other}" for other in timm.list_models())]
    elif library == "torchvision":
        import torchvision

        known = [f"torchvision/{other}" for other in torchvision.models.list_models(module=torchvision.models)]
    else:
        known = model_names()
    if name in known:
        return
    if library in LIBRARIES:
        guess = near(name, known, most=3)
        raise ModelError(f"no network {shown(name)}.{guess} {LIBRARIES[library]} lists all.")
    raise no_network(name, known)


def create_model(
    name: str | Path | nn.Module,
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int | None = None,
    weights: str | Path | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Create a network by name.

    Args:
        name: one of `model_names()`; `timm/<name>` or `torchvision/<name>`; the folder of a `transpike train` run,
            which is rebuilt as it was trained; an ONNX file or a program of torch.export.save, see `read_network`; or a
            module of your own, which is returned unchanged.
        num_classes: the number of outputs. A run's folder knows its own.
        in_channels: the number of channels of the image. A run's folder knows its own.
        image_size: side of the square image in pixels, for networks whose head depends on it (VGG, MLP). By default the
            size of their paper; 32 for `vgg16`.
        weights: a `.safetensors` file, a checkpoint with a state dict, or the folder of a `transpike train` run. If a
            checkpoint has averaged weights, these are loaded. See `read_weights`.
        **kwargs: the arguments that `network_arguments` lists: `width` (stem channels) and `activation` for ResNets;
            `pool` ("average" or "max"), `layers`, `hidden`, `dropout` and `activation` for VGGs; `hidden` (one width or
            several), `dropout` and `activation` for `mlp`; for timm and torchvision, the arguments of their own
            functions. Spiking networks have the same without `activation`; `large=False` for SEW ResNets on small
            images; `width` (channels of a token), `depth` or `depths`, and `heads` for transformers. They also have
            `spiking_neuron`, a class of ours or of SpikingJelly's or the name of one of ours, and its keyword
            arguments. Without `spiking_neuron`, these arguments change the paper's neuron. `v_threshold` may be a list
            with one threshold for each layer of neurons.

    A spiking network takes images over time, [T, N, C, H, W], and returns [T, N, classes]. Between two sequences,
    `transpike.neurons.reset_net` resets its neurons.

    Returns:
        The network, in training mode. Its weights are new unless `weights` or a run's folder sets them.

    Returns:
        The network, in training mode, with new weights unless `weights` or a run's folder gives them.

    Raises:
        ModelError: The name is unknown (near matches are listed), the network does not take an argument, or the
            weights are missing, damaged or do not fit.

    Example:
        >>> net = create_model("resnet20", num_classes=10, in_channels=3)
        >>> sum(p.numel() for p in net.parameters())
        272474
        >>> import torch
        >>> net = create_model("sew_resnet19", width=8, spiking_neuron="LIFNode", tau=4.0)
        >>> net(torch.zeros(4, 2, 3, 32, 32)).shape
        torch.Size([4, 2, 10])
        >>> create_model("resnet21")
        Traceback (most recent call last):
        ...
        transpike.errors.ModelError: no network 'resnet21', ... Did you mean resnet20, resnet19 or resnet18? ...
    """
    if isinstance(name, nn.Module):
        model = name
    elif is_run(name):
        return _of_run(Path(name), weights, kwargs)
    elif name not in NETWORKS and is_network_file(name):
        return read_network(name)
    else:
        model = _build(str(name), num_classes, in_channels, image_size, kwargs)
    if weights is not None:
        load_weights(model, weights)
    return model


def is_run(name: str | Path) -> bool:
    """Whether a network is named by a folder, such as a training run's. A network of ours has priority."""
    return str(name) not in NETWORKS and os.path.isdir(name)


def _of_run(folder: Path, weights: str | Path | None, kwargs: dict[str, Any]) -> nn.Module:
    """Return the network of a run's folder. The folder may name another run from which it began."""
    with files.reading(folder):  # description and weights of the same change
        about, kwargs = _described(folder, kwargs)
        name, shape = about["name"], (about["num_classes"], about["in_channels"], about.get("image_size"))
        if name in NETWORKS:
            # The sizes in a file are compared with its weights before memory is allocated.
            with outlined():
                check_weights(_build(name, *shape, dict(kwargs)), weights or folder)
        model = _build(name, *shape, kwargs)
        load_weights(model, weights or folder)
    return model


def describe_network(model: nn.Module) -> dict[str, Any] | None:
    """Return the arguments of `create_model` for a network like this one, as model.json stores them.

    They are ``name``, ``num_classes``, ``in_channels``, ``image_size`` and ``kwargs``. The result is None for a module
    of your own, and for a network that was changed after its creation.

    Example:
        >>> describe_network(create_model("resnet20", num_classes=5))["num_classes"], describe_network(nn.Linear(2, 2))
        (5, None)
    """
    about: dict[str, Any] | None = getattr(model, MADE, None)
    if about is None:
        return None
    with torch.random.fork_rng(devices=()):
        again = _build(**about)
    if str(again) != str(model) or _shapes(again) != _shapes(model):
        return None
    try:
        json.dumps(about)
    except TypeError:  # an argument is, for example, a class
        return None
    return about


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict().items()}


def _described(folder: Path, kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the description of the network to which a run's folder finally leads, and all arguments on the way."""
    places = set[str]()
    while True:
        places.add(os.path.realpath(folder))
        about = read_description(folder)
        kwargs = {**about.get("kwargs", {}), **kwargs}
        if not is_run(about["name"]):
            return about, kwargs
        if os.path.realpath(about["name"]) in places:
            raise ModelError(f"{folder}/model.json: damaged: names its own folder as its network. Train again.")
        folder = Path(about["name"])


def _build(name: str, num_classes: int, in_channels: int, image_size: int | None, kwargs: dict[str, Any]) -> nn.Module:
    check_name(name)
    least = 0 if name.startswith("timm/") else 1  # timm also has networks without a head
    num_classes = whole(f"{name}: num_classes", num_classes, least=least, error=ModelError)
    in_channels = whole(f"{name}: in_channels", in_channels, error=ModelError)
    library, _, rest = name.partition("/")
    check_arguments(name, kwargs)
    shape = {"num_classes": num_classes, "in_channels": in_channels}
    try:
        if library == "timm":
            model = _timm(rest, num_classes=num_classes, in_chans=in_channels, **kwargs)
        elif library == "torchvision":
            model = _torchvision(rest, in_channels, num_classes=num_classes, **kwargs)
        else:
            model = build_network(name, **shape, image_size=image_size, options=kwargs)
    except TranspikeError:
        raise
    except FAILURES as error:
        reason = str(error).rstrip(".") or type(error).__name__
        guess = guess_argument(name, kwargs) if "keyword argument" in reason else ""
        raise ModelError(
            f"{name} cannot be made with these arguments: {reason}.{guess} It takes {describe_arguments(name)}."
        ) from error
    setattr(model, MADE, {"name": name, **shape, "image_size": image_size, "kwargs": kwargs})
    return model


def _timm(name: str, **kwargs: Any) -> nn.Module:
    import timm

    model: nn.Module = timm.create_model(name, pretrained=False, **kwargs)
    return model


def _torchvision(name: str, in_channels: int, **kwargs: Any) -> nn.Module:
    import torchvision

    if in_channels != 3:
        raise ModelError(
            f"torchvision/{name} takes images of 3 channels, not {in_channels}. timm/<name> networks take any number."
        )
    model: nn.Module = torchvision.models.get_model(name, weights=None, **kwargs)
    return model
