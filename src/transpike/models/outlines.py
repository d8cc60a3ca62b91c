"""Networks as outlines: names, shapes and dtypes, without memory for the values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["outlined"]


class _Unfilled(TorchFunctionMode):
    """Skips functions that fill a tensor. For these, torch would load thousands of decompositions."""

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
    """Create networks on the meta device inside the context, so that their weights have no values.

    Example:
        >>> with outlined():
        ...     layer = torch.nn.Linear(100_000, 100_000)
        >>> layer.weight.shape, layer.weight.is_meta
        (torch.Size([100000, 100000]), True)
    """
    with torch.device("meta"), _Unfilled():
        yield
