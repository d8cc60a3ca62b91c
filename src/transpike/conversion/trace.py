"""From a PyTorch module to a `Graph`, through torch.export.

torch.export runs the model's own code on shapes: functions, methods, in-place arithmetic, shared modules and
subclasses with a forward of their own all arrive as the same few operators, each with the path of its module.
"""

from __future__ import annotations

import contextlib
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import Node

from transpike.conversion.fold import fold
from transpike.conversion.graph import Graph
from transpike.conversion.kinds import weighted
from transpike.conversion.lower import Lowering, finish
from transpike.conversion.op import Op
from transpike.conversion.operators.shapes import RESHAPES
from transpike.conversion.refusals import SUPPORTED, why
from transpike.errors import ConversionError

__all__ = ["evaluation", "trace"]

_NUMBERS = (int, float, bool, torch.SymInt, torch.SymFloat, torch.SymBool)

_VIEWS = frozenset(
    {*RESHAPES, "slice", "select", "narrow", "transpose", "swapaxes", "permute", "split", "chunk", "unbind"}
)


def trace(ann: nn.Module, example: Tensor) -> Graph:
    """The operations that ``ann`` performs on images like ``example`` ([N, \\*], N >= 1), as in evaluation mode.

    Raises:
        ConversionError: one error that lists every place without a spiking form, by module path, reason and remedy.
    """
    ann = getattr(ann, "_orig_mod", ann)
    example = example if len(example) > 1 else torch.cat([example, example])
    with evaluation(ann), torch.no_grad():
        program = _export(ann, example)
        if _aliased(program):
            program = program.run_decompositions({})
    graph = _lower(ann, program)
    with evaluation(ann), torch.no_grad():
        _check(ann, fold(graph), example)
    return graph


@contextlib.contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every module's own mode, and what its forward changes in buffers, is put back."""
    modes = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


def _export(ann: nn.Module, example: Tensor) -> ExportedProgram:
    try:
        ann(example.clone())  # the forward may work in place
    except Exception as error:
        raise ConversionError(
            f"the network does not run on images of shape {tuple(example.shape[1:])}, {example.dtype}: "
            f"{_first_line(error)}"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(ann, (example,), dynamic_shapes=({0: Dim("batch", min=1)},), strict=False)
    except Exception as error:
        message = _first_line(error)
        if "data-dependent" in message or "GuardOnDataDependent" in type(error).__name__:
            reason = "its path depends on the values of the data (an `if` or a loop over a tensor's values)"
            remedy = "make the control flow independent of the data, or split the model and convert its parts"
        elif "specialized" in message or "onstraint" in message:
            reason = "it fixes the batch size, so that one sample's result could depend on its batch"
            remedy = "use x.shape[0] or -1 instead of len(x) or a number of samples"
        else:
            reason, remedy = (
                "torch.export cannot trace it",
                "see the cause above; rewrite that part with plain tensor operations",
            )
        raise ConversionError(
            f"the network cannot be traced: {reason}; {remedy}. torch.export says: {message}"
        ) from error


def _aliased(program: ExportedProgram) -> bool:
    """Whether an in-place operator changes what something else reads too, as a view or a buffer: order matters then."""
    order = {node: k for k, node in enumerate(program.graph.nodes)}
    for node in program.graph.nodes:
        changed = node.args[0] if node.op == "call_function" and node.args else None
        if not isinstance(changed, Node) or not _operator_name(node).endswith("_"):
            continue
        if changed.op == "placeholder" or any(_is_view(v) for v in (changed, *changed.users)):
            return True
        if any(order[user] > order[node] for user in changed.users):
            return True
    return False


def _operator_name(node: Node) -> str:
    """``add_`` of ``aten.add_.Tensor``."""
    return str(node.target).split(".")[-2:][0]


def _is_view(node: Node) -> bool:
    return node.op == "call_function" and (_operator_name(node) in _VIEWS or "getitem" in str(node.target))


def _lower(ann: nn.Module, program: ExportedProgram) -> Graph:
    constants = _constants(program)
    image = next(n for n in program.graph.nodes if n.op == "placeholder" and n.name not in constants)
    shape = image.meta["val"].shape
    lowering = Lowering(str(shape[0]), {"input": Op("input", "input", (), tuple(shape[1:]))}, {image: "input"})
    outputs: list[Any] = []
    for node in program.graph.nodes:
        if node.op == "placeholder" and node is not image:
            lowering.env[node] = constants[node.name]
        elif node.op == "call_function":
            value = node.meta.get("val")
            sized = value is None or isinstance(value, _NUMBERS)  # shapes of results are known from the example
            lowering.env[node] = value if sized else lowering.lower(node)
        elif node.op == "output":
            outputs = list(node.args[0])[-len(program.graph_signature.user_outputs) :]
    found = [lowering.env[n] for n in outputs if isinstance(n, Node)]
    names = tuple(name for name in found if isinstance(name, str))
    problems = lowering.problems
    if len(names) < len(outputs):
        problems.append("the model's output: every output must be a tensor computed from the image")
    graph = Graph(finish(lowering, names), names, _container(program, problems))
    problems += _misplaced(graph)
    if problems:
        places = "\n".join(f"  - {p}" for p in dict.fromkeys(problems))
        raise ConversionError(f"{type(ann).__name__} cannot be converted:\n{places}\n{SUPPORTED}.")
    return graph


def _misplaced(graph: Graph) -> Iterator[str]:
    """What is wrong with the graph as a whole: functions before the last weighted layer, broken weights."""
    if not any(weighted(op) for op in graph):
        yield "the model: it has no convolution and no linear layer"
    for op in graph:
        if op.name in graph.spiking and op.kind == "call" and not op.function.tracked:
            yield f"{op.name}: {why(op.function.calls[-1].operator.split('.')[0])}"
        for key, tensor in op.tensors.items():
            if not tensor.isfinite().all():
                yield f"{op.name}: its {key} holds NaN or infinity; check the trained weights"


def _constants(program: ExportedProgram) -> dict[str, Tensor]:
    signature = program.graph_signature
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    known = {**program.state_dict, **program.constants}
    return {place: known[name].detach() for place, name in names.items()}


def _container(program: ExportedProgram, problems: list[str]) -> str | list[str]:
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
    problems.append("the model's output: it must be a tensor, or a tuple, list or dictionary of tensors")
    return "tensor"


def _check(ann: nn.Module, graph: Graph, example: Tensor) -> None:
    """The traced and folded network must compute what the model does: a silent miss would cost accuracy unseen."""
    values = graph.run(example)
    expected = torch.utils._pytree.tree_leaves(ann(example.clone()))
    limit = max(1e-3, 16 * torch.finfo(example.dtype).eps)
    for name, want in zip(graph.outputs, expected, strict=True):
        got = values[name]
        if got.shape == want.shape and torch.allclose(got, want, rtol=0, atol=0, equal_nan=True):
            continue
        error = (got.double() - want.double()).norm() / want.double().norm().clamp_min(1e-12)
        if got.shape != want.shape or not error < limit:
            raise ConversionError(
                f"{name}: the traced network differs from the model by {error:.2%}; it may be random or stateful "
                "(dropout that ignores eval(), a counter in forward). Make its evaluation deterministic"
            )


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[0][:300]
