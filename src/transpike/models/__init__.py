"""Networks by name: `create_model`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from transpike.checks import near, whole
from transpike.errors import ModelError, TranspikeError
from transpike.files import reading
from transpike.models.arguments import check_arguments
from transpike.models.mlp import MLP, MLPS
from transpike.models.resnet import RESNETS, ResNet
from transpike.models.shufflenet import shufflenet_v2
from transpike.models.vgg import VGG, VGGS
from transpike.models.weights import load_weights, read_description, read_weights, save_network, save_weights
from transpike.models.zoo import SPIKING, build_spiking

__all__ = [
    "check_name",
    "create_model",
    "load_weights",
    "model_names",
    "read_description",
    "read_weights",
    "save_network",
    "save_weights",
]


def model_names() -> list[str]:
    """The networks of our own, by name: artificial ones and spiking ones.

    >>> [name for name in model_names() if "resnet19" in name]
    ['resnet19', 'sew_resnet19', 'spiking_resnet19']
    """
    return sorted([*RESNETS, *VGGS, *MLPS, "shufflenet_v2", *SPIKING])


def check_name(name: str) -> None:
    """Make sure that `create_model` knows a network ``name``, without making it.

    Raises:
        ModelError: if it does not; near matches are listed.

    >>> check_name("torchvision/resnet18")
    >>> check_name("torchvision/resnet19")
    Traceback (most recent call last):
    ...
    transpike.errors.ModelError: no network 'torchvision/resnet19', ... Did you mean torchvision/resnet18, ...
    """
    library, _, rest = name.partition("/")
    if library == "timm":
        import timm

        # Names with the tag of their weights are known, too, but not listed.
        known = [name if timm.is_model(rest) else "", *(f"timm/{other}" for other in timm.list_models())]
    elif library == "torchvision":
        import torchvision

        known = [f"torchvision/{other}" for other in torchvision.models.list_models(module=torchvision.models)]
    else:
        known = model_names()
    if name in known:
        return
    raise ModelError(
        f"no network {name!r}, nor a folder of that name.{near(name, known, most=3)} Known: "
        f"{', '.join(model_names())}; timm/<name>, torchvision/<name>; the folder of a `transpike train` run; or, from "
        "Python, a module of your own."
    )


def create_model(
    name: str | Path | nn.Module,
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int | None = None,
    weights: str | Path | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Make a network.

    Args:
        name: one of `model_names()`; `timm/<name>` or `torchvision/<name>`; the folder of a `transpike train` run,
            which is rebuilt as it was trained; or a module of your own, which is returned as it is.
        num_classes: outputs. A run's folder knows its own.
        in_channels: channels of the image. A run's folder knows its own.
        image_size: side of the square image in pixels, for networks whose head depends on it (VGG, MLP); their paper's
            by default, 32 for `vgg16`.
        weights: a `.safetensors` file, a state dict (plain, or from a Lightning checkpoint or data-parallel training),
            or the folder of a `transpike train` run.
        **kwargs: `width` (stem channels) and `activation` for ResNets; `pool` ("average" or "max"), `layers`, `hidden`,
            `dropout` and `activation` for VGGs; `hidden` (one width or several), `dropout` and `activation` for `mlp`;
            for timm and torchvision, what their own functions take. For spiking networks the same without
            `activation`; `large=False` for SEW ResNets on small images; `width` (channels of a token), `depth` or
            `depths`, and `heads` for transformers; and `spiking_neuron`, a class of ours or of SpikingJelly's or the
            name of one of ours, with its keyword arguments: without it these change the paper's neuron. `v_threshold`
            may be a list, one threshold for each layer of neurons.

    A spiking network takes images over time, [T, N, C, H, W], and gives [T, N, classes]; between two sequences its
    neurons are put back to rest by `transpike.neurons.reset_net`.

    Returns:
        The network, in training mode, with new weights unless `weights` or a run's folder gives them.

    Raises:
        ModelError: for an unknown name (near matches are listed), arguments the network does not take, and weights
            that are missing, damaged or do not fit.

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
    elif _is_run(name):
        with reading(Path(name)):  # description and weights of one writing
            recorded = read_description(name)
            shape = {key: recorded[key] for key in ("num_classes", "in_channels", "image_size") if key in recorded}
            made = recorded.get("kwargs", {}) | kwargs
            return create_model(recorded["name"], **shape, weights=weights or name, **made)
    else:
        model = _build(str(name), num_classes, in_channels, image_size, kwargs)
    if weights is not None:
        load_weights(model, weights)
    return model


def _is_run(name: str | Path) -> bool:
    return str(name) not in model_names() and Path(name).is_dir()


def _build(name: str, num_classes: int, in_channels: int, image_size: int | None, kwargs: dict[str, Any]) -> nn.Module:
    check_name(name)
    check_arguments(name, kwargs)
    counts = {"num_classes": num_classes, "in_channels": in_channels, "width": kwargs.get("width", 1)}
    for what, count in counts.items():
        least = 0 if what == "num_classes" and name.startswith("timm/") else 1  # timm's network without a head
        whole(f"{name}: {what}", count, least=least, error=ModelError)
    num_classes, in_channels = int(num_classes), int(in_channels)
    library, _, rest = name.partition("/")
    try:
        if name in RESNETS:
            plan = RESNETS[name].widened(kwargs.pop("width", RESNETS[name].stem))
            return ResNet(plan, num_classes=num_classes, in_channels=in_channels, **kwargs)
        if name in VGGS:
            own = {key: kwargs.pop(key) for key in ("layers", "hidden", "dropout", "pool") if key in kwargs}
            vgg = replace(VGGS[name], image_size=image_size or VGGS[name].image_size, **own)
            return VGG(vgg, num_classes=num_classes, in_channels=in_channels, **kwargs)
        if name in MLPS:
            own = {key: kwargs.pop(key) for key in ("hidden", "dropout") if key in kwargs}
            mlp = replace(MLPS[name], image_size=image_size or MLPS[name].image_size, **own)
            return MLP(mlp, num_classes=num_classes, in_channels=in_channels, **kwargs)
        if name == "shufflenet_v2":
            return shufflenet_v2(num_classes=num_classes, in_channels=in_channels, **kwargs)
        if library == "timm":
            return _timm(rest, num_classes=num_classes, in_chans=in_channels, **kwargs)
        if library == "torchvision":
            return _torchvision(rest, in_channels, num_classes=num_classes, **kwargs)
        return build_spiking(
            name, num_classes=num_classes, in_channels=in_channels, image_size=image_size, options=kwargs
        )
    except TranspikeError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{name} cannot be made with these arguments: {error}") from error


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
