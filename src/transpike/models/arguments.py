"""The arguments of each network beside its classes and images: names and defaults, from plans and signatures."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from torch import nn

from transpike.checks import is_whole, near, refuse, shown, whole
from transpike.errors import ModelError
from transpike.models.activations import activation_arguments
from transpike.models.resnet import Plan as ResNetPlan
from transpike.models.spiking import neuron_factory
from transpike.models.zoo import NETWORKS

__all__ = ["check_arguments", "check_beside", "describe_arguments", "guess_argument", "network_arguments"]

OWN = ("name", "num_classes", "in_channels", "weights")
"""The parameters of `create_model` for every network."""

GIVEN = (*OWN, "image_size")
"""Facts that a command knows from its images, so that no option of a network may set them."""

OF_ALL = ("num_classes", "in_channels", "in_chans", "image_size", "img_size", "plan", "device", "dtype")
NUMBERS = (int, float, tuple, type(None))
PLAIN = (*NUMBERS, str)
MOST = 10_000
"""The largest whole number, such as a width or a depth, and the most entries of a list: beyond any network."""


def check_beside(options: Mapping[str, object] | None) -> None:
    """Raise an error for options of a network that are other parameters of `create_model`.

    Raises:
        ModelError: The message names the first.

    Example:
        >>> check_beside({"width": 8, "num_classes": 3})
        Traceback (most recent call last):
        ...
        transpike.errors.ModelError: network: num_classes follows from the images and the other options: leave it out.
    """
    for name in options or {}:
        if name in GIVEN:
            raise ModelError(f"network: {name} follows from the images and the other options: leave it out.")


def network_arguments(name: str, spiking_neuron: str | Callable[..., nn.Module] | None = None) -> dict[str, object]:
    """Return the arguments of one network by name, with their defaults. For timm and torchvision, those of its class.

    Args:
        name: one of `model_names()`, `timm/<name>` or `torchvision/<name>`.
        spiking_neuron: the neuron in place of the paper's. Then its arguments are listed.

    Raises:
        ModelError: The neuron is unknown.

    Example:
        >>> network_arguments("vgg5")["pool"], network_arguments("resnet20")["width"]
        ('average', 16)
        >>> network_arguments("sew_resnet18")["detach_reset"]
        True
    """
    if name not in NETWORKS:
        return _of_library(name)
    entry = NETWORKS[name]
    arguments: dict[str, object] = {}
    if entry.plan is not None:
        arguments = {
            each.name: getattr(entry.plan, each.name) for each in fields(entry.plan) if each.name not in OF_ALL
        }
    if isinstance(entry.plan, ResNetPlan):
        arguments = {"width": entry.plan.stem} | arguments
    if entry.neuron is None:
        return arguments | _defaults(entry.network)
    neuron = neuron_factory(spiking_neuron or entry.neuron)
    return arguments | {"spiking_neuron": _name(entry.neuron)} | _defaults(neuron, hidden=("step_mode",))


def describe_arguments(name: str) -> str:
    """Return the same in one line. timm and torchvision choose other defaults for many networks of a class.

    Example:
        >>> describe_arguments("mlp")
        'hidden=100, dropout=0.2, activation=ReLU'
        >>> describe_arguments("torchvision/densenet121")
        'growth_rate, block_config, num_init_features, bn_size, drop_rate, memory_efficient'
    """
    arguments = network_arguments(name)
    return _line(arguments) if name in NETWORKS else ", ".join(arguments) or "what its library documents"


def check_arguments(name: str, arguments: Mapping[str, Any]) -> None:
    """Check that a network takes these arguments, as far as this is known before it is created.

    For timm's and torchvision's networks, only arguments that are parameters of `create_model` raise an error.

    Raises:
        ModelError: The network does not have an argument (the message lists those that it has), or a value has the
            wrong type or is a whole number too large for any network.

    Example:
        >>> check_arguments("resnet20", {"widht": 8})
        Traceback (most recent call last):
        ...
        transpike.errors.ModelError: resnet20 takes no 'widht'. Did you mean width? It takes width=16, ...
    """
    if own := [key for key in OWN if key in arguments]:
        raise ModelError(f"{name} takes no {own[0]!r}: the data set or the command sets it.")
    if name not in NETWORKS:
        return
    neuron = arguments.get("spiking_neuron")
    known = network_arguments(name, neuron)
    if NETWORKS[name].neuron is None and "activation" in known:
        known |= activation_arguments(arguments.get("activation"))
    for key, value in arguments.items():
        if key not in known and not (callable(neuron) and _takes_any(neuron)):
            raise ModelError(f"{name} takes no {key!r}.{near(key, known)} It takes {_line(known)}.")
        _check(f"{name}: {key}", value, known.get(key))


def guess_argument(name: str, arguments: Mapping[str, object]) -> str:
    """Return a question with the name nearest to the first unknown argument, or an empty text.

    Example:
        >>> guess_argument("timm/resnet18", {"drop_rat": 0.1})
        ' Did you mean drop_rate?'
    """
    known = network_arguments(name)
    return next((near(key, known) for key in arguments if key not in known), "")


def _check(name: str, value: object, default: object, *, least: int = 1) -> None:
    if isinstance(value, list | tuple) and isinstance(default, NUMBERS):
        if len(value) > MOST / 10:
            raise refuse(name, value, f"a list of at most {MOST // 10} entries", error=ModelError)
        inner = default[0] if isinstance(default, tuple) and default else default
        for each in value:
            _check(name, each, inner, least=0)
    elif isinstance(default, tuple):
        raise refuse(name, value, f"a list, such as {shown(list(default))}", error=ModelError)
    elif isinstance(default, bool):
        if not isinstance(value, bool):
            raise refuse(name, value, "true or false", error=ModelError)
    elif (isinstance(default, int) and value is not None) or (default is None and is_whole(value)):
        whole(name, value, least=least, most=MOST, error=ModelError)


def _of_library(name: str) -> dict[str, object]:
    """Return the arguments of the class that timm's or torchvision's function creates: numbers, words and None only."""
    library, _, rest = name.partition("/")
    if library == "timm":
        import timm

        maker: Any = timm.models.model_entrypoint(rest.partition(".")[0])
    else:
        import torchvision

        maker = torchvision.models.get_model_builder(rest)
    try:
        annotation = inspect.signature(maker, eval_str=True).return_annotation
    except (NameError, TypeError):
        return {}
    if not (isinstance(annotation, type) and issubclass(annotation, nn.Module)) or annotation is nn.Module:
        return {}
    return {key: value for key, value in _defaults(annotation).items() if isinstance(value, PLAIN)}


def _defaults(function: Callable[..., object], *, hidden: tuple[str, ...] = ()) -> dict[str, object]:
    passed = (*OF_ALL, *hidden)
    return {
        each.name: each.default
        for each in _parameters(function)
        if each.default is not each.empty and each.name not in passed
    }


def _parameters(function: Callable[..., object]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # compiled functions may have no signature
        return [inspect.Parameter("arguments", inspect.Parameter.VAR_KEYWORD)]


def _takes_any(function: Callable[..., object]) -> bool:
    """Whether it takes arguments with any name, as some of SpikingJelly's neurons do."""
    return any(each.kind is each.VAR_KEYWORD for each in _parameters(function))


def _line(arguments: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={_shown(value)}" for key, value in arguments.items()) or "no further arguments"


def _shown(value: object) -> str:
    return _name(value) if callable(value) and hasattr(value, "__name__") else shown(value)


def _name(value: object) -> str:
    inner = getattr(value, "func", value)
    return str(getattr(inner, "__name__", inner))
