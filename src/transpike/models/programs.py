"""A network from a file of another tool: steps in order, each a function of named values.

Only functions of our own readers run. Every step is a module under its name in the file. So messages can name a step
that cannot be converted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from transpike.errors import ModelError

__all__ = ["DEVICE", "LARGEST", "Name", "Program", "Step", "refused"]

LARGEST = 2**30
"""The largest number of values of one result. Larger sizes are surely a mistake."""

DEVICE = "<device>"
"""The name under which steps find the samples' device."""

_LISTED = 8


class Name(str):
    """The name of a value that an argument of a step stands for."""


@dataclass(frozen=True)
class Step:
    """One function of the network.

    Attributes:
        name: its name in the file.
        run: the function. None if it is unknown, which is an error only if an output needs it.
        args: plain values, lists of them, and `Name` for values.
        outputs: the names of its results. Empty names are left out.
        kwargs: keyword arguments, by name.
    """

    name: str
    run: Callable[..., object] | None
    args: Sequence[object]
    outputs: Sequence[str]
    kwargs: Mapping[str, object]


class _Called(nn.Module):
    def __init__(self, run: Callable[..., object]) -> None:
        super().__init__()
        self.run = run

    def forward(self, *args: object, **kwargs: object) -> object:
        return self.run(*args, **kwargs)


class Program(nn.Module):
    """A network of steps, for one tensor of samples [N, \\*].

    Args:
        title: the file, as messages name it.
        steps: the steps, in an order in which they can run.
        tensors: weights and other constants, by name.
        start: the name of the samples.
        outputs: the names of the outputs. Several outputs are returned as a tuple.
        shape: the shape of a sample, as far as the file states it. None for open sizes.
        absent: the names of values that no step computes. Steps that need them are left out, and an error if an output
            needs them.
    """

    def __init__(
        self,
        title: str,
        steps: Sequence[Step],
        tensors: Mapping[str, Tensor],
        *,
        start: str,
        outputs: Sequence[str],
        shape: Sequence[int | None],
        absent: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.title, self.start, self.outputs, self.sizes = title, start, tuple(outputs), tuple(shape)
        self._places: dict[str, str] = {}
        self._steps: list[tuple[str, Step]] = []
        self._known: set[torch.Size] = set()
        used: set[str] = set()
        for name, tensor in tensors.items():
            place = self._places[name] = _free(f"{name or 'constant'}", used)
            if tensor.is_floating_point():
                self.register_parameter(place, nn.Parameter(tensor, requires_grad=False))
            else:
                self.register_buffer(place, tensor)
        self._absent = {name: f"nobody gives its input {name[:80]}" for name in absent}
        for step in steps:
            place = _free(step.name, used)
            missing = [self._absent[name] for name in _names((step.args, step.kwargs)) if name in self._absent]
            if step.run is None and not missing:
                missing = [f"transpike does not read the operator of its step {step.name[:80]}"]
            if missing:
                self._absent |= dict.fromkeys(step.outputs, missing[0])
                continue
            self.add_module(place, _Called(step.run))  # type: ignore[arg-type]
            self._steps.append((place, step))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        if type(x) is Tensor and not x.is_meta and x.shape not in self._known and not torch.compiler.is_compiling():
            self.check(x)  # first with sizes only, because an unknown file may need more memory than there is
            self._known.add(x.shape)
        outputs = self._run(x, {name: getattr(self, place) for name, place in self._places.items()})
        return outputs[0] if len(outputs) == 1 else outputs

    def check(self, x: Tensor) -> None:
        """Check that the network runs on samples like ``x``, without memory.

        Raises:
            ModelError: A step does not run. The message names the first.
        """
        constants: dict[str, object] = {name: getattr(self, place).to("meta") for name, place in self._places.items()}
        self._run(torch.empty(x.shape, dtype=x.dtype, device="meta"), constants, named=True)

    def _run(self, x: Tensor, values: dict[str, object], *, named: bool = False) -> tuple[Tensor, ...]:
        values |= {self.start: x, DEVICE: x.device}
        for place, step in self._steps:
            try:
                args: Any = _filled(step.args, values)
                kwargs: Any = _filled(step.kwargs, values)
                run = getattr(self, place)
                result = (run.run if named else run)(*args, **kwargs)
            except ModelError:
                raise
            except Exception as error:
                if not named:
                    raise
                why = " ".join(str(error).split())[:200]
                shape = list(x.shape[1:])
                raise ModelError(
                    f"{self.title}: its step {step.name[:80]} does not run on samples of shape {shape} "
                    f"({type(error).__name__}: {why}); check the size of the images"
                ) from None
            results = result if isinstance(result, (list, tuple)) and len(step.outputs) > 1 else [result]
            for name, value in zip(step.outputs, results, strict=False):
                if named and isinstance(value, Tensor) and value.numel() > LARGEST:
                    raise ModelError(
                        f"{self.title}: its step {step.name[:80]} gives {value.numel():,} values; its sizes are damaged"
                    )
                values[name] = value
        if missing := [self._absent[name] for name in self.outputs if name in self._absent]:
            if named:
                return ()
            raise ModelError(f"{self.title}: {missing[0]}")
        outputs = [values.get(name) for name in self.outputs]
        tensors = tuple(value for value in outputs if isinstance(value, Tensor))
        if len(tensors) < len(outputs):
            raise ModelError(f"{self.title}: an output is no tensor, or no step gives it. Export it again.")
        return tensors


def _names(argument: object) -> Iterator[str]:
    """Yield the names of values among arguments."""
    if isinstance(argument, Name):
        yield argument
    elif isinstance(argument, Mapping):
        yield from _names(list(argument.values()))
    elif isinstance(argument, (list, tuple)):
        for item in argument:
            yield from _names(item)


def _filled(argument: object, values: Mapping[str, object]) -> object:
    """Return ``argument`` with values in place of names."""
    if isinstance(argument, Name):
        return values[argument]
    if isinstance(argument, Mapping):
        return {key: _filled(item, values) for key, item in argument.items()}
    if isinstance(argument, (list, tuple)):
        return [_filled(item, values) for item in argument]
    return argument


def _free(name: str, used: set[str]) -> str:
    """Return a name that is allowed for a module and not used by another."""
    plain = name.strip("/").replace(".", "/")[:200] or "step"
    place, count = plain, 1
    while place in used or hasattr(nn.Module, place) or place in _TAKEN:
        count += 1
        place = f"{plain}_{count}"
    used.add(place)
    return place


_TAKEN = (
    "title",
    "start",
    "outputs",
    "sizes",
    "training",
    "_places",
    "_steps",
    "_known",
    "_absent",
    *vars(nn.Module()),
)


def refused(title: str, places: Mapping[str, Sequence[str]], known: str) -> ModelError:
    """Return one error for operators that are not supported: by operator, the names of their steps."""
    lines = [
        f"{operator} ({', '.join(name[:60] for name in names[:3])}{', ...' if len(names) > 3 else ''})"
        for operator, names in places.items()
    ]
    more = f" and {len(lines) - _LISTED} more" if len(lines) > _LISTED else ""
    return ModelError(
        f"{title} has operators that transpike does not read: {'; '.join(lines[:_LISTED])}{more}. {known}"
    )
