"""Imports chains of integrate-and-fire neurons from NIR (SpikingJelly, sinabs, norse), as trainable layers."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from transpike.checks import choice, number
from transpike.errors import ModelError
from transpike.export.nir_graph import DT, nir_library
from transpike.neurons import IFNode, LIFNode

__all__ = ["import_nir"]

LARGEST = 2**30
"""The largest size of a file in bytes."""


def import_nir(source: Path | str | Any, *, reset: str = "auto", step_mode: str = "s", dt: float = DT) -> nn.Sequential:
    """Import a chain that SpikingJelly, sinabs, norse or `nir` wrote, as trainable layers and neurons.

    Args:
        source: the file, or a ``nir.NIRGraph``.
        reset: "hard", to the file's v_reset; "subtraction"; or "auto", the reset in the metadata, otherwise hard.
        step_mode: the step mode of the neurons.
        dt: the length of a step in seconds.

    Raises:
        ModelError: The file is damaged or is no chain, or it has a node that our neurons cannot represent. The message
            names the node.

    Example:
        >>> import tempfile
        >>> from transpike.export import nir
        >>> from transpike.neurons import LIFNode
        >>> net = nn.Sequential(nn.Linear(4, 3), LIFNode(tau=4.0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     again = import_nir(nir(net, f"{folder}/net.nir", shape=(4,)))
        >>> again[1].tau, again[1].v_reset
        (4.0, 0.0)
    """
    library = nir_library()
    number("dt", dt, above=0)
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
    except Exception as error:  # h5py and nir raise anything for a damaged file
        reason = str(error).strip().partition("\n")[0][:200]
        raise ModelError(f"{name}: not a readable NIR graph ({type(error).__name__}: {reason})") from error


def _chain(graph: Any) -> list[tuple[str, Any]]:
    library = nir_library()
    following: dict[str, list[str]] = {}
    for source, to in graph.edges:
        following.setdefault(source, []).append(to)
    arriving = [to for _, to in graph.edges]
    starts = [name for name, node in graph.nodes.items() if isinstance(node, library.Input)]
    nodes, here = [], starts[0] if len(starts) == 1 else ""
    while here in following:
        ahead = following[here]
        if len(ahead) > 1 or arriving.count(ahead[0]) > 1:
            raise ModelError(f"{here}: the graph branches; only chains are imported")
        here = ahead[0]
        if not isinstance(graph.nodes[here], library.Output):
            nodes.append((here, graph.nodes[here]))
    if len(nodes) != len(graph.nodes) - 2:
        raise ModelError("the graph is not a chain from one input to one output")
    return nodes


def _layer(name: str, node: Any, reset: str, step_mode: str, dt: float) -> nn.Module:
    library = nir_library()
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
        library.SumPool2d: lambda: nn.AvgPool2d(
            _pair(node.kernel_size), _pair(node.stride), _pair(node.padding), divisor_override=1
        ),
        library.Flatten: lambda: nn.Flatten(int(node.start_dim) + 1, _after(int(node.end_dim))),
        library.IF: lambda: _neurons(name, node, reset, step_mode, dt),
        library.LIF: lambda: _neurons(name, node, reset, step_mode, dt),
    }
    if type(node) not in makers:
        raise ModelError(f"{name}: transpike has no layer for {type(node).__name__}")
    return makers[type(node)]()


def _after(end: int) -> int:
    return end + 1 if end >= 0 else end


def _pair(value: Any) -> Any:
    values = np.asarray(value)
    return int(values) if values.ndim == 0 else tuple(int(one) for one in values)


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
            raise ModelError(f"{name}: {key} differs from neuron to neuron; transpike's nodes have one per layer")
        return float(str(values[0]))  # the shortest decimal with this float32 value

    reset_kind = (node.metadata or {}).get("reset", "hard")
    reset_kind = reset_kind.decode() if isinstance(reset_kind, bytes) else str(reset_kind)
    hard = (reset_kind if reset == "auto" else reset) == "hard"
    common: dict[str, Any] = {"v_threshold": one("v_threshold"), "v_reset": one("v_reset") if hard else None}
    common |= {"step_mode": step_mode}
    r = one("r")
    if not hasattr(node, "tau"):
        if not (math.isclose(r, 1) or math.isclose(r * dt, 1, rel_tol=1e-6)):
            raise ModelError(f"{name}: r={r:g} scales the input, but IFNode adds it unchanged; expected r = 1 or 1/dt")
        return IFNode(**common)
    tau = one("tau") / dt
    if tau <= 1:
        raise ModelError(f"{name}: tau={tau * dt:g} s is not longer than a step, dt={dt:g} s; give the dt of the file")
    if not (math.isclose(r, 1, rel_tol=1e-6) or math.isclose(r, tau, rel_tol=1e-6)):
        raise ModelError(f"{name}: r={r:g} is neither 1 (the input decays) nor tau / dt (it does not)")
    if not math.isclose(one("v_leak"), common["v_reset"] or 0.0, abs_tol=1e-12):
        raise ModelError(f"{name}: v_leak={one('v_leak'):g}: our neurons leak towards v_reset")
    return LIFNode(tau=round(tau, 9), decay_input=math.isclose(r, 1, rel_tol=1e-6), **common)
