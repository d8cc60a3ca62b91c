"""Networks in files of other tools: ONNX, and programs of torch.export. They are read as data; no code is run."""

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
"""The suffixes of files that contain a network."""


def is_network_file(name: str | Path) -> bool:
    """Whether a network is named by a file. A network of ours has priority."""
    return os.path.isfile(name) or str(name).lower().endswith(KINDS)


def read_network(path: str | Path, *, whole: bool = True) -> Program:
    """Read the network of an ONNX file or of a program of torch.export.save, which takes one tensor [N, \\*].

    Nothing in the file is executed. TorchScript is not read, because it is a program in its own language that PyTorch
    runs when it loads it.

    Args:
        path: the file.
        whole: for ONNX files, whether all operators must be known. Otherwise an unknown one is an error only when it
            runs, and ``transpike.convert(net, images, until=...)`` converts the part before it.

    Raises:
        ModelError: The file is missing, damaged or of another kind, the network takes several tensors, or it has
            unknown operators.

    Example:
        >>> import tempfile, torch
        >>> program = torch.export.export(torch.nn.Linear(4, 3).eval(), (torch.zeros(2, 4),))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.export.save(program, f"{folder}/net.pt2")
        ...     net = read_network(f"{folder}/net.pt2")
        >>> net(torch.ones(2, 4)).shape
        torch.Size([2, 3])
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
    """Return what a file without a network contains, as the end of a message."""
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
