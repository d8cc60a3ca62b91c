"""Turns a PyTorch module into a `Graph`, through torch.export.

torch.export runs the model's own code on shapes. Functions, methods, in-place arithmetic, shared modules and subclasses
with a forward of their own all become the same few operators, each with the path of its module.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.export import ExportedProgram

from transpike.conversion.fold import fold
from transpike.conversion.graph import Graph
from transpike.conversion.hooks import recorders, skipped, wrap
from transpike.conversion.kinds import weighted
from transpike.conversion.lower import Lowered, lower
from transpike.conversion.place import place
from transpike.conversion.program import decomposed, export, network, run
from transpike.conversion.refusals import Problem, refusal, why
from transpike.conversion.state import evaluation
from transpike.errors import ConversionError

__all__ = ["trace", "trace_shapes"]

_ROUNDING = 3.0  # times the model's own error: two orders of summation differ by about as much


def trace(ann: nn.Module | ExportedProgram, example: Tensor) -> Graph:
    """Return the operations that ``ann`` performs on images like ``example`` ([N, \\*], N >= 1) in evaluation mode.

    Only shapes are traced, on any device. Hooks that only record are left out. If the network cannot be traced without
    them (another layer may read what they store), they are traced like other code.

    Raises:
        ConversionError: One error lists every place without a spiking form, with module path, reason and remedy.
    """
    model = network(ann)
    example = example if len(example) > 1 else torch.cat([example, example])
    with evaluation(model), torch.no_grad():
        wrap(model)
        outputs = run(model, example)
        if recorders(model):
            with contextlib.suppress(ConversionError):
                return _traced(model, example, outputs, hooks=False)
        return _traced(model, example, outputs, hooks=True)


def trace_shapes(ann: nn.Module, example: Tensor) -> Graph:
    """Return the same graph for images like ``example``, of which only the shape matters. No value is computed."""
    with evaluation(ann), torch.no_grad():
        wrap(ann)
        with skipped(recorders(ann)):
            return _graph(type(ann).__name__, export(ann, example))


def _traced(model: nn.Module, example: Tensor, outputs: list[Tensor], *, hooks: bool) -> Graph:
    """Return the graph of ``model``. Without ``hooks``, the hooks that only record are left out.

    The graph must compute what the model computed (``outputs``) and computes in a later call. An unnoticed difference
    would cost accuracy.
    """
    with skipped([] if hooks else recorders(model)):
        program = export(model, example)
    graph = _graph(type(model).__name__, program)
    more = torch.cat([example, example[:1]])  # a later call with one more image; neither may change the result
    later = run(model, more)
    placed = place(fold(graph))
    results = placed.run(more)
    values = [results[name] for name in placed.outputs]
    earlier = [value[: len(example)] for value in values]
    errors = [max(pair) for pair in zip(_errors(earlier, outputs), _errors(values, later), strict=True)]
    if max(errors) >= _limit(example) and not _rounds(model, values, more, later, hooks=hooks):
        raise ConversionError(
            f"{placed.outputs[errors.index(max(errors))]}: the traced network differs from the model by "
            f"{max(errors):.2%}; it may be random or stateful (dropout that ignores eval(), a counter in forward), or "
            "depend on the number of images. Make its evaluation deterministic"
        )
    return graph


def _rounds(model: nn.Module, values: list[Tensor], x: Tensor, outputs: list[Tensor], *, hooks: bool) -> bool:
    """Whether the graph's ``values`` differ from the model's ``outputs`` only by rounding.

    If so, the trace of a copy in float64 agrees with that copy, and the graph is about as far from it as the model is.
    """
    if x.dtype == torch.float64:
        return False
    try:
        twin = copy.deepcopy(model).double()
        exact = run(twin, x.double())
        _traced(twin, x.double(), exact, hooks=hooks)
    except (ConversionError, RuntimeError, TypeError):  # the model cannot be copied, or not run in float64
        return False
    bounds = [max(_limit(x), _ROUNDING * error) for error in _errors(outputs, exact)]
    return all(error <= bound for error, bound in zip(_errors(values, exact), bounds, strict=True))


def _lowered(program: ExportedProgram, tried: frozenset[OpOverload] = frozenset()) -> Lowered:
    """Return the operations of ``program``. An operator without a lowering is decomposed into others if possible."""
    lowered = lower(program)
    unknown = lowered.unknown - tried
    if lowered.problems and (finer := decomposed(program, unknown)):
        again = _lowered(finer, tried | unknown)
        return lowered if again.problems else again
    return lowered


def _graph(name: str, program: ExportedProgram) -> Graph:
    lowered, container = _lowered(program), _container(program)
    graph = Graph(lowered.ops, lowered.outputs, container or "tensor")
    problems = [*lowered.problems, *_misplaced(graph, lowered.hooked)]
    if container is None:
        reason = "it must be a tensor, or a tuple, list or dictionary of tensors; return one of these"
        problems.append(Problem("the model's output", reason))
    if not problems and not any(map(weighted, graph)):
        problems.append(Problem("the model", "it has no convolution and no linear layer, whose inputs could be spikes"))
    if problems:
        raise ConversionError(refusal(name, problems))
    return graph


def _misplaced(graph: Graph, hooked: Mapping[str, str]) -> Iterator[Problem]:
    """Yield problems of the graph as a whole: decisions before the last weighted layer, invalid weights."""
    for op in graph:
        if op.name in graph.spiking and op.kind == "call" and op.function.decided:
            yield Problem(hooked.get(op.name, op.name), why("argmax"))
        for key, tensor in op.tensors.items():
            broken = tensor.isnan() if op.kind in ("affine", "call") else ~tensor.isfinite()
            if broken.any():
                yield Problem(op.name, f"its {key} holds NaN or infinity; check the trained weights")


def _container(program: ExportedProgram) -> str | list[str] | None:
    """Return the form in which the model returns its outputs, or None for a form that a graph does not support."""
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


def _errors(found: list[Tensor], wanted: list[Tensor]) -> list[float]:
    return [_error(got, want) for got, want in zip(found, wanted, strict=True)]


def _limit(x: Tensor) -> float:
    return max(1e-3, 16 * torch.finfo(x.dtype).eps)


def _error(got: Tensor, want: Tensor) -> float:
    """Return ||got - want|| relative to ||want||. Infinite if shapes differ or one has values that are not finite."""
    if got.shape != want.shape:
        return math.inf
    if got.dtype == want.dtype and torch.allclose(got, want, rtol=0, atol=0, equal_nan=True):
        return 0.0
    error = float((got.double() - want.double()).norm() / want.double().norm().clamp_min(1e-12))
    return math.inf if math.isnan(error) else error
