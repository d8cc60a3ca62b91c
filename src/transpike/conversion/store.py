"""A converted network as files: ``network.json`` and ``weights.safetensors``, readable without the original classes.

Everything is data: operations by name from a fixed list, plain arguments, tensors. Nothing is unpickled or evaluated.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from transpike.coding import SCHEMES
from transpike.conversion.graph import KINDS, Graph, Op, apply, operator
from transpike.conversion.network import SpikingNetwork
from transpike.errors import ModelError, TranspikeError

__all__ = ["load", "save"]

FORMAT = "transpike spiking network"
VERSION = 1


def save(snn: SpikingNetwork, folder: str | os.PathLike[str]) -> None:
    """Write ``snn`` to ``folder``, whole or not at all; files of an earlier save there are replaced."""
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(
            f"{target}: cannot be made a folder ({error.strerror or error}); name another place"
        ) from error
    scheme = {"name": type(snn.scheme).__name__, **dataclasses.asdict(snn.scheme)}  # type: ignore[call-overload]
    ops = [
        {
            "name": op.name,
            "target": op.target,
            "inputs": op.inputs,
            "shape": op.shape,
            "args": dict(op.args),
            "gains": op.gains,
            "tensors": list(op.tensors),
        }
        for op in snn.graph
    ]
    network = {
        "format": FORMAT,
        "version": VERSION,
        "scheme": scheme,
        "latency": snn.latency,
        "interval": snn.interval,
        "ops": ops,
        "outputs": snn.graph.outputs,
        "container": snn.graph.container,
        "units": snn.units,
        "clipped": snn.clipped,
        "delays": [[source, to, steps] for (source, to), steps in snn.delays.items() if steps],
    }
    tensors = {
        f"{op.name}.{key}": tensor.detach().cpu().contiguous()
        for op in snn.graph
        for key, tensor in snn._tensors(op).items()
    }
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        weights = Path(scratch) / "weights.safetensors"
        save_file(tensors, weights)
        network["weights_sha256"] = _digest(weights)
        (Path(scratch) / "network.json").write_text(json.dumps(network, indent=1))
        for name in ("weights.safetensors", "network.json"):
            shutil.move(Path(scratch) / name, target / name)


def load(folder: str | os.PathLike[str]) -> SpikingNetwork:
    """Read a network that `SpikingNetwork.save` wrote.

    Raises:
        ModelError: if the folder is missing, damaged, or holds something else.
    """
    source = Path(folder)
    for name in ("network.json", "weights.safetensors"):
        if not (source / name).is_file():
            raise ModelError(
                f"{source}: no {name} there; give the folder that snn.save(folder) or `transpike convert` wrote"
            )
    try:
        network = json.loads((source / "network.json").read_text())
        tensors = load_file(source / "weights.safetensors")
    except (json.JSONDecodeError, RecursionError, UnicodeDecodeError, SafetensorError) as error:
        raise ModelError(f"{source}: damaged ({error}); convert and save the network again") from error
    if not isinstance(network, dict) or network.get("format") != FORMAT:
        raise ModelError(f"{source}/network.json: not a transpike spiking network")
    if network.get("version") != VERSION:
        raise ModelError(
            f"{source}/network.json: format version {network.get('version')}, this transpike reads {VERSION}; "
            "install the transpike that wrote it, or convert again"
        )
    if network.get("weights_sha256") != _digest(source / "weights.safetensors"):
        raise ModelError(
            f"{source}: damaged: weights.safetensors is not the one network.json was written with; save again"
        )
    try:
        return _build(network, tensors)
    except TranspikeError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(
            f"{source}: damaged ({type(error).__name__}: {reason}); convert and save the network again"
        ) from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _build(network: dict[str, Any], tensors: dict[str, Tensor]) -> SpikingNetwork:
    fields = dict(network["scheme"])
    scheme = SCHEMES[fields.pop("name")](**fields)
    ops = []
    for entry in network["ops"]:
        kind, _, name = entry["target"].partition(":")
        if kind not in KINDS:
            raise ModelError(
                f"{entry['name']}: unknown operation {entry['target']!r}; a newer transpike may have written it"
            )
        for operator_name in filter(None, (name, (entry["args"].get("pool") or {}).get("operator"))):
            operator(operator_name)
        held = {key: tensors[f"{entry['name']}.{key}"] for key in entry["tensors"]}
        plain = {key: tuple(entry[key]) for key in ("inputs", "shape", "gains")}
        ops.append(Op(entry["name"], entry["target"], args=entry["args"], tensors=held, **plain))
    graph = Graph(tuple(ops), tuple(network["outputs"]), network["container"])
    units, clipped = ({k: float(v) for k, v in network[key].items()} for key in ("units", "clipped"))
    _check(graph, units)
    return SpikingNetwork(graph, scheme, units, clipped)


def _check(graph: Graph, units: Mapping[str, float]) -> None:
    """Run the graph on shapes alone: what does not fit together is found now, not with the first image."""
    dtypes = {tensor.dtype for op in graph for tensor in op.tensors.values()}
    if len(dtypes) != 1 or not (dtype := dtypes.pop()).is_floating_point:
        raise ValueError("its tensors are not of one floating-point type")
    values: dict[str, Tensor] = {}
    for op in graph:
        if (op.target == "input") != (not values) or op.name in values:
            raise ValueError(f"{op.name} is out of place")
        shape = (2, *op.shape)
        if op.target == "input":
            values[op.name] = torch.empty(shape, dtype=dtype, device="meta")
        else:
            held = {key: tensor.to("meta") for key, tensor in op.tensors.items()}
            values[op.name] = apply(op, held, *(values[name] for name in op.inputs))
        if values[op.name].shape != shape:
            raise ValueError(f"{op.name} gives {list(values[op.name].shape)}, not {list(shape)} as recorded")
    graph.pack(values)
    if not all(0 < units[name] < math.inf for name in graph.spiking()):
        raise ValueError("an amplitude is not a positive number")
