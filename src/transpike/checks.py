"""Checks of values, with the same wording for every wrong value: its name, the value, and what was expected."""

from __future__ import annotations

import difflib
import inspect
import math
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Literal, TypeGuard, Union, get_args, get_origin, get_type_hints

from transpike.errors import ConfigError, DataError, ModelError, TranspikeError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "choice",
    "few",
    "is_whole",
    "keywords",
    "listed",
    "near",
    "no_network",
    "number",
    "refuse",
    "shown",
    "tensor",
    "whole",
]

Error = Callable[[str], TranspikeError]
"""A class of errors, or a function that makes an error from a message."""

_LONGEST = 200
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlong, _SHORT.maxlist, _SHORT.maxtuple, _SHORT.maxdict = 40, 12, 12, 8


def whole(
    name: str,
    value: object,
    *,
    least: int | None = 1,
    most: int | None = None,
    error: Error = ConfigError,
) -> int:
    """Return a whole number within its range, as an int. NumPy's numbers are accepted; true and false are not.

    Args:
        name: the name of the setting, for the message.
        value: the value.
        least: the smallest allowed value. None for no limit.
        most: the largest allowed value. None for no limit.
        error: the class of errors to raise.

    Raises:
        ConfigError: The value is not allowed. The message names the setting. Or `error`.

    Example:
        >>> whole("phases", 8, most=24)
        8
        >>> whole("phases", 2.5, most=24)
        Traceback (most recent call last):
        ...
        transpike.errors.ConfigError: phases=2.5: expected a whole number from 1 to 24.
    """
    if not is_whole(value) or (least is not None and value < least) or (most is not None and value > most):
        limits = "" if least is None else f" of at least {least}"
        if most is not None:
            limits = f" of at most {most}" if least is None else f" from {least} to {most}"
        raise refuse(name, value, f"a whole number{limits}", error=error)
    return int(value)


def number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
    error: Error = ConfigError,
) -> float:
    """Return a finite number within its range, as a float. NumPy's numbers are accepted; true and false are not.

    Args:
        name: the name of the setting, for the message.
        value: the value.
        above: the value must be larger.
        least: the smallest allowed value.
        below: the value must be smaller.
        most: the largest allowed value.
        error: the class of errors to raise.

    Raises:
        ConfigError: The value is not allowed. The message names the setting. Or `error`.

    Example:
        >>> number("momentum", 0, least=0, below=1)
        0.0
        >>> number("beta", 1.0, above=1)
        Traceback (most recent call last):
        ...
        transpike.errors.ConfigError: beta=1.0: expected a number above 1.
        >>> number("momentum", 1.0, least=0, below=1)
        Traceback (most recent call last):
        ...
        transpike.errors.ConfigError: momentum=1.0: expected a number in [0, 1).
    """
    real = _real(value)
    fits = (
        math.isfinite(real)
        and (above is None or real > above)
        and (least is None or real >= least)
        and (below is None or real < below)
        and (most is None or real <= most)
    )
    if not fits:
        low, high = least if above is None else above, most if below is None else below
        if low is not None and high is not None:
            limits = f" in {'[' if above is None else '('}{low:g}, {high:g}{']' if below is None else ')'}"
        elif low is not None:
            limits = f" of at least {low:g}" if above is None else f" above {low:g}"
        elif high is not None:
            limits = f" of at most {high:g}" if below is None else f" below {high:g}"
        else:
            limits = ""
        raise refuse(name, value, f"a {'number' if limits else 'finite number'}{limits}", error=error)
    return real


def choice(name: str, value: object, choices: Iterable[str], *, error: Error = ConfigError) -> str:
    """Return one of several names.

    Args:
        name: the name of the setting, for the message.
        value: the value.
        choices: the allowed names.
        error: the class of errors to raise.

    Raises:
        ConfigError: The value is not allowed. The message lists all names and the nearest. Or `error`.

    Example:
        >>> choice("keep", "best", ("last", "best"))
        'best'
        >>> choice("keep", "lst", ("last", "best"))
        Traceback (most recent call last):
        ...
        transpike.errors.ConfigError: keep='lst': expected 'last' or 'best'. Did you mean 'last'?
    """
    names = list(choices)
    if isinstance(value, str) and value in names:
        return value
    quoted = [repr(each) for each in names]
    raise refuse(name, value, listed(quoted), error=error, guess=near(repr(value), quoted))


def tensor(
    name: str,
    value: object,
    shape: Sequence[int | str],
    *,
    floating: bool = True,
    error: Error = DataError,
) -> Tensor:
    """Return a tensor with the expected shape and kind of numbers.

    Args:
        name: the name of the argument, for the message.
        value: the value.
        shape: the size of each axis. A letter stands for any size, and the same letter for the same size. "*" stands
            for any number of axes.
        floating: whether its numbers are floating-point. Otherwise they must be whole.
        error: the class of errors to raise.

    Raises:
        DataError: The value is not allowed. The message has its shape and type. Or `error`.

    Example:
        >>> import torch
        >>> tensor("images", torch.zeros(2, 3, 8, 8), ("N", 3, "H", "W")).shape
        torch.Size([2, 3, 8, 8])
        >>> tensor("images", torch.zeros(2, 8, 8, dtype=torch.uint8), ("N", 3, 8, 8))
        Traceback (most recent call last):
        ...
        transpike.errors.DataError: images: expected a floating-point tensor [N, 3, 8, 8], got torch.uint8 [2, 8, 8].
    """
    import torch

    if isinstance(value, torch.Tensor):
        kind = value.is_floating_point() if floating else not (value.is_floating_point() or value.is_complex())
        if kind and _fits(tuple(value.shape), shape):
            return value
        got = f"{value.dtype} {list(value.shape)}"
    else:
        got = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        got += "; torch.as_tensor makes it one" if hasattr(value, "__array__") else ""
    kinds = "floating-point" if floating else "whole-number"
    raise error(f"{name}: expected a {kinds} tensor [{', '.join(map(str, shape))}], got {got}.")


def refuse(name: str, value: object, expected: str, *, error: Error = ConfigError, guess: str = "") -> TranspikeError:
    """Return the error for a wrong value. The caller raises it.

    Example:
        >>> refuse("steps", (1, 0), "numbers of steps, each of at least 1")
        ConfigError('steps=(1, 0): expected numbers of steps, each of at least 1.')
    """
    return error(f"{name}={shown(value)}: expected {expected}.{guess}")


def near(name: str, names: Iterable[str], *, most: int = 1) -> str:
    """Return a question with the names nearest to a wrong name, after a space. Empty if no name is near.

    Example:
        >>> near("resnet21", ["resnet20", "resnet19", "mlp"], most=2)
        ' Did you mean resnet20 or resnet19?'
        >>> near("transformer", ["mlp"])
        ''
    """
    matches = difflib.get_close_matches(name, list(names), n=most)
    return f" Did you mean {listed(matches)}?" if matches else ""


def no_network(name: str, known: Sequence[str]) -> ModelError:
    """Return the error for a network's name that is none of those ``known``, nor a folder.

    Example:
        >>> print(no_network("resnet21", ["mlp", "resnet20"]))
        no network 'resnet21', nor a folder of that name. Did you mean resnet20? Known: mlp, resnet20; timm/<name>, ...
    """
    return ModelError(
        f"no network {shown(name)}, nor a folder of that name.{near(name, known, most=3)} Known: {', '.join(known)}; "
        "timm/<name>, torchvision/<name>; the folder of a `transpike train` run; or, from Python, a module of your own."
    )


def listed(names: Sequence[str]) -> str:
    """Return names as a list for a sentence.

    Example:
        >>> listed(["a"]), listed(["a", "b", "c"])
        ('a', 'a, b or c')
    """
    return " or ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def few(sentences: Sequence[str], *, most: int = 10) -> str:
    """Return the first of several sentences in one line, whatever an unknown file puts into them.

    Example:
        >>> few(["a is missing", "b\\nis unknown", "c"], most=2)
        'a is missing; b is unknown; ...'
    """
    short = [one if len(one) <= _LONGEST else f"{one[:_LONGEST]}..." for one in sentences[:most]]
    text = "; ".join([*short, "..."] if len(sentences) > most else short)
    return "".join(letter if letter.isprintable() else " " for letter in text)


def shown(value: object) -> str:
    """Return a value as a message shows it: short, for any value.

    Example:
        >>> shown([0.5] * 100)
        '[0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, ...]'
    """
    try:
        text = " ".join(_SHORT.repr(value).split())
    except ValueError:  # a whole number with more digits than Python prints
        return f"<{type(value).__name__} too long to show>"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number of Python or NumPy. True and false are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _real(value: object) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _fits(found: tuple[int, ...], shape: Sequence[int | str]) -> bool:
    fixed = [size for size in shape if size != "*"]
    if len(found) < len(fixed) or (len(found) > len(fixed) and "*" not in shape):
        return False
    if "*" in shape:
        after = len(shape) - 1 - list(shape).index("*")
        found = found[: len(fixed) - after] + found[len(found) - after :]
    sizes: dict[str, int] = {}
    return all(
        size == (wanted if isinstance(wanted, int) else sizes.setdefault(wanted, size))
        for size, wanted in zip(found, fixed, strict=True)
    )


_KINDS = {float: "a number", int: "a whole number", bool: "true or false", str: "a word", NoneType: "null"}


def keywords(what: str, make: Callable[..., object], settings: Mapping[str, object]) -> None:
    """Raise an error for settings that a class or function does not have, or of a wrong type.

    Args:
        what: the owner of the settings, for the message.
        make: a function whose keyword-only arguments are the settings; for a `partial`, those that are still open.
        settings: the settings, by name.

    Raises:
        ConfigError: The message names the setting, and the known names or the expected type.

    Example:
        >>> def make(stages, *, width: int = 8, sigma: float | None = None): ...
        >>> keywords("method 'mine'", make, {"width": 4, "sigma": 1})
        >>> keywords("method 'mine'", make, {"width": "4"})
        Traceback (most recent call last):
        ...
        transpike.errors.ConfigError: method 'mine': width='4': expected a whole number.
        >>> keywords("method 'mine'", make, {"widht": 4})
        Traceback (most recent call last):
        ...
        transpike.errors.ConfigError: method 'mine' has no setting 'widht'. Did you mean width? It has: width, sigma.
    """
    function = make.func if isinstance(make, partial) else make
    fixed = make.keywords if isinstance(make, partial) else {}
    kinds = get_type_hints(function.__init__ if inspect.isclass(function) else function)
    parameters = inspect.signature(function).parameters.values()
    known = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.name not in fixed]
    for setting, value in settings.items():
        if setting not in known:
            raise ConfigError(f"{what} has no setting {setting!r}.{near(setting, known)} It has: {', '.join(known)}.")
        kind = kinds[setting]
        wanted = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
        if not any(_is_of(value, one) for one in wanted):
            raise refuse(f"{what}: {setting}", value, listed(list(map(_named, wanted))))


def _is_of(value: object, kind: object) -> bool:
    """Whether a value fits an annotation: plain types, tuples of one type, literals, functions."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_is_of(item, get_args(kind)[0]) for item in value)
    if kind is float:
        return isinstance(value, Real) and not isinstance(value, bool)
    if kind is int:
        return is_whole(value)
    return type(value) is kind if isinstance(kind, type) else callable(value)


def _named(kind: object) -> str:
    if get_origin(kind) is Literal:
        return listed([repr(one) for one in get_args(kind)])
    if get_origin(kind) is tuple:
        return f"a list, each {_named(get_args(kind)[0])}"
    return _KINDS.get(kind, "a function") if isinstance(kind, type) else "a function"
