"""Kinds of files. Each recognises our own files, so that a writer never replaces other files."""

from __future__ import annotations

import errno
import json
import os
import stat
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from transpike.errors import ConfigError, TranspikeError, reason
from transpike.files.json import read_json

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Kind", "check_kind", "json_kind", "marked", "safetensors_kind", "tensors", "zip_kind"]

MARK = "transpike"
"""The key in the metadata of our safetensors files that names their kind."""


@dataclass(frozen=True)
class Kind:
    """A kind of file that a command writes.

    Attributes:
        name: the name with its article, as in "results of transpike".
        recognises: whether a file, which exists and is not empty, is of this kind.
    """

    name: str
    recognises: Callable[[Path], bool]


def check_kind(path: Path, kind: Kind, *, error: type[TranspikeError] = ConfigError) -> None:
    """Raise an error if a write would replace a file of another kind, or a folder. Empty files may be replaced.

    Raises:
        ConfigError: The file is of another kind. Or `error`.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return  # it is missing, or its writer will find out why it cannot be written
    if stat.S_ISDIR(status.st_mode):
        raise error(f"cannot write {path}: {reason(IsADirectoryError(errno.EISDIR, ''))}")
    if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
        return
    try:
        own = kind.recognises(path)
    except (OSError, ValueError, RecursionError, zipfile.BadZipFile, NotImplementedError):
        own = False
    if not own:
        raise error(f"{path}: already exists and is not {kind.name}; name another place.")


def json_kind(name: str, /, **fields: type | str) -> Kind:
    """Return the kind of JSON objects with certain fields, each with a type or a value.

    Example:
        >>> results = json_kind("results of transpike", kind=str, version=int)
        >>> results.name
        'results of transpike'
    """

    def recognises(path: Path) -> bool:
        content = read_json(path)
        return isinstance(content, dict) and all(
            isinstance(content.get(key), expected) if isinstance(expected, type) else content.get(key) == expected
            for key, expected in fields.items()
        )

    return Kind(name, recognises)


def marked(name: str, mark: str, *, within: int = 4096) -> Kind:
    """Return the kind of text files that identify themselves by certain words near their beginning."""

    def recognises(path: Path) -> bool:
        with path.open("rb") as file:
            return mark.encode() in file.read(within)

    return Kind(name, recognises)


def safetensors_kind(name: str) -> Kind:
    """Return the kind of tensor files that `tensors` writes for this kind."""

    def recognises(path: Path) -> bool:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length < 2**27 else None
        about = header.get("__metadata__") if isinstance(header, dict) else None
        return isinstance(about, dict) and about.get(MARK) == name

    return Kind(name, recognises)


def zip_kind(name: str, *parts: str) -> Kind:
    """Return the kind of archives, such as those of `torch.save`, that contain files with these names in any folder."""

    def recognises(path: Path) -> bool:
        with zipfile.ZipFile(path) as archive:
            return set(parts) <= {entry.rpartition("/")[2] for entry in archive.namelist()}

    return Kind(name, recognises)


def tensors(state: Mapping[str, Tensor], kind: Kind) -> bytes:
    """Return tensors as the bytes of a safetensors file of a kind.

    Args:
        state: tensors by name, on any device. Tensors that share memory are each written completely.
        kind: a kind from `safetensors_kind`.
    """
    from safetensors.torch import save

    own = {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}
    data: bytes = save(own, metadata={MARK: kind.name})
    return data
