"""Hooks on the user's layers: which hooks only record, and how an error inside a hook names it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

__all__ = ["Hook", "blamed", "recorders", "skipped", "wrap"]

_FRAME = re.compile(r'File "<hook (.+?)>"')


class Hook:
    """A forward hook or forward pre-hook of the user, in a wrapper whose name appears in every stack trace.

    Attributes:
        only_records: whether no call so far returned anything, wrote into an argument tensor, or set an attribute.
        skipped: whether calls do nothing. A hook that only records need not be traced (it may print or use NumPy).
    """

    def __init__(self, hook: Callable[..., object]) -> None:
        def forward(*args: object, **options: object) -> object:  # PyTorch keeps stack frames with this name
            return hook(*args, **options)

        name = getattr(hook, "__name__", type(hook).__name__)
        forward.__code__ = forward.__code__.replace(co_filename=f"<hook {name}>")
        self.only_records = True
        self.skipped = False
        self._forward = forward

    def __call__(self, module: nn.Module, *args: object, **options: object) -> object:
        if self.skipped:
            return None
        before = _versions(module, args, options)
        result = self._forward(module, *args, **options)
        if result is not None or _versions(module, args, options) != before:
            self.only_records = False
        return result


def wrap(model: nn.Module) -> None:
    """Put a `Hook` around every hook of ``model``. The caller must restore the original hooks."""
    for registered in _registered(model):
        for key, hook in registered.items():
            registered[key] = Hook(hook)


def recorders(model: nn.Module) -> list[Hook]:
    """Return the hooks wrapped by `wrap` that have only recorded so far."""
    hooks = [hook for registered in _registered(model) for hook in registered.values()]
    return [hook for hook in hooks if isinstance(hook, Hook) and hook.only_records]


@contextlib.contextmanager
def skipped(hooks: list[Hook]) -> Iterator[None]:
    """Make calls of ``hooks`` do nothing inside the context."""
    for hook in hooks:
        hook.skipped = True
    try:
        yield
    finally:
        for hook in hooks:
            hook.skipped = False


def _registered(model: nn.Module) -> list[dict[int, Callable[..., object]]]:
    return [hooks for module in model.modules() for hooks in (module._forward_hooks, module._forward_pre_hooks)]


def blamed(trace: str) -> str | None:
    """Return the name of the hook in whose call a stack trace lies, or None."""
    names = _FRAME.findall(trace)
    return names[-1] if names else None


def _versions(module: nn.Module, *values: object) -> list[tuple[object, int]]:
    """Return versions that change if a hook sets an attribute of its module or writes into an argument tensor."""
    tensors = [leaf for leaf in torch.utils._pytree.tree_leaves(values) if isinstance(leaf, Tensor)]
    attributes = (*vars(module).items(), *module._buffers.items(), *module._parameters.items())
    return [
        *((id(tensor), 0 if tensor.is_inference() else tensor._version) for tensor in tensors),
        *((name, id(value)) for name, value in attributes),
    ]
