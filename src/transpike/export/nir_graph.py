"""NIR, the exchange format of neuromorphic tools: networks of integrate-and-fire neurons, out and in.

Its neurons fire plain spikes and are set back to a value; it knows no graded or signed spike, no neuron that amplifies
and no reset by subtraction. A rate network is written with its reset in the metadata, which tools ignore: they must be
told.
"""

from __future__ import annotations

import io
import itertools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from transpike import files
from transpike.checks import choice, number
from transpike.coding.scheme import ratio
from transpike.conversion import SpikingNetwork
from transpike.conversion.op import Op
from transpike.errors import ModelError
from transpike.neurons import IFNode, LIFNode, ParametricLIFNode, SpikingNode

__all__ = ["import_nir", "nir"]

DT = 1e-4
"""Seconds of a step, where nothing else is said: what most tools take."""

LARGEST = 2**30
"""Bytes that a file to import may have."""


def nir(network: SpikingNetwork | nn.Module, path: Path | str, *, shape: Sequence[int] = (), dt: float = DT) -> Path:
    """Write a network as NIR (HDF5, ``.nir``).

    A converted network must be of rate coding: every step it takes the image itself as its current, and the mean over T
    steps of what its last layer gives is its output. Its neurons subtract the threshold, which the metadata say
    (``reset: subtraction``), and begin at ``start``. A trained network must be a chain of `torch.nn` layers and of
    `IFNode`, `LIFNode` and `ParametricLIFNode`.

    Args:
        network: what `transpike.convert` returned with `transpike.coding.Rate`, or a chain in evaluation mode.
        path: of the file; an earlier export there is replaced.
        shape: of one image; of a chain alone.
        dt: seconds of a step.

    Returns:
        The path.

    Raises:
        ModelError: if NIR cannot say the network, with the layer and the reason; or the file cannot be written.
    """
    library, _ = _library(), number("dt", dt, above=0)
    if isinstance(network, SpikingNetwork):
        nodes = _converted(network, dt)
        size: Sequence[int] = network.graph.input.shape
    else:
        nodes, size = _trained(network, tuple(shape), dt), shape
    names = ["input", *nodes, "output"]
    last = _result(list(nodes.values())[-1]) if nodes else size
    every = {"input": library.Input(np.array(size)), **nodes, "output": library.Output(np.array(last))}
    graph, data = library.NIRGraph(every, list(itertools.pairwise(names)), type_check=False), io.BytesIO()
    library.write(data, graph)
    return files.write(path, data.getvalue(), kind=_KIND, error=ModelError)


def import_nir(source: Path | str | Any, *, reset: str = "auto", step_mode: str = "s", dt: float = DT) -> nn.Sequential:
    """A chain that SpikingJelly, sinabs, norse or `nir` wrote, as trainable layers and neurons.

    Args:
        source: the file, or a ``nir.NIRGraph``.
        reset: "hard", to the file's v_reset; "subtraction"; or "auto", what the metadata say, else hard.
        step_mode: of the neurons.
        dt: seconds of a step.

    Raises:
        ModelError: if the file is damaged, no chain, or holds a node that our neurons cannot say; with its name.

    Example:
        >>> import tempfile
        >>> from transpike.neurons import LIFNode
        >>> net = nn.Sequential(nn.Linear(4, 3), LIFNode(tau=4.0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     again = import_nir(nir(net, f"{folder}/net.nir", shape=(4,)))
        >>> again[1].tau, again[1].v_reset
        (4.0, 0.0)
    """
    library = _library()
    choice("reset", reset, ("auto", "hard", "subtraction"))
    graph = source if isinstance(source, library.NIRGraph) else None
    name = "the graph" if graph is not None else str(source)
    if graph is None and (not os.path.isfile(name) or os.stat(name).st_size > LARGEST):
        raise ModelError(f"{name}: no such file, or one of more than 1 GiB")
    try:
        graph = library.read(name) if graph is None else graph
        return nn.Sequential(*(_layer(each, node, reset, step_mode, dt) for each, node in _chain(graph)))
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error
    except Exception as error:  # h5py and nir raise anything over a damaged file
        reason = str(error).strip().partition("\n")[0][:200]
        raise ModelError(f"{name}: no NIR graph that can be read ({type(error).__name__}: {reason})") from error


def _library() -> Any:
    try:
        import nir as library
    except ImportError as error:
        raise ModelError("NIR needs the package nir: pip install 'transpike[nir]'") from error
    return library


def _is_nir(path: Path) -> bool:
    import h5py

    with h5py.File(path, "r") as file:
        return {"node", "version"} <= set(file)


_KIND = files.Kind("a NIR graph", _is_nir)


def _result(node: Any) -> Any:
    return np.asarray(node.output_type["output"]) if node.output_type.get("output") is not None else np.array([1])


# -- a converted network ----------------------------------------------------------------------------------------------


def _converted(snn: SpikingNetwork, dt: float) -> dict[str, Any]:
    graph, scheme = snn.graph, snn.scheme
    if ratio(scheme) != 1 or scheme.encoded is not None or tuple(scheme.digits) != (0, 1):
        raise ModelError(
            f"{scheme}: NIR has no spike with a sign or a size and no neuron that amplifies; export it to ONNX, "
            "transpike.export.onnx, or convert with transpike.coding.Rate"
        )
    nodes: dict[str, Any] = {}
    before = graph.input.name
    for op in graph.ops[1:]:
        if list(op.inputs) != [before] or op.name not in graph.spiking:
            raise ModelError(f"{op.name}: only a chain of layers is exported to NIR, and this one is beside it")
        last, first = op is graph.ops[-1], before == graph.input.name
        unit = (snn.units[op.name] if last else 1.0) / (snn.units[before] if first else 1.0)
        nodes[op.name] = _node(snn, op, unit, snn.units[op.name] if last else 1.0, dt)
        before = op.name
    return nodes


def _node(snn: SpikingNetwork, op: Op, weight_unit: float, bias_unit: float, dt: float) -> Any:
    library, tensors = _library(), {key: t.detach().cpu() for key, t in snn.tensors(op).items()}
    source = snn.graph[op.inputs[0]].shape
    if op.gains:
        raise ModelError(f"{op.name}: a factor on an edge has no node")
    if op.kind in ("convolution", "linear"):
        weight = (tensors["weight"].double() * weight_unit).float()
        bias = (tensors.get("bias", torch.zeros(len(weight))).double() * bias_unit).float()
        if op.kind == "linear" and len(op.shape) == 1:
            return library.Affine(weight.numpy(), bias.numpy())
        if op.kind == "convolution" and not op.args["transposed"]:
            return _convolution(weight, bias, source, op.args)
    if op.kind == "reshape" and len(op.shape) == 1:
        return library.Flatten({"input": np.array(source)}, 0, -1)
    if op.kind == "resample" and op.args["operator"] == "avg_pool2d.default":
        every: list[Any] = [*op.args["args"], *([], 0, False, True, None)[len(op.args["args"]) - 1 :]]
        kernel, stride, padding, *others = every
        if others == [False, True, None]:
            sizes = (np.broadcast_to(np.array(one), 2) for one in (kernel, stride or kernel, padding))
            return library.AvgPool2d(*sizes)
    if op.fires and op.function.name == "relu" and not op.function.head.calls:
        start = float(getattr(snn.scheme, "start", 0.0))
        return _fires(library.IF, op.shape, dt, {"reset": "subtraction", "start": start})
    raise ModelError(
        f"{op.name}: NIR has no node for {op.function.name if op.kind == 'call' else op.kind} as it is here"
    )


def _convolution(weight: Tensor, bias: Tensor, source: Sequence[int], args: Mapping[str, Any]) -> Any:
    library, axes = _library(), weight.ndim - 2
    kind = {1: library.Conv1d, 2: library.Conv2d}.get(axes)
    if kind is None or len(source) != axes + 1:
        raise ModelError(f"a convolution over {axes} axes has no node in NIR")
    numbers = {key: tuple(args[key]) if axes == 2 else args[key][0] for key in ("stride", "padding", "dilation")}
    size = tuple(source[1:]) if axes == 2 else source[1]
    return kind(size, weight.numpy(), **numbers, groups=args["groups"], bias=bias.numpy())


def _fires(kind: Any, shape: Sequence[int], dt: float, metadata: dict[str, Any], **facts: float) -> Any:
    """A layer of neurons; ``r`` is what makes a step of dt add the current as it is."""
    full = {"r": 1 / dt, "v_threshold": 1.0, "v_reset": 0.0, **facts}
    node = kind(**{name: np.full(tuple(shape), value, np.float64) for name, value in full.items()})
    node.metadata = metadata
    return node


# -- a trained network ------------------------------------------------------------------------------------------------


def _trained(network: nn.Module, shape: tuple[int, ...], dt: float) -> dict[str, Any]:
    if not isinstance(network, nn.Sequential):
        raise ModelError(f"{type(network).__name__}: NIR takes a chain, torch.nn.Sequential, or a converted network")
    if not shape:
        raise ModelError("shape: give that of one image, such as (1, 28, 28), by which NIR sizes its nodes")
    nodes: dict[str, Any] = {}
    size = shape
    for name, layer in network.named_modules():
        if isinstance(layer, (nn.Sequential, nn.Identity, nn.Dropout)):
            continue
        if any(name.startswith(f"{outer}.") for outer in nodes):
            raise ModelError(f"{name}: it lies within another layer")
        nodes[name], size = _from_layer(name, layer, size, dt)
    return nodes


def _from_layer(name: str, layer: nn.Module, size: tuple[int, ...], dt: float) -> tuple[Any, tuple[int, ...]]:
    library = _library()
    if isinstance(layer, SpikingNode):
        return _from_neurons(name, layer, size, dt), size
    probe = _shape_after(name, layer, size)
    if isinstance(layer, nn.Linear):
        return library.Affine(layer.weight.detach().numpy(), _bias(layer).numpy()), probe
    if (
        isinstance(layer, (nn.Conv1d, nn.Conv2d))
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    ):
        args = {key: getattr(layer, key) for key in ("stride", "padding", "dilation", "groups")}
        return _convolution(layer.weight.detach(), _bias(layer), size, args), probe
    if isinstance(layer, nn.AvgPool2d) and not layer.ceil_mode and layer.divisor_override is None:
        pairs = (
            np.array([v, v] if isinstance(v, int) else v) for v in (layer.kernel_size, layer.stride, layer.padding)
        )
        return library.AvgPool2d(*pairs), probe
    if isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) == (1, -1):
        return library.Flatten({"input": np.array(size)}, 0, -1), probe
    raise ModelError(f"{name}: NIR has no node for {type(layer).__name__} as it is here; fold or replace it")


def _bias(layer: nn.Linear | nn.Conv1d | nn.Conv2d) -> Tensor:
    return torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias.detach()


def _shape_after(name: str, layer: nn.Module, size: tuple[int, ...]) -> tuple[int, ...]:
    try:
        with torch.no_grad():
            return tuple(layer(torch.zeros(1, *size)).shape[1:])
    except (RuntimeError, IndexError) as error:
        raise ModelError(f"{name}: does not take a sample of shape {list(size)}") from error


def _from_neurons(name: str, layer: SpikingNode, size: tuple[int, ...], dt: float) -> Any:
    library = _library()
    metadata = {"reset": "hard" if layer.v_reset is not None else "subtraction", "start": layer.v_reset or 0.0}
    facts = {"v_threshold": layer.v_threshold, "v_reset": layer.v_reset or 0.0}
    if isinstance(layer, IFNode):
        return _fires(library.IF, size, dt, metadata, **facts)
    if isinstance(layer, (LIFNode, ParametricLIFNode)):
        tau = layer.tau if isinstance(layer, LIFNode) else 1 / float(layer.w.detach().sigmoid())
        more = {"tau": tau * dt, "r": 1.0 if layer.decay_input else tau, "v_leak": layer.v_reset or 0.0}
        return _fires(library.LIF, size, dt, metadata, **facts, **more)
    raise ModelError(f"{name}: NIR has no neuron such as {type(layer).__name__}")


# -- from a file ------------------------------------------------------------------------------------------------------


def _chain(graph: Any) -> list[tuple[str, Any]]:
    library = _library()
    following: dict[str, list[str]] = {}
    for source, to in graph.edges:
        following.setdefault(source, []).append(to)
    arriving = [to for _, to in graph.edges]
    starts = [name for name, node in graph.nodes.items() if isinstance(node, library.Input)]
    found, here = [], starts[0] if len(starts) == 1 else ""
    while here in following:
        ahead = following[here]
        if len(ahead) > 1 or arriving.count(ahead[0]) > 1:
            raise ModelError(f"{here}: the graph branches; only chains are imported")
        here = ahead[0]
        if not isinstance(graph.nodes[here], library.Output):
            found.append((here, graph.nodes[here]))
    if len(found) != len(graph.nodes) - 2:
        raise ModelError("the graph is no chain from one input to one output")
    return found


def _layer(name: str, node: Any, reset: str, step_mode: str, dt: float) -> nn.Module:
    library = _library()
    makers: dict[Any, Callable[[], nn.Module]] = {
        library.Affine: lambda: _weighted(
            nn.Linear(node.weight.shape[1], node.weight.shape[0]), node.weight, node.bias
        ),
        library.Linear: lambda: _weighted(
            nn.Linear(node.weight.shape[1], node.weight.shape[0], bias=False), node.weight, None
        ),
        library.Conv1d: lambda: _convolved(nn.Conv1d, node),
        library.Conv2d: lambda: _convolved(nn.Conv2d, node),
        library.AvgPool2d: lambda: nn.AvgPool2d(_pair(node.kernel_size), _pair(node.stride), _pair(node.padding)),
        library.Flatten: lambda: nn.Flatten(int(node.start_dim) + 1, _after(int(node.end_dim))),
        library.IF: lambda: _neurons(name, node, reset, step_mode, dt),
        library.LIF: lambda: _neurons(name, node, reset, step_mode, dt),
    }
    if type(node) not in makers:
        raise ModelError(f"{name}: no layer of ours says {type(node).__name__}")
    return makers[type(node)]()


def _after(end: int) -> int:
    return end + 1 if end >= 0 else end


def _pair(value: Any) -> Any:
    found = np.asarray(value)
    return int(found) if found.ndim == 0 else tuple(int(one) for one in found)


def _weighted(layer: nn.Module, weight: Any, bias: Any) -> nn.Module:
    state = {"weight": torch.as_tensor(np.asarray(weight)).float()}
    layer.load_state_dict(state | ({} if bias is None else {"bias": torch.as_tensor(np.asarray(bias)).float()}))
    return layer


def _convolved(kind: Any, node: Any) -> nn.Module:
    groups, outputs, inputs = int(node.groups), node.weight.shape[0], node.weight.shape[1]
    padding = node.padding if isinstance(node.padding, str) else _pair(node.padding)
    kernel, stride, dilation = node.weight.shape[2:], _pair(node.stride), _pair(node.dilation)
    layer = kind(inputs * groups, outputs, kernel, stride, padding, dilation, groups)
    return _weighted(layer, node.weight, node.bias)


def _neurons(name: str, node: Any, reset: str, step_mode: str, dt: float) -> nn.Module:
    def one(key: str) -> float:
        values = np.unique(np.asarray(getattr(node, key)))
        if len(values) != 1 or not math.isfinite(values[0]):
            raise ModelError(f"{name}: {key} differs from neuron to neuron, and our nodes have one a layer")
        return float(values[0])

    said = (node.metadata or {}).get("reset", "hard")
    said = said.decode() if isinstance(said, bytes) else str(said)
    hard = (said if reset == "auto" else reset) == "hard"
    common: dict[str, Any] = {"v_threshold": one("v_threshold"), "v_reset": one("v_reset") if hard else None}
    common |= {"step_mode": step_mode}
    r = one("r")
    if not hasattr(node, "tau"):
        if not (math.isclose(r, 1) or math.isclose(r * dt, 1, rel_tol=1e-6)):
            raise ModelError(f"{name}: r={r:g} scales the input, and IFNode adds it as it is; 1 or 1/dt are meant so")
        return IFNode(**common)
    tau = one("tau") / dt
    if tau <= 1:
        raise ModelError(f"{name}: tau={tau * dt:g} s is no more than a step, dt={dt:g} s; give the file's own dt")
    if not (math.isclose(r, 1, rel_tol=1e-6) or math.isclose(r, tau, rel_tol=1e-6)):
        raise ModelError(f"{name}: r={r:g} is neither 1 (the input decays) nor tau / dt (it does not)")
    if not math.isclose(one("v_leak"), common["v_reset"] or 0.0, abs_tol=1e-12):
        raise ModelError(f"{name}: v_leak={one('v_leak'):g}: our neurons leak towards v_reset")
    return LIFNode(tau=round(tau, 9), decay_input=math.isclose(r, 1, rel_tol=1e-6), **common)
