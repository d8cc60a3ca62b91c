"""A converted network as files: ``network.json`` and ``weights.safetensors``, readable without the original classes.

Everything is data: operations by name from fixed lists, plain arguments, tensors. `transpike.load` reads it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transpike import files
from transpike.coding import scheme_settings
from transpike.coding.function import Function
from transpike.coding.neuron import Neuron
from transpike.coding.scheme import Scheme, ratio
from transpike.coding.tracking import TrackingNeuron
from transpike.conversion.describe import Measured
from transpike.conversion.graph import Graph
from transpike.conversion.op import Op
from transpike.conversion.stopping import StopRule
from transpike.conversion.timing import Timing
from transpike.errors import ModelError

__all__ = ["FORMAT", "NETWORK", "VERSION", "WEIGHTS", "digest", "facts", "rule", "save", "tail"]

FORMAT = "transpike spiking network"
VERSION = 4
NETWORK = files.json_kind("a spiking network (network.json)", format=FORMAT)
WEIGHTS = files.safetensors_kind("weights of a spiking network that transpike wrote")


def save(
    folder: Path | str,
    graph: Graph,
    scheme: Scheme,
    timing: Timing,
    neurons: Mapping[str, Neuron],
    measured: Measured,
    stop: StopRule | None = None,
) -> None:
    """Write a spiking network to ``folder``, whole or not at all; files of an earlier save there are replaced.

    Raises:
        ModelError: if the folder cannot be written, or holds files of these names that are no spiking network; if the
            stop rule has a score of one's own.
    """
    weights = {f"{op.name}.{key}": tensor for op in graph for key, tensor in op.tensors.items()}
    data = files.tensors(weights, WEIGHTS)
    network = {
        "format": FORMAT,
        "version": VERSION,
        "scheme": scheme_settings(scheme),
        "ops": [_written(op, neurons) for op in graph],
        "outputs": graph.outputs,
        "container": graph.container,
        "joined": dict(graph.joined),
        "spikes": graph.spikes,
        "step": graph.step,
        "fixed": graph.fixed,
        "units": dict(measured.units),
        "waits": dict(timing.waits),
        "clipped": dict(measured.clipped),
        "residuals": dict(measured.residuals),
        **facts(scheme, timing),
        "stop": None if stop is None else stop.written(),
        "weights_sha256": digest(data),
    }
    with files.Change(Path(folder), error=ModelError) as change:
        change.write("weights.safetensors", data, kind=WEIGHTS)
        change.write("network.json", files.dumps(network), kind=NETWORK)


def facts(scheme: Scheme, timing: Timing) -> dict[str, Any]:
    """What follows from the scheme and the waits, written for readers that compute neither: see docs/format.md."""
    code = {
        "weights": list(scheme.weights),
        "entry": list(scheme.entry),
        "encoded": None if scheme.encoded is None else list(scheme.encoded),
        "ratio": ratio(scheme),
        "wait": scheme.wait or 0,
    }
    delays = [[source, to, steps] for (source, to), steps in timing.delays.items() if steps]
    return {"code": code, "latency": timing.latency, "interval": timing.interval, "delays": delays}


def digest(data: bytes) -> str:
    """SHA-256 of the weights' file, by which both files are known to belong together."""
    return hashlib.sha256(data).hexdigest()


def _written(op: Op, neurons: Mapping[str, Neuron]) -> dict[str, object]:
    entry: dict[str, object] = {"name": op.name, "kind": op.kind, "inputs": op.inputs, "shape": op.shape}
    entry |= {"args": dict(op.args), "gains": op.gains, "tensors": list(op.tensors)}
    if op.follows:
        entry["follows"] = [[list(f.path), f.name, f.first, f.last, f.factor] for f in op.follows]
    if op.kind != "call":
        return entry
    entry |= {"function": op.function.written(), "fires": op.fires, "tail": tail(op.function)}
    return entry | ({"neuron": rule(op, neurons[op.name])} if op.fires else {})


def rule(op: Op, neuron: Neuron) -> dict[str, object] | None:
    """How a layer fires, as plain data; None if it does not as `TrackingNeuron` does, of the operation's function."""
    return neuron.rule() if isinstance(neuron, TrackingNeuron) and neuron.function == op.function else None


def tail(function: Function) -> dict[str, float | None] | None:
    """How a neuron tracks a function: the calls before its piecewise linear ending, and that; None by estimates."""
    if not function.tracked:
        return None
    low, high = (bound if math.isfinite(bound) else None for bound in (function.tail.low, function.tail.high))
    return {"calls": len(function.head.calls), "slope": function.tail.slope, "low": low, "high": high}
