"""A converted network as files: ``network.json`` and ``weights.safetensors``, readable without the original classes.

Everything is data: operations by name from fixed lists, plain arguments, tensors. `transpike.load` reads it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file

from transpike.coding import scheme_settings
from transpike.coding.scheme import Scheme
from transpike.conversion.graph import Graph
from transpike.conversion.op import Op
from transpike.conversion.timing import Timing
from transpike.errors import ModelError

__all__ = ["FORMAT", "VERSION", "digest", "save"]

FORMAT = "transpike spiking network"
VERSION = 2


def save(
    folder: str | os.PathLike[str],
    graph: Graph,
    scheme: Scheme,
    timing: Timing,
    *,
    units: Mapping[str, float],
    clipped: Mapping[str, float],
) -> None:
    """Write a spiking network to ``folder``, whole or not at all; files of an earlier save there are replaced."""
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(
            f"{target}: cannot be made a folder ({error.strerror or error}); name another place"
        ) from error
    network = {
        "format": FORMAT,
        "version": VERSION,
        "scheme": scheme_settings(scheme),
        "latency": timing.latency,
        "interval": timing.interval,
        "ops": [_written(op) for op in graph],
        "outputs": graph.outputs,
        "container": graph.container,
        "joined": dict(graph.joined),
        "units": dict(units),
        "waits": dict(timing.waits),
        "clipped": dict(clipped),
        "delays": [[source, to, steps] for (source, to), steps in timing.delays.items() if steps],
    }
    tensors = {
        f"{op.name}.{key}": tensor.detach().cpu().contiguous() for op in graph for key, tensor in op.tensors.items()
    }
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        weights = Path(scratch) / "weights.safetensors"
        save_file(tensors, weights)
        network["weights_sha256"] = digest(weights)
        (Path(scratch) / "network.json").write_text(json.dumps(network, indent=1))
        for name in ("weights.safetensors", "network.json"):
            shutil.move(Path(scratch) / name, target / name)


def _written(op: Op) -> dict[str, object]:
    entry: dict[str, object] = {"name": op.name, "kind": op.kind, "inputs": op.inputs, "shape": op.shape}
    entry |= {"args": dict(op.args), "gains": op.gains, "tensors": list(op.tensors)}
    return entry | ({"function": op.function.written(), "fires": op.fires} if op.kind == "call" else {})


def digest(path: Path) -> str:
    """SHA-256 of a file, by which both files are known to belong together."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
