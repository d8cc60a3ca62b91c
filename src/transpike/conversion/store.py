"""Read a converted network from its files, data from a stranger: names must be on fixed lists, shapes must fit."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from transpike.coding import create_scheme
from transpike.coding.function import Function
from transpike.conversion.graph import Graph
from transpike.conversion.kinds import KINDS, apply, resampling
from transpike.conversion.network import SpikingNetwork
from transpike.conversion.op import Op
from transpike.conversion.save import FORMAT, VERSION, digest
from transpike.errors import ModelError, TranspikeError

__all__ = ["load"]


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
            "convert again, or install the transpike that wrote it"
        )
    if network.get("weights_sha256") != digest(source / "weights.safetensors"):
        raise ModelError(
            f"{source}: damaged: weights.safetensors is not the one network.json was written with; save again"
        )
    try:
        return _build(network, tensors)
    except TranspikeError as error:
        raise ModelError(f"{source}: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(
            f"{source}: damaged ({type(error).__name__}: {reason}); convert and save the network again"
        ) from error


def _build(network: dict[str, Any], tensors: dict[str, Tensor]) -> SpikingNetwork:
    settings = dict(network["scheme"])
    scheme = create_scheme(settings.pop("name"), settings)
    ops = tuple(_read(entry, tensors) for entry in network["ops"])
    joined = {str(name): str(into) for name, into in network["joined"].items()}
    graph = Graph(ops, tuple(network["outputs"]), network["container"], joined)
    units, clipped = ({k: float(v) for k, v in network[key].items()} for key in ("units", "clipped"))
    waits = network["waits"]
    _check(graph, units, waits)
    return SpikingNetwork(graph, scheme, units, waits=waits, clipped=clipped)


def _read(entry: dict[str, Any], tensors: Mapping[str, Tensor]) -> Op:
    name, kind = entry["name"], entry["kind"]
    if kind not in KINDS:
        raise ModelError(f"{name}: unknown operation {kind!r}; a newer transpike may have written it")
    own = {key: tensors[f"{name}.{key}"] for key in entry["tensors"]}
    inputs, shape, gains = (tuple(entry[key]) for key in ("inputs", "shape", "gains"))
    op = Op(name, kind, inputs, shape, args=entry["args"], tensors=own, gains=gains)
    if kind == "resample":
        resampling(op)
    if kind != "call":
        return op
    if not isinstance(entry["fires"], bool):
        raise ValueError(f"{name}: whether it fires is true or false, not {entry['fires']!r}")
    function = Function.read(entry["function"])
    if function.operands != len(op.inputs):
        raise ValueError(f"{name} has {len(op.inputs)} inputs, its function {function.operands} operands")
    return replace(op, function=function, fires=entry["fires"])


def _check(graph: Graph, units: Mapping[str, float], waits: Mapping[str, int]) -> None:
    """Run the graph on shapes alone: what does not fit together is found now, not with the first image."""
    dtypes = {tensor.dtype for op in graph for tensor in op.tensors.values()}
    if len(dtypes) != 1 or not (dtype := dtypes.pop()).is_floating_point:
        raise ValueError("its tensors are not of one floating-point type")
    values: dict[str, Tensor] = {}
    for op in graph:
        if (op.kind == "input") != (not values) or op.name in values:
            raise ValueError(f"{op.name} is out of place")
        shape = (2, *op.shape)
        if op.kind == "input":
            values[op.name] = torch.empty(shape, dtype=dtype, device="meta")
        else:
            own = {key: tensor.to("meta") for key, tensor in op.tensors.items()}
            values[op.name] = apply(op, own, *(values[name] for name in op.inputs))
        if values[op.name].shape != shape:
            raise ValueError(f"{op.name} gives {list(values[op.name].shape)}, not {list(shape)} as recorded")
    graph.pack(values)
    if not all(0 < units[name] < math.inf for name in graph.spiking):
        raise ValueError("an amplitude is not a positive number")
    if waits.keys() != {op.name for op in graph.neurons} or any(type(n) is not int or n < 0 for n in waits.values()):
        raise ValueError("the waits are not one whole number a layer of neurons")
