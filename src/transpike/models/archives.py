"""Reads files of `torch.save` as data: first what kind a file is and how much it claims to hold, then its content.

Nothing in a file is executed. Tensors, containers, numbers and text are read. Of any other object only its name is
read.
"""

from __future__ import annotations

import os
import pickle
import re
import stat
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import torch

from transpike.errors import ModelError, reason
from transpike.models.pickles import scan_pickle

__all__ = ["AGAIN", "Foreign", "brief", "is_safetensors", "open_regular", "read_archive"]

AGAIN = "Fetch or save it again."
STATE_DICT = "torch.save(model.state_dict(), 'weights.pt')"
MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The number at the start of `torch.save` files before 2020, as a pickle. Five pickles and the numbers follow."""

LONGEST = 300
"""The largest length of a reason from another library, because it may quote an unknown file."""

UNPACKED, FREE = 8, 64 * 2**20
"""An archive may unpack to so many times its size, and always to so many bytes. `torch.save` compresses nothing."""

USUAL = (
    r"torch\.(\w+|(_utils|_tensor|serialization|storage|nn\.parameter)\.\w+)|collections\.\w+"
    r"|builtins\.(set|complex|bytearray)|_codecs\.encode"
)
"""The names that the pickle of a plain checkpoint uses."""

SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "a gzip archive", "Unpack it first."),
    (b"BZh", "a bzip2 archive", "Unpack it first."),
    (b"\xfd7zXZ", "an xz archive", "Unpack it first."),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "Unpack it first."),
    (b"7z\xbc\xaf", "a 7z archive", "Unpack it first."),
    (b"\x89HDF", "an HDF5 file, as Keras writes them", "Give the weights of a PyTorch network."),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "Fetch that: git lfs pull."),
    (b"<", "a web page or XML", "Download the file itself."),
    (b"\x93NUMPY", "a NumPy array", f"Give the state dict of a network: {STATE_DICT}."),
    (b"{", "a text of JSON", f"Give the state dict of a network: {STATE_DICT}."),
)


class Foreign(list[object]):
    """Stands for an object that is not a tensor, container, number or text. Only the name of its class is known.

    It is a list, so that a pickle can append to it.
    """

    name = "object"

    def __new__(cls, *_: object, **__: object) -> Foreign:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        """Ignore the object's state."""

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)


def read_archive(path: Path, *, remedy: str = AGAIN, values: bool = True) -> object:
    """Read a file of `torch.save`, on the CPU: containers, numbers, text and tensors, and `Foreign` for all else.

    Args:
        path: the file, an archive of today's `torch.save` or one in the format before 2020.
        remedy: what to do about a damaged file, as a sentence.
        values: whether to read the values of tensors. Otherwise these are on the meta device.

    Raises:
        ModelError: The file is missing, damaged or of another kind. Or it unpacks to much more than its size, contains
            itself or nests too deeply.
    """
    with open_regular(path) as file:
        try:
            head = file.read(512)
            file.seek(0)
            if head.startswith(b"PK"):
                names = scan_pickle(_pickle_of(file, path))
            elif MAGIC in head[:32]:
                names = set[tuple[str, str]]().union(*(scan_pickle(file) for _ in range(5)))
            else:
                raise _other_kind(head, path, remedy)
            file.seek(0)
            return _load(file, names, path, values)
        except ModelError:
            raise
        except OSError as error:
            raise ModelError(f"cannot read {path}: {reason(error)}") from error
        except Exception as error:  # a parser may raise anything for unknown bytes
            raise ModelError(f"{path} is damaged ({brief(error)}). {remedy}") from error


def open_regular(path: Path) -> IO[bytes]:
    """Open a regular file for reading. Reading from a pipe or a device might wait, or continue, for ever.

    Raises:
        ModelError: It is not a regular file, or cannot be opened.
    """
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {reason(error)}") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ModelError(f"{path} is a pipe or a device. Copy what it gives into a file first.")
    return file


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: with the length of a header in JSON, then the header."""
    with open_regular(path) as file:
        try:
            head = file.read(9)
        except OSError as error:
            raise ModelError(f"cannot read {path}: {reason(error)}") from error
    return head[8:] == b"{" and 0 < int.from_bytes(head[:8], "little") <= 100_000_000


def _pickle_of(file: IO[bytes], path: Path) -> bytes:
    """Return the pickle in an archive whose directory and checksums are correct."""
    size = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        names = [entry.filename.partition("/")[2] for entry in entries]
        if "archive_format" in names or "serialized_exported_program.json" in names:
            raise ModelError(
                f"{path} is a program of torch.export. If you trust its source, save its weights: "
                f"torch.save(torch.export.load({str(path)!r}).state_dict, 'weights.pt')."
            )
        if "constants.pkl" in names:
            raise ModelError(
                f"{path} is a TorchScript archive, a program with its weights. If you trust its source, save these: "
                f"torch.save(torch.jit.load({str(path)!r}).state_dict(), 'weights.pt')."
            )
        if "data.pkl" not in names:
            what = "NumPy arrays" if any(entry.filename.endswith(".npy") for entry in entries) else "no weights"
            raise ModelError(f"{path} is a zip archive of {what}, not of torch.save. Save a state dict: {STATE_DICT}.")
        if len({entry.filename.lower() for entry in entries}) < len(entries):
            raise ValueError("its directory names a part twice")
        total = sum(entry.file_size for entry in entries)
        if total > max(UNPACKED * size, FREE):
            raise ValueError(f"its {size:,} bytes unpack to {total:,}, more than weights do")
        bad = archive.testzip()
        if bad is not None:
            raise ValueError(f"the checksum of its part {bad} is wrong")
        return archive.read(entries[names.index("data.pkl")])


def _load(file: IO[bytes], names: Iterable[tuple[str, str]], path: Path, values: bool) -> object:
    known = {name: type(name, (Foreign,), {"name": name}) for name in _as_today(names)}
    allowed: list[object] = [(kind, name) for name, kind in known.items()]
    allowed.append((_plain_dict, "collections.defaultdict"))
    try:
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():  # type: ignore[arg-type]
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu" if values else "meta", weights_only=True)
    except (pickle.UnpicklingError, TypeError, AttributeError) as error:
        strange = sorted(name for name in known if not re.fullmatch(USUAL, name))
        if not strange:
            raise
        raise ModelError(
            f"{path} holds objects of {', '.join(strange[:5])}{', ...' if len(strange) > 5 else ''}, which transpike "
            f"never executes and cannot skip. Save the state dict alone: {STATE_DICT}."
        ) from error


def _as_today(names: Iterable[tuple[str, str]]) -> set[str]:
    """Return names of Python 2 as Python 3 has them, because pickles of protocol 2 use the old ones."""
    pairs = (NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name)) for module, name in names)
    return {f"{module}.{name}" for module, name in pairs} - {"collections.defaultdict"}


def _plain_dict(*_: object) -> dict[object, object]:
    return {}


def _other_kind(head: bytes, path: Path, remedy: str) -> ModelError:
    if not head:
        return ModelError(f"{path} is damaged (it is empty). {remedy}")
    if head.partition(b"\0")[0] in (b"sys_info", b"pickle", b"tensors", b"storages"):
        return ModelError(
            f"{path} is in PyTorch's tar format of 2017, which cannot be read as data. If you trust its source, load "
            f"it in an environment of its own and save its state dict there: {STATE_DICT}."
        )
    if head[257:262] == b"ustar":
        return ModelError(f"{path} is a tar archive. Unpack it first.")
    for start, what, advice in SIGNATURES:
        if head.startswith(start):
            return ModelError(f"{path} is {what}. {advice}")
    if re.match(rb"\x80[\x02-\x05]", head):
        return ModelError(f"{path} is a plain pickle, not a file of torch.save. Save a state dict: {STATE_DICT}.")
    return ModelError(f"{path} is damaged, or not a weight file: no weight file begins like this. {remedy}")


def brief(error: Exception) -> str:
    """Return a message's first sentence, shortened. Of PyTorch's messages about pickles, leave out the advice."""
    text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    text = re.split(r"\. |\n", text.strip())[0].rstrip(".")
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    if "Unsupported operand" in text:
        return "it is pickled in another way than torch.save's own: save it without pickle_protocol"
    return text if text and "weights_only" not in text else f"{type(error).__name__} while its pickle was read"
