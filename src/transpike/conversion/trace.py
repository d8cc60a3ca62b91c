"""From a PyTorch module to a `Graph`, through torch.export.

torch.export runs the model's own code on shapes: functions, methods, in-place arithmetic, shared modules and
subclasses with a forward of their own all arrive as the same few operators, each with the path of its module.
"""

from __future__ import annotations

import contextlib
import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from transpike.conversion.fold import fold
from transpike.conversion.graph import Graph
from transpike.conversion.hooks import Hook, wrap
from transpike.conversion.kinds import weighted
from transpike.conversion.lower import lower
from transpike.conversion.op import Op
from transpike.conversion.place import place
from transpike.conversion.program import export, network, run
from transpike.conversion.refusals import Problem, refusal, why
from transpike.conversion.state import evaluation
from transpike.errors import ConversionError

__all__ = ["trace"]

_ROUNDING = 3.0  # times the error of float32 itself, by which two orders of summation may differ
_CHAOS = 0.1  # relative error of the outputs
_SHAPES = ("reshape", "permute", "slice", "select", "expand_as", "upsample_nearest2d", "upsample_bilinear2d")


def trace(ann: nn.Module | ExportedProgram, example: Tensor) -> Graph:
    """The operations that ``ann`` performs on images like ``example`` ([N, \\*], N >= 1), as in evaluation mode.

    Shapes alone are traced, wherever the network is. Hooks that only record are left out; where the network cannot be
    traced without them (another layer may read what they keep), they are traced like any other.

    Raises:
        ConversionError: one error that lists every place without a spiking form, by module path, reason and remedy.
    """
    model = network(ann)
    example = example if len(example) > 1 else torch.cat([example, example])
    with evaluation(model), torch.no_grad():
        hooks = wrap(model)
        outputs = run(model, example)
        if recorders := [hook for hook in hooks if hook.only_records]:
            with contextlib.suppress(ConversionError):
                return _traced(model, example, outputs, recorders)
        return _traced(model, example, outputs, [])


def _traced(model: nn.Module, example: Tensor, outputs: list[Tensor], skipped: list[Hook]) -> Graph:
    for hook in skipped:
        hook.skipped = True
    try:
        program = export(model, example)
    finally:
        for hook in skipped:
            hook.skipped = False
    graph = _graph(type(model).__name__, program)
    folded = place(fold(graph))
    _compare(folded, example, outputs)
    more = torch.cat([example, example[:1]])  # a later call, and one more image: neither may matter
    _compare(folded, more, run(model, more))
    return graph


def _graph(name: str, program: ExportedProgram) -> Graph:
    ops, outputs, problems = lower(program)
    container = _container(program)
    if container is None:
        reason = "it must be a tensor, or a tuple, list or dictionary of tensors; return one of these"
        problems.append(Problem("the model's output", reason))
    graph = Graph(ops, outputs, container or "tensor")
    problems += _misplaced(graph)
    if problems:
        raise ConversionError(refusal(name, problems))
    return graph


def _misplaced(graph: Graph) -> Iterator[Problem]:
    """What is wrong with the graph as a whole: functions before the last weighted layer, broken weights."""
    if not any(weighted(op) for op in graph):
        yield Problem("the model", "it has no convolution and no linear layer; nothing in it can spike")
    gates = _gates(graph)
    for op in graph:
        if op.name in graph.spiking and op.kind == "call" and not op.function.tracked:
            yield Problem(op.name, why(_base(op), gates=op.name in gates))
        for key, tensor in op.tensors.items():
            if not tensor.isfinite().all():
                yield Problem(op.name, f"its {key} holds NaN or infinity; check the trained weights")


def _gates(graph: Graph) -> set[str]:
    """The operations whose results do nothing but multiply activations, perhaps in another shape."""
    gates: set[str] = set()
    for op in reversed(graph.ops):
        readers = graph.consumers.get(op.name, [])
        products = [r for r in readers if _base(r) == "mul" and len(set(r.inputs)) > 1]
        shapes = [r for r in readers if r.name in gates and _base(r) in _SHAPES]
        if readers and len(products) + len(shapes) == len(readers):
            gates.add(op.name)
    return gates


def _base(op: Op) -> str:
    """The operator's bare name, as ``mul`` of ``mul.Tensor``."""
    calls = op.function.calls
    name = op.args["operator"] if op.kind == "resample" else calls[-1].operator if calls else op.kind
    return str(name).partition(".")[0]


def _container(program: ExportedProgram) -> str | list[str] | None:
    """How the model returns its outputs; None for a form that a graph does not know."""
    spec = program.call_spec.out_spec
    assert spec is not None
    children = spec.children() if callable(getattr(spec, "children", None)) else spec.children_specs
    if spec.type is None:
        return "tensor"
    flat = all(child.type is None for child in children)
    if flat and spec.type in (tuple, list):
        return "tuple" if spec.type is tuple else "list"
    if flat and spec.type in (dict, OrderedDict) and all(isinstance(key, str) for key in spec.context):
        return list(spec.context)
    return None


def _compare(graph: Graph, x: Tensor, outputs: list[Tensor]) -> None:
    """The traced and folded network must compute what the model does: a silent miss would cost accuracy unseen."""
    values = graph.run(x)
    limit = max(1e-3, 16 * torch.finfo(x.dtype).eps)
    for name, want in zip(graph.outputs, outputs, strict=True):
        error = _error(values[name], want)
        if error < limit:
            continue
        rounding = _error(values[name], _double(graph).run(x.cpu().double())[name])
        if error < min(_ROUNDING * rounding, _CHAOS):
            continue
        if _ROUNDING * rounding >= _CHAOS:
            raise ConversionError(
                f"{name}: rounding in {x.dtype} alone changes the network's output by {rounding:.0%}, so that nothing "
                "can be checked against it; convert it in float64, or check its weights"
            )
        raise ConversionError(
            f"{name}: the traced network differs from the model by {error:.2%}; it may be random or stateful (dropout "
            "that ignores eval(), a counter in forward), or depend on the number of images. Make its evaluation "
            "deterministic"
        )


def _error(got: Tensor, want: Tensor) -> float:
    """||got - want|| relative to ||want||; infinite if their shapes differ."""
    got, want = got.cpu(), want.cpu()
    if got.shape != want.shape:
        return math.inf
    if torch.allclose(got, want.to(got.dtype), rtol=0, atol=0, equal_nan=True):
        return 0.0
    return float((got.double() - want.double()).norm() / want.double().norm().clamp_min(1e-12))


def _double(graph: Graph) -> Graph:
    """The same network in float64 and on the processor, for some devices have no float64."""
    ops = [replace(op, tensors={k: t.cpu().double() for k, t in op.tensors.items()}) for op in graph]
    return replace(graph, ops=tuple(ops))
