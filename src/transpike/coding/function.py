"""The function that a neuron computes, as data: a composition of PyTorch operators on operands and constants.

A `Function` is a list of calls. Each call names an operator from a fixed list (`transpike.coding.operators`) and its
arguments: plain values, operands of the neuron, constants of the network, or results of earlier calls. So a function
can be written as JSON, and read without any class of the network from which it came.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from transpike.coding.operators import BOOLEAN, HOMOGENEOUS, INPLACE, MOVES, POOLS, aten, operator
from transpike.neurons.tsa import IDENTITY, Piecewise
from transpike.neurons.windows import Window

__all__ = ["RELATIVE", "Argument", "Call", "Constant", "Function", "Operand", "Result", "argument"]

RELATIVE = "relative"
"""The name of the constant with the amplitudes of a layer's channels, relative to the largest: positive numbers."""


@dataclass(frozen=True)
class Operand:
    """Stands for one of the function's operands."""

    index: int


@dataclass(frozen=True)
class Constant:
    """Stands for a constant tensor, by its name."""

    name: str


@dataclass(frozen=True)
class Result:
    """Stands for the result of an earlier call, by its number."""

    call: int


Argument: TypeAlias = "bool | int | float | str | Operand | Constant | Result | tuple[Argument, ...] | None"


@dataclass(frozen=True)
class Call:
    """One operator with its arguments."""

    operator: str
    args: tuple[Argument, ...]
    kwargs: tuple[tuple[str, Argument], ...] = ()


@dataclass(frozen=True)
class Function:
    """A composition of operators on ``operands`` tensors [N, \\*]. Without calls, it is the identity of one operand.

    The value is the result of the last call.

    Example:
        >>> import torch
        >>> relu6 = Function((Call("relu.default", (Operand(0),)), Call("clamp.default", (Result(0), None, 6.0))))
        >>> relu6(torch.tensor([[-1.0, 3.0, 9.0]]))
        tensor([[0., 3., 6.]])
        >>> relu6.name, relu6.tail
        ('relu6', Piecewise(slope=0.0, low=-inf, high=6.0))
        >>> Function.read(relu6.written()) == relu6
        True
    """

    calls: tuple[Call, ...] = ()
    operands: int = 1

    @staticmethod
    def of(name: str, *args: Argument, operands: int = 1, **kwargs: Argument) -> Function:
        """Return the function that consists of one operator."""
        return Function((Call(name, args, tuple(kwargs.items())),), operands)

    def __call__(
        self,
        *operands: Tensor,
        constants: Mapping[str, Tensor] | None = None,
        watch: Callable[[Tensor], None] | None = None,
        overwrite: bool = False,
    ) -> Tensor:
        """Compute the value for operands whose first axis counts samples (or steps times samples).

        ``watch`` is called with the result of every call. With ``overwrite``, results may be written over operands.
        """
        results: dict[int, Tensor] = {}

        def value(argument: Argument) -> object:
            match argument:
                case Operand(index):
                    return operands[index]
                case Constant(name):
                    return (constants or {})[name]
                case Result(call):
                    return results[call]
                case tuple():
                    return [value(item) for item in argument]
            return argument

        for k, call in enumerate(self.calls):
            run, over = self._operators[k]
            args, kwargs = [value(a) for a in call.args], {key: value(a) for key, a in call.kwargs}
            result = (over if overwrite and over and _fits(args) else run)(*args, **kwargs)
            results[k] = result[0] if isinstance(result, tuple) else result  # adaptive pooling also returns indices
            if watch:
                watch(results[k])
            for spent in self._spent[k]:
                del results[spent]
        return results[len(self.calls) - 1] if self.calls else operands[0]

    @cached_property
    def _operators(self) -> list[tuple[Callable[..., Tensor], Callable[..., Tensor] | None]]:
        """For each call its operator, and the one that writes over its first argument if nothing else reads that."""
        places = [place for call in self.calls for place in _places((*call.args, *(a for _, a in call.kwargs)))]
        operators = []
        for call in self.calls:
            match call.args[0]:
                case Operand():
                    own = True
                case Result(k):  # the result of an operator that only moves values may share the memory of its argument
                    own = self.calls[k].operator not in MOVES | BOOLEAN
                case _:
                    own = False
            own = own and call.operator in INPLACE and sum(place == call.args[0] for place in places) == 1
            operators.append((operator(call.operator), aten(call.operator.replace(".", "_.")) if own else None))
        return operators

    @cached_property
    def _spent(self) -> list[list[int]]:
        """Return for each call the results that no later call reads."""
        last = {len(self.calls) - 1: len(self.calls)}
        for k in reversed(range(len(self.calls))):
            for place in _places((*self.calls[k].args, *(a for _, a in self.calls[k].kwargs))):
                if isinstance(place, Result):
                    last.setdefault(place.call, k)
        return [[result for result, k in last.items() if k == call] for call in range(len(self.calls))]

    def at(self, *operands: Tensor, unit: float, constants: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the value in units of ``unit`` for operands in units of ``unit``: ``f(unit x, ...) / unit``."""
        if not self.tracked:
            return self(*(x * unit for x in operands), constants=constants) / unit
        x, tail = self.head(*operands, constants=constants), self.tail
        x = x if tail.slope == 1 else x.relu() if tail.slope == 0 else functional.leaky_relu(x, tail.slope)
        bounded = math.isfinite(tail.low) or math.isfinite(tail.high)
        return x.clamp(tail.low / unit, tail.high / unit) if bounded else x

    def then(self, other: Function) -> Function:
        """Return the composition that applies ``other``, a function of one operand, to this function's value."""
        last = Result(len(self.calls) - 1) if self.calls else Operand(0)
        return Function((*self.calls, *other.placed([last], after=len(self.calls))), self.operands)

    def placed(
        self, operands: Sequence[Argument], *, after: int, constants: Mapping[str, str] | None = None
    ) -> tuple[Call, ...]:
        """Return the calls, renumbered to follow ``after`` others, with these operands and renamed constants."""

        def moved(argument: Argument) -> Argument:
            match argument:
                case Operand(index):
                    return operands[index]
                case Constant(name):
                    return Constant((constants or {}).get(name, name))
                case Result(call):
                    return Result(call + after)
                case tuple():
                    return tuple(moved(item) for item in argument)
            return argument

        return tuple(
            Call(c.operator, tuple(map(moved, c.args)), tuple((k, moved(a)) for k, a in c.kwargs)) for c in self.calls
        )

    # -- what the tracking kernel can compute by itself ----------------------------------------------------------------

    @cached_property
    def tail(self) -> Piecewise:
        """The longest ending that is one piecewise linear function, in real units; the identity if there is none."""
        return self._split[1]

    @cached_property
    def head(self) -> Function:
        """The part of the function before the `tail`."""
        return self._split[0]

    @property
    def homogeneous(self) -> bool:
        """Whether f(c x) = c f(x) for every c > 0, so that the scale of the operand does not matter."""
        return all(call.operator in HOMOGENEOUS for call in self.calls)

    @property
    def tracked(self) -> bool:
        """Whether a neuron can track it at any scale: one operand, maxima and slopes, then one piecewise ending."""
        return self.operands == 1 and self.head.homogeneous

    @property
    def real(self) -> Function:
        """The function without a last division by the channels' amplitudes, in real units."""
        divided = bool(self.calls) and self.calls[-1].args[-1] == Constant(RELATIVE)
        return Function(self.calls[:-1], self.operands) if divided else self

    @property
    def clipped(self) -> Piecewise | None:
        """The piecewise linear function of one operand that it divides by the channels' amplitudes, if it does that."""
        real, end = self.real, len(self.calls) - 1
        if real is self or self.calls[end].operator != "div.Tensor" or not self._is_chained(end):
            return None
        return real.tail if self.operands == 1 and not real.head.calls else None

    @property
    def decided(self) -> bool:
        """Whether it needs decoded values. An index of a maximum, for instance, cannot be represented by spikes."""
        return any(call.operator == "argmax.default" for call in self.calls)

    @property
    def pools(self) -> bool:
        """Whether it takes a maximum over windows."""
        return any(call.operator in POOLS for call in self.calls)

    @cached_property
    def window(self) -> Window | None:
        """The windows over which it takes maxima, if it does nothing else, of two axes."""
        if len(self.calls) != 1 or self.calls[0].operator != "max_pool2d.default" or self.calls[0].kwargs:
            return None
        values, defaults = list(self.calls[0].args[1:]), ((), 0, 1, False)
        values += defaults[len(values) - 1 :]
        if len(values) != 5:
            return None
        size, stride, padding, dilation = (_pair(value) for value in (values[0], values[1] or values[0], *values[2:4]))
        if size is None or stride is None or padding is None or dilation is None:
            return None
        return Window(size, stride, padding, dilation, bool(values[4]))

    @cached_property
    def _split(self) -> tuple[Function, Piecewise]:
        calls, tail = list(self.calls), IDENTITY
        if calls and calls[-1].operator == "clamp.default" and self._is_chained(len(calls) - 1):
            low, high = (*calls.pop().args[1:], None)[:2]
            tail = Piecewise(slope=1.0, low=_bound(low, -math.inf), high=_bound(high, math.inf))
        if calls and calls[-1].operator in ("relu.default", "leaky_relu.default") and self._is_chained(len(calls) - 1):
            call = calls.pop()
            slope = call.args[1] if call.operator == "leaky_relu.default" else 0.0
            if not isinstance(slope, (int, float)):
                raise TypeError(f"a slope must be a number, not {slope!r}")
            tail = Piecewise(slope=float(slope), low=tail.low, high=tail.high)
        return Function(tuple(calls), self.operands), tail

    def _is_chained(self, call: int) -> bool:
        """Whether the first argument of a call is the result of the call before it, or the one operand."""
        first = self.calls[call].args[0]
        return first == (Result(call - 1) if call else Operand(0)) and (call > 0 or self.operands == 1)

    @property
    def name(self) -> str:
        """The function's name in the terms of the field."""
        tail = self.tail
        others = [_short(call.operator) for call in self.head.calls if call.operator not in MOVES]
        if tail == IDENTITY:
            words = others or ["identity"]
        elif math.isinf(tail.low) and math.isinf(tail.high):
            words = [*others, "relu" if tail.slope == 0 else f"leaky_relu({tail.slope:g})"]
        elif tail.slope == 0 and math.isinf(tail.low):
            words = [*others, f"relu{tail.high:g}"]
        else:
            low, high = (None if math.isinf(bound) else bound for bound in (tail.low, tail.high))
            words = [*others, f"hardtanh({low}, {high})"]
        # A maximum comes first, but the usual name is "relu + max_pool".
        return " + ".join(sorted(words, key=lambda word: word == "max_pool") if self.tracked else words)

    # -- as plain data -------------------------------------------------------------------------------------------------

    def written(self) -> dict[str, object]:
        """Return the function as JSON data; places are objects such as ``{"operand": 0}``."""
        calls = []
        for call in self.calls:
            entry: dict[str, object] = {"operator": call.operator, "args": [_plain(a) for a in call.args]}
            if call.kwargs:
                entry["kwargs"] = {key: _plain(argument) for key, argument in call.kwargs}
            calls.append(entry)
        return {"operands": self.operands, "calls": calls}

    @staticmethod
    def read(data: Mapping[str, object]) -> Function:
        """Read a function from JSON data, the inverse of `written`.

        Raises:
            ConversionError: An operator is not on the list.
            TypeError, KeyError, ValueError: The data have another form.
        """
        operands, entries = data["operands"], data["calls"]
        if type(operands) is not int or operands < 1 or not isinstance(entries, list):
            raise ValueError("a function needs a number of operands and a list of calls")
        calls = []
        for number, entry in enumerate(entries):
            operator(str(entry["operator"]))
            args, kwargs = entry["args"], entry.get("kwargs", {})
            if not isinstance(args, list) or not isinstance(kwargs, dict):
                raise TypeError(f"the arguments of {entry['operator']} are not a list and an object")
            read = [_argument(a, operands, number) for a in args]
            named = tuple((str(key), _argument(a, operands, number)) for key, a in kwargs.items())
            calls.append(Call(str(entry["operator"]), tuple(read), named))
        return Function(tuple(calls), operands)


def argument(value: object) -> Argument:
    """Return a plain value as an argument; lists become tuples.

    Raises:
        TypeError: The value is not plain.
    """
    if isinstance(value, (list, tuple)):
        return tuple(argument(item) for item in value)
    if value is None or isinstance(value, (bool, int, float, str, Operand, Constant, Result)):
        return value
    raise TypeError(f"{value!r} is not a plain value")


def _places(arguments: tuple[Argument, ...]) -> list[Operand | Constant | Result]:
    """Return the places among arguments, in order."""
    places: list[Operand | Constant | Result] = []
    for argument in arguments:
        if isinstance(argument, tuple):
            places += _places(argument)
        elif isinstance(argument, (Operand, Constant, Result)):
            places.append(argument)
    return places


def _fits(args: Sequence[object]) -> bool:
    """Whether the result has the shape and dtype of the first argument."""
    first, *others = args
    tensors = [x for x in others if isinstance(x, Tensor)]
    assert isinstance(first, Tensor)
    return all(x.dtype == first.dtype and torch.broadcast_shapes(x.shape, first.shape) == first.shape for x in tensors)


def _pair(value: Argument) -> tuple[int, int] | None:
    """Return a pair of numbers from one number for both axes, or from one for each."""
    match value:
        case int():
            return value, value
        case (int() as one,):
            return one, one
        case (int() as first, int() as second):
            return first, second
    return None


def _bound(value: Argument, default: float) -> float:
    return float(value) if isinstance(value, (int, float)) else default


def _short(name: str) -> str:
    """Shorten a name: ``max_pool2d.default`` becomes ``max_pool``, ``_prelu_kernel.default`` becomes ``prelu``."""
    if name in POOLS:
        return "max_pool"
    return name.partition(".")[0].removesuffix("_kernel").strip("_")


def _plain(argument: Argument) -> object:
    match argument:
        case Operand(index):
            return {"operand": index}
        case Constant(name):
            return {"constant": name}
        case Result(call):
            return {"result": call}
        case tuple():
            return [_plain(item) for item in argument]
        case float() if not math.isfinite(argument):
            return {"float": str(argument)}  # JSON has no infinity
    return argument


def _argument(value: object, operands: int, calls: int) -> Argument:
    """Read an argument from JSON data. Its places must already exist."""
    match value:
        case {"operand": int(index)} if 0 <= index < operands:
            return Operand(index)
        case {"constant": str(name)}:
            return Constant(name)
        case {"result": int(call)} if 0 <= call < calls:
            return Result(call)
        case {"float": "inf" | "-inf" as bound}:
            return float(str(bound))
        case list():
            items: Sequence[object] = value
            return tuple(_argument(item, operands, calls) for item in items)
        case None | bool() | int() | float() | str():
            return value
    raise ValueError(f"{value!r} is not an argument of a function")
