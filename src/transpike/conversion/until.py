"""Cuts a network after one of its modules, so that the first part can spike and the rest can run as before."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map

from transpike.checks import near
from transpike.errors import ConversionError

__all__ = ["Continued", "until"]


def until(model: nn.Module, name: str) -> nn.Module:
    """Return ``model`` with the output of its module ``name`` as its output. Both share all modules and weights.

    Raises:
        ConversionError: The model has no module of this name.
    """
    module = _module(model, name)
    part = copy.copy(model)
    part.forward = partial(_cut, model.forward, module, name)
    return part


def _cut(forward: Callable[..., object], module: nn.Module, name: str, x: Tensor) -> object:
    """Return the module's output. The whole network runs, because an exception in torch.export would break its record
    of modules. The exported program then leaves out what the output does not need."""
    found: list[object] = []
    # A copy, because later operations may work in place.
    handle = module.register_forward_hook(lambda _, __, output: found.append(tree_map(_copied, output)))
    try:
        forward(x)
    except Exception:
        if not found:  # what follows the module need not run here
            raise
    finally:
        handle.remove()
    if len(found) != 1:
        times = "more than once" if found else "never"
        raise ConversionError(
            f"until: the network calls its module {name!r} {times}. Name a module that it calls exactly once."
        )
    return found[0]


def _copied(value: object) -> object:
    return value.clone() if isinstance(value, Tensor) else value


def _module(model: nn.Module, name: str) -> nn.Module:
    modules = dict(model.named_modules())
    modules.pop("", None)
    if name not in modules:
        guess = near(name, list(modules), most=3) or f" Its first modules are: {', '.join(list(modules)[:8])}."
        raise ConversionError(f"until: {type(model).__name__} has no module {name!r}.{guess}")
    found: nn.Module = modules[name]
    return found


class Continued(nn.Module):
    """A network whose part up to and including one module is replaced by a spiking network.

    Args:
        ann: the network.
        snn: the result of ``transpike.convert(ann, images, until=name)``.
        name: the name of the module.

    Raises:
        ConversionError: The network has no module of this name, or a call finds that it runs the module more than
            once.

    Example:
        >>> import torch, transpike
        >>> class Tagger(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.encoder, self.cell = nn.Conv1d(2, 4, 3), nn.GRU(4, 3, batch_first=True)
        ...     def forward(self, x):
        ...         return self.cell(self.encoder(x).relu().mT)[0]
        >>> net, sounds = Tagger().eval(), torch.rand(32, 2, 16)
        >>> snn = transpike.convert(net, sounds, until="encoder", scheme=transpike.CSS(steps=12, silent=0))
        >>> error = Continued(net, snn, "encoder")(sounds) - net(sounds)
        >>> error.abs().max().item() < 0.02
        True
    """

    def __init__(self, ann: nn.Module, snn: nn.Module, name: str) -> None:
        super().__init__()
        self.ann, self.snn, self.name = ann, snn, name
        _module(ann, name)

    def forward(self, x: Tensor) -> Any:
        module, output = _module(self.ann, self.name), self.snn(x)
        calls: list[None] = []

        def answer(*_: object, **__: object) -> object:
            if calls:
                raise ConversionError(
                    f"until: the network calls its module {self.name!r} more than once. Name a module that it calls "
                    "exactly once."
                )
            calls.append(None)
            return output

        module.forward = answer
        try:
            return self.ann(x)
        finally:
            del module.forward
