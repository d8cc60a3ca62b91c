"""Exports networks of integrate-and-fire neurons to NIR, the exchange format of neuromorphic tools.

The neurons of NIR fire plain spikes and are reset to a value. NIR has no graded or signed spikes, no neurons that
amplify, and no reset by subtraction. The reset of a rate network is written in the metadata, which tools ignore. Set it
in the tool.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from transpike import files
from transpike.checks import number
from transpike.coding.scheme import ratio
from transpike.coding.tracking import TrackingNeuron
from transpike.conversion import SpikingNetwork
from transpike.conversion.op import Op
from transpike.errors import ModelError
from transpike.neurons import IFNode, LIFNode, ParametricLIFNode, SpikingNode

__all__ = ["DT", "nir", "nir_library"]

DT = 1e-4
"""The default length of a step in seconds, as most tools use it."""


def nir(network: SpikingNetwork | nn.Module, path: Path | str, *, shape: Sequence[int] = (), dt: float = DT) -> Path:
    """Write a network as NIR (HDF5, ``.nir``).

    A converted network must use rate coding. In every step it takes the image itself as its current. Its output is the
    mean of its last layer's output over T steps. Its neurons subtract the threshold, as the metadata state (``reset:
    subtraction``), and begin at ``start``. A trained network must be a chain of `torch.nn` layers and of `IFNode`,
    `LIFNode` and `ParametricLIFNode`.

    Args:
        network: the result of `transpike.convert` with `transpike.coding.Rate` or `QCFS`, or a chain in evaluation
            mode.
        path: the file. An earlier export there is replaced.
        shape: the shape of one image, needed only for a chain.
        dt: the length of a step in seconds.

    Returns:
        The path.

    Raises:
        ModelError: NIR cannot represent the network (the message names the layer and the reason), or the file cannot be
            written.
    """
    library, _ = nir_library(), number("dt", dt, above=0)
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


def nir_library() -> Any:
    """Return the package nir, or raise an error with what to do without it."""
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
        graded = scheme.encoded is not None or tuple(scheme.digits) != (0, 1)
        reason = "no spike with a sign or a size" if graded else "no spike whose value changes from step to step"
        steps = all(isinstance(neuron, TrackingNeuron) for neuron in snn.neurons.values())
        way = "export it to ONNX, transpike.export.onnx, or " if steps else ""
        raise ModelError(f"{type(scheme).__name__}: NIR has {reason}; {way}convert with transpike.coding.Rate")
    nodes: dict[str, Any] = {}
    before = graph.input.name
    for op in graph.ops[1:]:
        if op.name not in graph.spiking:
            raise ModelError(
                f"{op.name}: it is computed from decoded outputs, but NIR has only spikes; leave it out, "
                "as with convert(..., until=...)"
            )
        if list(op.inputs) != [before]:
            raise ModelError(f"{op.name}: NIR export takes only a chain of layers, and this layer is beside the chain")
        last, first = op is graph.ops[-1], before == graph.input.name
        unit = (snn.units[op.name] if last else 1.0) / (snn.units[before] if first else 1.0)
        nodes[op.name] = _node(snn, op, unit, snn.units[op.name] if last else 1.0, dt)
        before = op.name
    return nodes


def _node(snn: SpikingNetwork, op: Op, weight_unit: float, bias_unit: float, dt: float) -> Any:
    library, tensors = nir_library(), {key: t.detach().cpu() for key, t in snn.tensors(op).items()}
    source = snn.graph[op.inputs[0]].shape
    if op.gains:
        raise ModelError(f"{op.name}: NIR has no node for a factor on an edge")
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
    neuron = snn.neurons.get(op.name)
    if isinstance(neuron, TrackingNeuron) and op.function.name == "relu" and not op.function.head.calls:
        return _fires(library.IF, op.shape, dt, {"reset": "subtraction", "start": neuron.code.start})
    raise ModelError(
        f"{op.name}: NIR has no node for {op.function.name if op.kind == 'call' else op.kind} as it is here"
    )


def _convolution(weight: Tensor, bias: Tensor, source: Sequence[int], args: Mapping[str, Any]) -> Any:
    library, axes = nir_library(), weight.ndim - 2
    kind = {1: library.Conv1d, 2: library.Conv2d}.get(axes)
    if kind is None or len(source) != axes + 1:
        raise ModelError(f"a convolution over {axes} axes has no node in NIR")
    numbers = {key: tuple(args[key]) if axes == 2 else args[key][0] for key in ("stride", "padding", "dilation")}
    size = tuple(source[1:]) if axes == 2 else source[1]
    return kind(size, weight.numpy(), **numbers, groups=args["groups"], bias=bias.numpy())


def _fires(kind: Any, shape: Sequence[int], dt: float, metadata: dict[str, Any], **facts: float) -> Any:
    """Return a layer of neurons; with this ``r``, a step of dt adds the current unchanged."""
    full = {"r": 1 / dt, "v_threshold": 1.0, "v_reset": 0.0, **facts}
    node = kind(**{name: np.full(tuple(shape), value, np.float64) for name, value in full.items()})
    node.metadata = metadata
    return node


# -- a trained network ------------------------------------------------------------------------------------------------


def _trained(network: nn.Module, shape: tuple[int, ...], dt: float) -> dict[str, Any]:
    if not isinstance(network, nn.Sequential):
        raise ModelError(f"{type(network).__name__}: NIR takes a chain, torch.nn.Sequential, or a converted network")
    if not shape:
        raise ModelError("shape: give the shape of one image, such as (1, 28, 28); NIR nodes need it")
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
    library = nir_library()
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
    if isinstance(layer, nn.AvgPool2d) and not layer.ceil_mode and layer.divisor_override in (None, 1):
        pairs = [np.array(_two(value)) for value in (layer.kernel_size, layer.stride, layer.padding)]
        if layer.divisor_override == 1:
            return library.SumPool2d(*pairs), probe
        if layer.count_include_pad or not pairs[2].any():
            return library.AvgPool2d(*pairs), probe
    if isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) == (1, -1):
        return library.Flatten({"input": np.array(size)}, 0, -1), probe
    raise ModelError(f"{name}: NIR has no node for {type(layer).__name__} as it is here; fold or replace it")


def _two(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _bias(layer: nn.Linear | nn.Conv1d | nn.Conv2d) -> Tensor:
    return torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias.detach()


def _shape_after(name: str, layer: nn.Module, size: tuple[int, ...]) -> tuple[int, ...]:
    try:
        with torch.no_grad():
            return tuple(layer(torch.zeros(1, *size)).shape[1:])
    except (RuntimeError, IndexError) as error:
        raise ModelError(f"{name}: does not take a sample of shape {list(size)}") from error


def _from_neurons(name: str, layer: SpikingNode, size: tuple[int, ...], dt: float) -> Any:
    library = nir_library()
    metadata = {"reset": "hard" if layer.v_reset is not None else "subtraction", "start": layer.v_reset or 0.0}
    facts = {"v_threshold": layer.v_threshold, "v_reset": layer.v_reset or 0.0}
    if isinstance(layer, IFNode):
        return _fires(library.IF, size, dt, metadata, **facts)
    if isinstance(layer, (LIFNode, ParametricLIFNode)):
        tau = layer.tau if isinstance(layer, LIFNode) else 1 / float(layer.w.detach().sigmoid())
        more = {"tau": tau * dt, "r": 1.0 if layer.decay_input else tau, "v_leak": layer.v_reset or 0.0}
        return _fires(library.LIF, size, dt, metadata, **facts, **more)
    raise ModelError(f"{name}: NIR has no neuron such as {type(layer).__name__}")
