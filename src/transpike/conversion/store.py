"""Reads a converted network from its files. The files may come from a stranger, so everything is checked.

Names must be on fixed lists, and shapes must fit.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as read_tensors
from torch import Tensor

from transpike import files
from transpike.checks import shown
from transpike.coding import create_scheme
from transpike.coding.function import Function
from transpike.conversion.graph import Graph
from transpike.conversion.kinds import KINDS, RELATIVE, apply, resampling
from transpike.conversion.network import SpikingNetwork
from transpike.conversion.op import Follow, Op
from transpike.conversion.save import FORMAT, VERSION, digest, facts, rule, tail
from transpike.conversion.stopping import StopRule
from transpike.errors import ModelError, TranspikeError
from transpike.results import Spikes

__all__ = ["load"]

AGAIN = "Convert and save the network again."
DAMAGED = (ArithmeticError, AttributeError, LookupError, RuntimeError, SafetensorError, TypeError, ValueError)
_PLACES = {"gather": (torch.int64,), "call": (torch.int64, torch.bool)}  # dtypes of indices and masks of these kinds
LARGEST = 2**30
"""The largest number of values of one image in all operations together. Larger shapes are surely a mistake."""


def load(folder: Path | str) -> SpikingNetwork:
    """Read a network that `SpikingNetwork.save` wrote.

    The network is on the CPU.

    Args:
        folder: the folder of the network.

    Raises:
        ModelError: The folder is missing or damaged, or holds something else.

    Example:
        >>> import tempfile, transpike
        >>> images = torch.rand(64, 4)
        >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> snn = transpike.convert(ann, images)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     snn.save(folder)
        ...     again = load(folder)
        >>> torch.equal(again(images), snn(images))
        True
    """
    source = Path(folder)
    with files.reading(source) as place:
        for name in ("network.json", "weights.safetensors"):
            if not os.path.isfile(place(name)):
                raise ModelError(
                    f"{source}: no {name} there; give the folder that snn.save(folder) or `transpike convert` wrote"
                )
        network = files.Record.read(place("network.json"), remedy=AGAIN, error=ModelError)
        data = _read_whole(place("weights.safetensors"))
    if network.content.get("format") != FORMAT:
        raise ModelError(f"{source}/network.json: not a transpike spiking network")
    if network.content.get("version") != VERSION:
        version = files.dumps(network.content.get("version")).strip()[:40]
        raise ModelError(
            f"{source}/network.json: format version {version}, this transpike reads {VERSION}; "
            "convert again, or install the transpike that wrote it"
        )
    if data is None or network.content.get("weights_sha256") != digest(data):
        raise ModelError(
            f"{source}: damaged: weights.safetensors is not the one network.json was written with; save again"
        )
    try:
        return _build(network, read_tensors(data))
    except ModelError:
        raise
    except TranspikeError as error:
        raise network.wrong(f"{error}.".replace("..", ".")) from error
    except DAMAGED as error:
        reason = str(error).partition("\n")[0][:300]
        raise network.wrong(f"damaged ({type(error).__name__}: {reason}).") from error


def _read_whole(weights: Path) -> bytes | None:
    """Return the file's content if it is as long as its header says. A longer file might not fit in memory."""
    try:
        with safe_open(weights, "pt"):
            return weights.read_bytes()
    except SafetensorError:
        return None


def _build(network: files.Record, tensors: Mapping[str, Tensor]) -> SpikingNetwork:
    settings = dict(network.record("scheme").content)
    scheme = create_scheme(network.record("scheme").text("name"), {k: v for k, v in settings.items() if k != "name"})
    ops = tuple(_read(entry, tensors) for entry in network.records("ops"))
    container = network.content["container"]
    names = network.text("container") if isinstance(container, str) else network.texts("container")
    joined = {name: network.record("joined").text(name) for name in network.record("joined").content}
    spikes = cast(Spikes, network.text("spikes", choices=get_args(Spikes)))
    step = network.whole("step", least=0) if network.has("step") else 0
    fixed = network.text("fixed") if network.has("fixed") else ""
    graph = Graph(ops, tuple(network.texts("outputs")), names, joined, spikes, step, fixed)
    parts = map(network.record, ("units", "clipped", "residuals"))
    units, clipped, residuals = ({n: part.number(n) for n in part.content} for part in parts)
    waits = {name: network.record("waits").whole(name, least=0) for name in network.record("waits").content}
    if waits.keys() != {op.name for op in graph.neurons}:
        raise network.wrong("waits: expected one for each layer of neurons.")
    _check(graph, units)
    snn = SpikingNetwork(graph, scheme, units, waits=waits, clipped=clipped, residuals=residuals)
    first = math.prod(graph[graph.outputs[0]].shape)
    if network.has("stop") and first < 2 and network.record("stop").content.get("score") != "steady":
        raise network.wrong("stop.score: expected 'steady', because the network has one output per sample.")
    snn.stop = StopRule.read(network.record("stop"), snn.steps) if network.has("stop") else None
    for entry in network.records("ops"):
        name, found = entry.text("name"), entry.content.get("neuron")
        if found != (expected := rule(graph[name], snn.neurons[name]) if name in snn.neurons else None):
            raise entry.wrong(f"{name}: neuron={shown(found)}: expected {shown(expected)} for this scheme.")
    for name, value in facts(scheme, snn.timing).items():
        if network.content.get(name) != value:
            found = shown(network.content.get(name))
            raise network.wrong(f"{name}={found}: expected {shown(value)} for this scheme and these waits.")
    return snn


def _read(entry: files.Record, tensors: Mapping[str, Tensor]) -> Op:
    name, kind = entry.text("name"), entry.text("kind")
    if kind not in KINDS:
        raise entry.wrong(f"{name}: unknown operation {kind!r}; a newer transpike may have written it.")
    own = {key: tensors[f"{name}.{key}"] for key in entry.texts("tensors")}
    inputs, shape = tuple(entry.texts("inputs")), tuple(entry.wholes("shape", least=0))
    gains, args = tuple(entry.numbers("gains")), entry.record("args").content
    follows = tuple(map(_follow, cast("list[object]", entry.content.get("follows", []))))
    op = Op(name, kind, inputs, shape, args=args, tensors=own, gains=gains, follows=follows)
    if kind == "resample":
        resampling(op)
    if kind != "call":
        return op
    function = Function.read(entry.record("function").content)
    if function.operands != len(inputs):
        raise entry.wrong(f"{name} has {len(inputs)} inputs, but its function has {function.operands} operands.")
    if entry.content.get("tail") != tail(function):
        raise entry.wrong(
            f"{name}: tail={shown(entry.content.get('tail'))}: expected {tail(function)} for its function."
        )
    return replace(op, function=function, fires=entry.flag("fires"))


def _follow(entry: object) -> Follow:
    match entry:
        case [list(path), str(name), int(first), int(last), int(factor)] if path and all(
            type(key) in (str, int) for key in path
        ):
            return Follow(tuple(path), name, first, last, factor)
    raise ValueError("follows: an entry is not a rule")


def _within(value: Tensor) -> None:
    """Check that a function's intermediate results are no larger than a network's values may be."""
    if value.numel() > 2 * LARGEST:
        raise ValueError("its shapes are too large for any memory")


def _check(graph: Graph, units: Mapping[str, float]) -> None:
    """Run the graph on shapes alone, then on one image of zeros, to find at once what does not fit together."""
    dtypes = {t.dtype for op in graph for t in op.tensors.values() if t.dtype not in _PLACES.get(op.kind, ())}
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
            inputs = [values[name] for name in op.inputs]
            values[op.name] = apply(op, own, *inputs)
            op.function(*inputs, constants=own, watch=_within) if op.kind == "call" else None
        if values[op.name].shape != shape:
            raise ValueError(f"{op.name} gives {list(values[op.name].shape)}, not {list(shape)} as recorded")
    if sum(math.prod(op.shape) for op in graph) > LARGEST:
        raise ValueError("its shapes are too large for any memory")
    graph.pack(values)
    if not all(0 < units[name] < math.inf for name in graph.spiking):
        raise ValueError("an amplitude is not a positive number")
    for op in [graph.input, *graph.neurons]:
        relative = op.tensors.get(RELATIVE, torch.ones([1] * len(op.shape)))
        fits = len(relative.shape) == len(op.shape) and relative.is_floating_point()
        fits = fits and all(n in (1, most) for n, most in zip(relative.shape, op.shape, strict=True))
        if not (fits and bool(((relative > 0) & (relative <= 1)).all())):
            raise ValueError(f"{op.name}: relative amplitudes must be numbers above 0, at most 1, one per channel")
    with torch.no_grad():
        graph.run(torch.zeros(1, *graph.input.shape, dtype=dtype))
