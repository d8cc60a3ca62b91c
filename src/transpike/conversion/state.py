"""Sets the user's network to evaluation mode while it is inspected, and restores it afterwards."""

from __future__ import annotations

import contextlib
import copy
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from typing import TypeAlias

import torch
from torch import Tensor, nn

__all__ = ["evaluation"]

_Container: TypeAlias = dict[object, object] | list[object] | set[object] | deque[object]
_KINDS = (dict, OrderedDict, defaultdict, list, set, deque)


@contextlib.contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Set evaluation mode inside the context, and restore what forward and hooks change in the model.

    Restored are every module's mode, its attributes and the contents of containers among them (counters, logs, hooks),
    and the values of buffers and of other tensors that are attributes. Parameters are not copied.

    Example:
        >>> net = nn.Sequential(nn.Dropout())
        >>> with evaluation(net):
        ...     net[0].calls, training = 1, net[0].training
        >>> training, net[0].training, hasattr(net[0], "calls")
        (False, True, False)
    """
    modules = list(model.modules())
    contents, tensors = _contents([vars(module) for module in modules]), _tensors(modules)
    try:
        with contextlib.suppress(NotImplementedError):  # an exported program's module has only one mode
            model.eval()
        yield
    finally:
        for container, items in contents:
            _refill(container, items)
        with torch.no_grad():
            for tensor, value in tensors:
                if tensor.layout != torch.strided or not torch.equal(tensor, value):
                    tensor.copy_(value)


def _contents(waiting: list[object]) -> list[tuple[_Container, _Container]]:
    """Return the containers in ``waiting``, and those inside them, each with a copy that holds the same items."""
    copies: dict[int, tuple[_Container, _Container]] = {}
    while waiting:
        value = waiting.pop()
        if type(value) in _KINDS and id(value) not in copies:
            assert isinstance(value, (dict, list, set, deque))
            copies[id(value)] = (value, copy.copy(value))
            waiting.extend(value.values() if isinstance(value, dict) else value)
        elif type(value) is tuple:
            waiting.extend(value)
    return list(copies.values())


def _refill(container: _Container, items: _Container) -> None:
    container.clear()
    if isinstance(container, dict):
        container.update(items.items() if isinstance(items, dict) else ())
    elif isinstance(container, set):
        container.update(items)
    else:
        container.extend(items)


def _tensors(modules: list[nn.Module]) -> list[tuple[Tensor, Tensor]]:
    """Return buffers and other tensors that are attributes, each with a copy."""
    values = [value for module in modules for value in (*vars(module).values(), *module._buffers.values())]
    tensors = {id(v): v for v in values if isinstance(v, Tensor) and not isinstance(v, nn.Parameter)}
    return [(tensor, tensor.detach().clone()) for tensor in tensors.values()]
