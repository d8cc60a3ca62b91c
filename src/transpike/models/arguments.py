"""What a network of ours takes beside its shape, so that a wrong name is told with the right ones."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial

from transpike import neurons
from transpike.checks import near
from transpike.errors import ModelError
from transpike.models.mlp import MLPS
from transpike.models.resnet import RESNETS
from transpike.models.resnet import Plan as ResNetPlan
from transpike.models.vgg import VGGS
from transpike.models.zoo import SPIKING

__all__ = ["check_arguments"]

_NEURON = ("spiking_neuron", "step_mode")


def check_arguments(name: str, given: Mapping[str, object]) -> None:
    """Refuse arguments that a network of ours does not take; those of timm and torchvision judge by themselves.

    Raises:
        ModelError: naming the first, what comes nearest to it, and all that there are.

    >>> check_arguments("resnet20", {"widht": 8})
    Traceback (most recent call last):
    ...
    transpike.errors.ModelError: resnet20 has no argument 'widht'. Did you mean width? It takes width, activation.
    """
    known = _taken(name, given)
    for argument in given if known is not None else ():
        if argument not in (known or ()):
            takes = f"It takes {', '.join(known)}." if known else "It takes none."
            raise ModelError(f"{name} has no argument {argument!r}.{near(argument, known or ())} {takes}")


def _taken(name: str, given: Mapping[str, object]) -> list[str] | None:
    """The names of the arguments that a network takes; None if it takes any."""
    if name in RESNETS:
        return ["width", "activation"]
    if name in VGGS:
        return ["layers", "hidden", "dropout", "pool", "activation"]
    if name in MLPS:
        return ["hidden", "dropout", "activation"]
    if name == "shufflenet_v2":
        return []
    if name not in SPIKING:
        return None
    entry = SPIKING[name]
    neuron = _parameters(given.get("spiking_neuron", entry.neuron))
    if neuron is None:
        return None
    own = [field.name for field in fields(entry.plan)]
    width = ["width"] if isinstance(entry.plan, ResNetPlan) else []
    return list(dict.fromkeys([*width, *own, *_NEURON[:1], *(each for each in neuron if each not in _NEURON)]))


def _parameters(neuron: object) -> list[str] | None:
    """The keyword arguments of a neuron's class, or of what makes one; None if it takes any, or is unknown."""
    while isinstance(neuron, partial):
        neuron = neuron.func
    if isinstance(neuron, str):
        neuron = getattr(neurons, neuron, None)
    if not isinstance(neuron, Callable):  # type: ignore[arg-type]
        return None
    parameters = inspect.signature(neuron).parameters.values()  # type: ignore[arg-type]
    return None if any(each.kind is each.VAR_KEYWORD for each in parameters) else [each.name for each in parameters]
