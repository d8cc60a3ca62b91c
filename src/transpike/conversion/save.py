"""Writes a converted network as files: ``network.json`` and ``weights.safetensors``.

The files contain only data: operations by name from fixed lists, plain arguments, tensors. So they can be read without
the original classes. `transpike.load` reads them.
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
    """Write a spiking network to ``folder``, completely or not at all. Files of an earlier save there are replaced.

    Raises:
        ModelError: The folder cannot be written. Or it holds files with these names that are not a spiking network. Or
            the score of the stop rule is the user's own function.
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
    """Return what follows from the scheme and the waits, for readers that compute neither: see docs/format.md."""
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
    """Return the SHA-256 of the weights' file. It shows that both files belong together."""
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
    """Return how a layer fires, as plain data. None if it does not fire as `TrackingNeuron` does for its function."""
    return neuron.rule() if isinstance(neuron, TrackingNeuron) and neuron.function == op.function else None


def tail(function: Function) -> dict[str, float | None] | None:
    """Return a function's piecewise linear ending and the count of calls before it. None if estimates are tracked."""
    if not function.tracked:
        return None
    low, high = (bound if math.isfinite(bound) else None for bound in (function.tail.low, function.tail.high))
    return {"calls": len(function.head.calls), "slope": function.tail.slope, "low": low, "high": high}
