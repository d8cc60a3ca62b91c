"""A saved network in NumPy: its operations, its code and its clock, as docs/format.md explains them."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load as read_arrays

from transpike import files
from transpike.checks import whole
from transpike.errors import ModelError, TranspikeError
from transpike.export.stops import Stop

__all__ = ["DAMAGED", "Array", "Bundle", "Node", "read", "whole_numbers"]

Array: TypeAlias = "np.ndarray[Any, Any]"

FORMAT, VERSION = "transpike spiking network", 4
LARGEST = 2**30
"""The largest number of values of one image in all operations together. Larger shapes are surely a mistake."""

LONGEST = 2**14
"""The largest number of steps of a wait, a delay or an interval. Larger ones are surely a mistake."""

DAMAGED = (ArithmeticError, AttributeError, LookupError, RuntimeError, SafetensorError, TypeError, ValueError)
"""The exceptions that a changed file can cause in code that expects a valid one."""


@dataclass(frozen=True, eq=False)
class Node:
    """An operation of the network; see docs/format.md for each field."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    args: Mapping[str, Any]
    gains: tuple[float, ...]
    tensors: Mapping[str, Array]
    calls: tuple[Mapping[str, Any], ...]
    tail: Mapping[str, Any] | None
    rule: Mapping[str, Any] | None
    fires: bool
    unit: float
    wait: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class Bundle:
    """A saved network.

    Attributes:
        nodes: the operations, in an order in which they can run.
        outputs: the names of the outputs, which are returned in the form ``container``.
        spiking: the names of the operations with spikes or currents. The others use decoded values.
        readouts: the spiking operations whose results are decoded.
        weights, entry, encoded, ratio, wait: the code.
        latency, interval, delays: the clock.
        dtype: float32, or float64 if the network was saved so.
        stop: the rule for when an image may stop. None if the network was saved without one.
        scheme: the name of the coding scheme.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    container: str | list[str]
    spiking: frozenset[str]
    readouts: frozenset[str]
    weights: tuple[float, ...]
    entry: tuple[float, ...]
    encoded: tuple[int, ...] | None
    ratio: float | None
    wait: int
    latency: int
    interval: int
    delays: Mapping[tuple[str, str], int]
    dtype: np.dtype[Any]
    stop: Stop | None = None
    scheme: str = ""

    @property
    def steps(self) -> int:
        return len(self.weights)

    @property
    def whole(self) -> bool:
        """Whether its numbers are whole: see `SpikingNetwork.quantise`."""
        return "exponent" in self.input.args

    def exponent(self, name: str) -> int:
        """Return the power of 2 that makes an operation's result whole. Trains are already whole."""
        node = self.by_name[name]
        return 0 if node.fires or node.kind == "input" else int(node.args["exponent"])

    @cached_property
    def by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @property
    def input(self) -> Node:
        return self.nodes[0]

    def pack(self, values: Mapping[str, Array]) -> Any:
        """Return the outputs in the form in which the network returned them."""
        results = [values[name] for name in self.outputs]
        match self.container:
            case "tensor":
                return results[0]
            case "tuple":
                return tuple(results)
            case "list":
                return results
            case keys:
                return dict(zip(keys, results, strict=True))


def whole_numbers(values: Any, exponent: int, *, of: str) -> Array:
    """Return ``values`` times 2 to the exponent, as whole numbers.

    Raises:
        ModelError: They are not whole.
    """
    scaled = np.asarray(values, np.float64) * 2.0**exponent
    numbers = scaled.astype(np.int64)
    if not np.array_equal(numbers, scaled):
        raise ModelError(
            f"{of}: its exponent says that its numbers are whole, but they are not. Save the network again."
        )
    return numbers


def read(folder: Path | str) -> Bundle:
    """Read the files that `SpikingNetwork.save` wrote.

    Raises:
        ModelError: The folder is missing or damaged, or holds something else.
    """
    source = Path(folder)
    with files.reading(source) as place:
        for name in ("network.json", "weights.safetensors"):
            if not os.path.isfile(place(name)):
                raise ModelError(f"{source}: no {name} there; give the folder that snn.save(folder) wrote")
        network = files.Record.read(place("network.json"), remedy="Save the network again.", error=ModelError)
        data = _read_whole(place("weights.safetensors"))
    if network.content.get("format") != FORMAT or network.content.get("version") != VERSION:
        version = files.dumps([network.content.get(key) for key in ("format", "version")])
        raise network.wrong(f"not a spiking network of format version {VERSION} ({' '.join(version.split())[:80]}).")
    if data is None or network.content.get("weights_sha256") != hashlib.sha256(data).hexdigest():
        raise network.wrong("weights.safetensors is not the one it was written with.")
    try:
        return _bundle(network, read_arrays(data))
    except TranspikeError:
        raise
    except DAMAGED as error:
        raise network.wrong(f"damaged ({type(error).__name__}: {str(error).partition(chr(10))[0][:200]}).") from error


def _read_whole(weights: Path) -> bytes | None:
    """Return the file's content if it is as long as its header says. A longer file might not fit in memory."""
    try:
        with safe_open(weights, "np"):
            return weights.read_bytes()
    except SafetensorError:
        return None


def _bundle(network: files.Record, arrays: Mapping[str, Array]) -> Bundle:
    units, waits, code = (network.record(name) for name in ("units", "waits", "code"))
    nodes = []
    for entry in network.records("ops"):
        name, kind = entry.text("name"), entry.text("kind")
        fires = kind == "call" and entry.flag("fires")
        nodes.append(
            Node(
                name=name,
                kind=kind,
                inputs=tuple(entry.texts("inputs")),
                shape=tuple(entry.wholes("shape", least=0)),
                args=entry.record("args").content,
                gains=tuple(entry.numbers("gains")),
                tensors={key: arrays[f"{name}.{key}"] for key in entry.texts("tensors")},
                calls=tuple(r.content for r in entry.record("function").records("calls")) if kind == "call" else (),
                tail=entry.record("tail").content if kind == "call" and entry.has("tail") else None,
                rule=entry.record("neuron").content if fires and entry.has("neuron") else None,
                fires=fires,
                unit=units.number(name) if name in units.content else 1.0,
                wait=waits.whole(name, least=0, most=LONGEST) if fires else 0,
            )
        )
    _check(network, nodes)
    container = network.content["container"]
    outputs = tuple(network.texts("outputs"))
    spiking = _spiking(nodes)
    read_later = [name for node in nodes if node.name not in spiking for name in node.inputs]
    types = {a.dtype for node in nodes for a in node.tensors.values() if a.dtype.kind == "f"}
    delays: list[Any] = network.values("delays")
    stop = Stop.read(network.record("stop"), len(code.numbers("weights"))) if network.has("stop") else None
    if stop and not code.has("ratio"):
        raise network.wrong(
            "stop: without a constant ratio of its steps' weights the network has no answers before the last step."
        )
    return Bundle(
        nodes=tuple(nodes),
        outputs=outputs,
        container=container if isinstance(container, str) else network.texts("container"),
        spiking=spiking,
        readouts=spiking.intersection([*read_later, *outputs]),
        weights=tuple(code.numbers("weights")),
        entry=tuple(code.numbers("entry")),
        encoded=tuple(code.wholes("encoded")) if code.has("encoded") else None,
        ratio=code.number("ratio") if code.has("ratio") else None,
        wait=code.whole("wait", least=0, most=LONGEST),
        latency=network.whole("latency", least=1),
        interval=network.whole("interval", least=1, most=LONGEST),
        delays={(str(a), str(b)): whole("delays", n, least=0, most=LONGEST, error=ModelError) for a, b, n in delays},
        dtype=np.dtype(np.float64 if np.dtype(np.float64) in types else np.float32),
        stop=stop,
        scheme=network.record("scheme").text("name"),
    )


def _check(network: files.Record, nodes: Sequence[Node]) -> None:
    names: set[str] = set()
    for node in nodes:
        if (node.kind == "input") != (not names) or node.name in names or not names.issuperset(node.inputs):
            raise network.wrong(f"{node.name[:80]} is out of place.")
        if node.kind != "input" and not node.inputs:
            raise network.wrong(f"{node.name[:80]} has no input.")
        names.add(node.name)
    if not nodes or sum(node.size for node in nodes) > LARGEST:
        raise network.wrong("it has no operations, or their shapes are too large for any memory.")


def _spiking(nodes: Sequence[Node]) -> frozenset[str]:
    """Return the weighted layers, the products of two trains, and all operations before one of them."""
    names: set[str] = set()
    for node in reversed(nodes):
        if node.name in names or node.kind in ("convolution", "linear", "contraction", "product"):
            names |= {node.name, *node.inputs}
    return frozenset(names)
