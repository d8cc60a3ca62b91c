"""Networks as outlines: names, shapes and types, before they take memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["outlined"]


class _Unfilled(TorchFunctionMode):
    """Passes over what would fill a tensor: torch loads thousands of decompositions to draw numbers for none."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name, kwargs = getattr(function, "__name__", ""), kwargs or {}
        if name.endswith("_") and not name.endswith("__") and name != "requires_grad_":
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


@contextmanager
def outlined() -> Iterator[None]:
    """Within it networks are made on the meta device, their weights without values.

    >>> with outlined():
    ...     layer = torch.nn.Linear(100_000, 100_000)
    >>> layer.weight.shape, layer.weight.is_meta
    (torch.Size([100000, 100000]), True)
    """
    with torch.device("meta"), _Unfilled():
        yield
