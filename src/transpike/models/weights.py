"""Reads and writes weights: safetensors, state dicts in any wrapping, and runs of `transpike train`."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn, strided
from torch.nn.parameter import is_lazy

from transpike import files
from transpike.checks import few, refuse
from transpike.errors import ModelError
from transpike.models.activations import QCFS
from transpike.models.archives import AGAIN, Foreign, brief, is_safetensors, read_archive

__all__ = ["WEIGHTS", "check_weights", "load_weights", "read_weights", "save_weights"]

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "params", "weights")
PREFIXES = ("module", "model", "_orig_mod", "net", "network")
AVERAGES = {"ema", "swa", "averaged"}
"""Words in the names of averaged weights: `state_dict_ema`, `model_ema`, `ema_model`, `params_ema`, ..."""
NESTED = 20

State = dict[str, Tensor]
Found = tuple[tuple[str, ...], Mapping[object, Tensor]]
"""A mapping of names to tensors, and the nested names of its place in the file."""

WEIGHTS = files.safetensors_kind("weights of a network that transpike wrote")


def read_weights(path: str | Path) -> State:
    """Return the tensors of a weight file by name, on the CPU.

    If a file has averaged weights (`state_dict_ema`, `model_ema`, `ema`, ...) beside others, these are used, as in
    `timm`. Otherwise those under `state_dict` or `model` are used, or else the only mapping of names to tensors.

    Args:
        path: a `.safetensors` file; a file of `torch.save` with a state dict, alone or among other things (nothing in
            it is executed, and objects are ignored); or a run folder of `transpike train`.

    Raises:
        ModelError: The file is missing or damaged, has several state dicts or something else, or has tensors without
            plain values: sparse, quantised, nested, or saved from the meta device.
    """
    return _read(path)[1]


def _read(path: str | Path) -> tuple[str, State]:
    """Return the state dict in a file, and the names of its place joined by dots."""
    if not isinstance(path, str | os.PathLike):
        raise refuse("weights", path, "the path of a file or a folder", error=ModelError)
    path = Path(path)
    if os.path.isdir(path):
        path = path / "weights.safetensors"
    if not os.path.lexists(path):
        raise ModelError(
            f"{path}: no such weight file. Give a .safetensors file, a state dict or a training run's folder."
        )
    if is_safetensors(path):
        try:
            place, state = "", dict(load_file(path))
        except Exception as error:  # a parser may raise anything for unknown bytes
            raise ModelError(f"{path} is damaged ({brief(error)}). {AGAIN}") from error
    else:
        names, state_dict = _choose(read_archive(path), path)
        place, state = ".".join(names), {str(name): value for name, value in state_dict.items()}
    if odd := [f"{name} is {kind}" for name, value in state.items() if (kind := _odd(value))]:
        raise ModelError(f"{path}: {len(odd)} tensor(s) without plain values: {few(odd)}. Save them as such.")
    return place, state


def _odd(tensor: Tensor) -> str:
    if tensor.is_nested:
        return "nested"
    if tensor.is_quantized:
        return f"quantised ({tensor.dtype}: dequantize() gives its values)"
    if tensor.layout != strided:
        return f"sparse ({tensor.layout}: to_dense() gives its values)"
    return "empty, saved from the meta device" if tensor.is_meta else ""


def _choose(content: object, path: Path) -> Found:
    states = list(_states(content))
    averages = [each for each in states if any(AVERAGES & _words(name) for name in each[0])]
    ranks = [(_rank(names), (names, state)) for names, state in averages or states]
    best = min((rank for rank, _ in ranks), default=None)
    chosen = [each for rank, each in ranks if rank == best]
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        several = ", ".join(".".join(names) for names, _ in chosen)
        raise ModelError(f"{path} holds several state dicts: {several}. Save the one to take in a file of its own.")
    raise ModelError(
        f"{path} holds no state dict (names mapped to tensors), but {_described(content)}. Save one: "
        "torch.save(model.state_dict(), 'weights.pt')."
    )


def _states(content: object) -> Iterator[Found]:
    """Yield the mappings of names to tensors in a file, except an optimiser's."""
    waiting: deque[tuple[tuple[str, ...], object]] = deque([((), content)])
    visited = set()
    while waiting:
        names, value = waiting.popleft()
        if not isinstance(value, Mapping) or not value or id(value) in visited:
            continue
        visited.add(id(value))
        if all(isinstance(each, Tensor) for each in value.values()):
            yield names, value
        else:
            waiting += [((*names, str(key)), each) for key, each in value.items() if not _is_optimiser(str(key))]


def _is_optimiser(name: str) -> bool:
    return any(word.startswith(("optimiz", "optimis")) or word in ("optim", "opt") for word in _words(name))


def _rank(names: tuple[str, ...]) -> tuple[bool, int, int]:
    """Rank state dicts; the lowest is used: known names first, then the least deep, then the order of names."""
    last = names[-1] if names else WRAPPERS[0]
    return last not in WRAPPERS, len(names), WRAPPERS.index(last) if last in WRAPPERS else 0


def _words(name: str) -> set[str]:
    return set(re.split(r"[^a-z]+", name.lower()))


def _described(content: object) -> str:
    """Return what a file contains, in a few words."""
    if isinstance(content, Foreign):
        return f"an object of {content.name}, and objects are never executed"
    if isinstance(content, Mapping) and content:
        return few([f"{str(key)[:80]!r} ({_kind(value)})" for key, value in content.items()])
    return f"a {type(content).__name__}"


def _kind(value: object) -> str:
    if isinstance(value, Foreign):
        return f"an object of {value.name}, never executed"
    return "a tensor" if isinstance(value, Tensor) else type(value).__name__


def _unprefixed(state: State, expected: State, nested: int = 0) -> State | None:
    """Return the state with the network's names. None if no prefix makes the names equal.

    Data-parallel training, Lightning, torch.compile and averages add words before names. A network inside another has
    the name of its place there as a prefix.
    """
    if expected.keys() & state.keys():
        return state
    heads = {name.partition(".")[0] for name in state if "." in name}
    common = len({name.partition(".")[0] for name in state}) == 1
    likely = [head for head in sorted(heads) if AVERAGES & _words(head)]
    likely += [head for head in PREFIXES if head in heads]
    for head in [*likely, *(heads if common else ())] if nested < NESTED else ():
        inner = {name[len(head) + 1 :]: value for name, value in state.items() if name.startswith(f"{head}.")}
        inner_state = _unprefixed(inner, expected, nested + 1)
        if inner_state is not None:
            return inner_state
    return None


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a weight file into a network. Every name, shape and kind of number must agree.

    A network with QCFS activations also takes the weights of one with ReLUs.

    Args:
        model: the network. It is changed in place.
        path: see `read_weights`.

    Raises:
        ModelError: As for `read_weights`; or names, shapes or kinds of numbers differ. The message names up to ten.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(nn.Linear(2, 1), f"{folder}/linear.safetensors")
        ...     load_weights(nn.Linear(3, 1), f"{folder}/linear.safetensors")
        Traceback (most recent call last):
        ...
        transpike.errors.ModelError: ... 1 name(s) differ: weight has shape (1, 2), not (1, 3)
    """
    state = _fitting(model, path)
    if meta := [name for name, value in model.state_dict().items() if isinstance(value, Tensor) and value.is_meta]:
        raise ModelError(
            f"{type(model).__name__} is on the meta device, where {few(meta)} has no values to be replaced: "
            "model.to_empty(device='cpu') makes room for them."
        )
    try:
        model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ModelError(f"{path} does not fit {type(model).__name__}: {error}") from error


def check_weights(model: nn.Module, path: str | Path) -> None:
    """Check that `load_weights` would succeed. The network may be on the meta device.

    Raises:
        ModelError: As for `load_weights`.
    """
    _fitting(model, path)


def _fitting(model: nn.Module, path: str | Path) -> State:
    place, state = _read(path)
    expected = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    state = _unprefixed(state, expected) or state
    bounds = {f"{name}.bound" for name, module in model.named_modules() if isinstance(module, QCFS)}
    if not bounds & state.keys():  # weights of the network with ReLUs: the bounds keep their first values
        expected = {name: value for name, value in expected.items() if name not in bounds}
    if wrong := list(_differences(state, expected)):
        where = f"its {place} " if place else ""
        raise ModelError(
            f"{path}: {where}does not fit {type(model).__name__}, {len(wrong)} name(s) differ: {few(wrong)}"
        )
    return state


def _differences(state: State, expected: State) -> Iterator[str]:
    # Old files lack the counter of BatchNorm's batches. Only `momentum=None` reads it.
    counters = {name for name in expected if name.endswith("num_batches_tracked")}
    yield from (f"{name} is missing" for name in expected if name not in state and name not in counters)
    yield from (f"{name} is unknown" for name in state if name not in expected)
    for name, value in expected.items():
        if name not in state or is_lazy(value):
            continue
        tensor = state[name]
        if tensor.shape != value.shape:
            yield f"{name} has shape {tuple(tensor.shape)}, not {tuple(value.shape)}"
        elif _numbers(tensor) != _numbers(value) and not (name in counters and tensor.is_floating_point()):
            yield f"{name} holds {_numbers(tensor)} ({tensor.dtype}), not {_numbers(value)} ({value.dtype})"


def _numbers(tensor: Tensor) -> str:
    if tensor.is_complex():
        return "complex numbers"
    return "floating-point numbers" if tensor.is_floating_point() else "whole numbers"


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write a network's state dict as safetensors, completely or not at all.

    Raises:
        ModelError: It cannot be written, or the existing file is of another kind.
    """
    files.write(path, files.tensors(model.state_dict(), WEIGHTS), kind=WEIGHTS, error=ModelError)
