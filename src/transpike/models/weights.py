"""Weights in and out: safetensors, state dicts in whatever they come wrapped in, the runs of `transpike train`."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from transpike import files
from transpike.errors import ModelError

__all__ = ["load_weights", "read_description", "read_weights", "save_network", "save_weights"]

WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "model.", "_orig_mod.", "net.")
SHOWN = 10

WEIGHTS = files.safetensors_kind("weights of a network that transpike wrote")
DESCRIPTION = files.json_kind("a description of a network (model.json)", name=str, num_classes=int, in_channels=int)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a weight file by name, on the CPU.

    Args:
        path: a `.safetensors` file; a file of `torch.save` that holds a state dict, alone or under `state_dict` or
            `model` as in a Lightning checkpoint (read with `weights_only=True`: nothing in it is executed); or a run
            folder of `transpike train`.

    Raises:
        ModelError: if the file is missing, damaged, or holds something else.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "weights.safetensors"
    if not path.is_file():
        raise ModelError(
            f"{path}: no such weight file. Give a .safetensors file, a state dict or a training run's folder."
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: not a plain state dict (damaged, or it holds Python objects, which are never executed). "
            "Save one with torch.save(model.state_dict(), path)."
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        raise ModelError(f"{path}: damaged or incomplete weight file ({error}). Fetch or save it again.") from error
    return _state(content, path)


def _state(content: object, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ModelError(
            f"{path}: holds no state dict (names mapped to tensors), alone or under {', '.join(WRAPPERS)}."
        )
    return {str(key): value for key, value in content.items()}


def _unprefixed(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Strip what data-parallel, Lightning and torch.compile put before names, while none is the network's own."""
    while not expected.keys() & state.keys():
        for prefix in PREFIXES:
            inner = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            if inner:
                state = inner
                break
        else:
            return state
    return state


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a weight file into a network, every name and shape of which must agree.

    Args:
        model: the network; changed in place.
        path: see `read_weights`.

    Raises:
        ModelError: as `read_weights`; and, naming up to ten of them, if names or shapes differ.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights(nn.Linear(2, 1), f"{folder}/linear.safetensors")
    ...     load_weights(nn.Linear(3, 1), f"{folder}/linear.safetensors")
    Traceback (most recent call last):
    ...
    transpike.errors.ModelError: ... 1 name(s) differ: weight has shape (1, 2), not (1, 3)
    """
    expected = model.state_dict()
    state = _unprefixed(read_weights(path), expected)
    # Files from before BatchNorm counted its batches lack the counter; nothing but `momentum=None` reads it.
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    wrong = [f"{key} is missing" for key in missing]
    wrong += [f"{key} is unknown" for key in state if key not in expected]
    wrong += [
        f"{key} has shape {tuple(state[key].shape)}, not {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    if wrong:
        listed = "; ".join(wrong[:SHOWN]) + ("; ..." if len(wrong) > SHOWN else "")
        raise ModelError(f"{path} does not fit {type(model).__name__}, {len(wrong)} name(s) differ: {listed}")
    model.load_state_dict(state, strict=False)


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write a network's state dict as safetensors, whole or not at all.

    Raises:
        ModelError: if it cannot be written, or what lies there is no such file.
    """
    files.write(path, files.tensors(model.state_dict(), WEIGHTS), kind=WEIGHTS, error=ModelError)


def save_network(model: nn.Module, description: Mapping[str, object], folder: str | Path) -> None:
    """Write a trained network to a folder as one change: weights.safetensors, and what they are of as model.json.

    Args:
        model: the network.
        description: as `read_description` gives it.
        folder: made if it is missing.

    Raises:
        ModelError: if it cannot be written, or what lies there are no such files.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_network(nn.Linear(2, 1), {"name": "linear", "num_classes": 1, "in_channels": 2}, folder)
    ...     read_description(folder)["name"]
    'linear'
    """
    with files.Change(Path(folder), error=ModelError) as change:
        change.write("weights.safetensors", files.tensors(model.state_dict(), WEIGHTS), kind=WEIGHTS)
        change.write("model.json", files.dumps(description), kind=DESCRIPTION)


def read_description(folder: str | Path) -> dict[str, Any]:
    """`model.json` of a training run: `name`, `num_classes`, `in_channels`, `image_size`, `kwargs`; the data's facts.

    Raises:
        ModelError: if the folder holds none, or a damaged one.
    """
    path = Path(folder) / "model.json"
    try:
        description = json.loads(path.read_text())
    except FileNotFoundError:
        raise ModelError(
            f"{folder}: not the folder of a finished `transpike train` run, for it has no model.json."
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path}: damaged ({error}). Train again.") from error
    needed = {"name", "num_classes", "in_channels"}
    if not isinstance(description, dict) or not needed <= description.keys():
        raise ModelError(f"{path}: lacks {', '.join(sorted(needed))}; it was not written by `transpike train`.")
    return description
