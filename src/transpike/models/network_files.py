"""Networks in files of other tools: ONNX, and programs of torch.export. Read as data; no code of a file is run."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from transpike.errors import ModelError
from transpike.models.archives import is_safetensors, open_regular
from transpike.models.exported_files import is_program, read_program
from transpike.models.onnx_files import read_onnx
from transpike.models.programs import Program

__all__ = ["KINDS", "is_network_file", "read_network"]

KINDS = (".onnx", ".pt2")
"""How the names of files end that hold a network."""


def is_network_file(name: str | Path) -> bool:
    """Whether a network is named by a file of its own; one of ours goes first."""
    return os.path.isfile(name) or str(name).lower().endswith(KINDS)


def read_network(path: str | Path, *, whole: bool = True) -> Program:
    """The network of an ONNX file, or of a program of torch.export.save, that takes one tensor [N, \\*].

    Nothing in the file is executed. TorchScript is a program of its own language, which PyTorch runs as it loads it,
    and is not read.

    Args:
        path: the file.
        whole: of ONNX files, whether all operators must be known; else those that are not are errors where they are
            run, and ``transpike.convert(net, images, until=...)`` takes what comes before.

    Raises:
        ModelError: if the file is missing, damaged, holds something else, takes several tensors or has operators that
            are not known.
    """
    path = Path(path)
    if not os.path.lexists(path):
        raise ModelError(
            f"{path}: no such file. Give an ONNX file, a program of torch.export.save, or a network's name."
        )
    if is_program(path):
        return read_program(path)
    if (other := _other(path)) and not path.name.lower().endswith(".onnx"):
        raise ModelError(f"{path} {other}")
    return read_onnx(path, whole=whole)


def _other(path: Path) -> str:
    """What a file that holds no network holds, as the end of a message."""
    if is_safetensors(path):
        return "holds weights without a network; give the network's name too: NAME --weights FILE."
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "is no ONNX file." if path.suffix.lower() in (".pt2", ".pt", ".pth", ".ckpt") else ""
    if "constants.pkl" in names:
        return (
            "is TorchScript, which runs as it is loaded. If you trust its source, convert it from Python: "
            f"transpike.convert(torch.jit.load({str(path)!r}), images)."
        )
    if "data.pkl" in names:
        return "holds weights without a network; give the network's name too: NAME --weights FILE."
    return "is no program of torch.export.save, of PyTorch 2.8 or later. Save it again."
