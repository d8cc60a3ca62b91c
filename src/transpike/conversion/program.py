"""Turns everything that a user may pass as a network into a program of torch.export."""

from __future__ import annotations

import contextlib
import copy
import io
import re
import traceback
import warnings
from collections.abc import Iterator, Set
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.export import Dim, ExportedProgram, ShapesCollection, default_decompositions
from torch.fx import GraphModule, Node

from transpike.conversion.effects import aliased, prune
from transpike.conversion.hooks import blamed
from transpike.errors import ConversionError

__all__ = ["decomposed", "export", "image", "network", "run"]

_WRAPPERS = ("torch._dynamo", "torch.nn.parallel", "torch.optim.swa_utils", "timm.utils.model_ema")
_MANY = 65535  # images: the smallest limit seen in a GPU's kernels
_OURS = Path(__file__).parents[1]


def network(ann: object, example: Tensor | None = None) -> nn.Module:
    """Return the module to trace: ``ann``, or the module that it wraps (compiled, parallel, averaged, exported).

    TorchScript is first converted to an exported program, which needs an example [N, \\*].

    Raises:
        ConversionError: ``ann`` is not a module, or has no weights of its own in memory.
    """
    if isinstance(ann, ExportedProgram):
        ann = ann.module()
    if isinstance(ann, str):
        raise ConversionError(
            f"expected a network, not its name {ann!r}; build it first, as transpike.create_model({ann!r})"
        )
    if isinstance(ann, type):
        raise ConversionError(f"expected a network, not the class {ann.__name__}; make one: {ann.__name__}(...)")
    while type(ann).__module__.startswith(_WRAPPERS) and isinstance(inner := _inside(ann), nn.Module):
        ann = inner
    if isinstance(ann, torch.jit.ScriptModule) and example is not None:
        ann = _of_script(ann, example)
    if not isinstance(ann, nn.Module):
        remedy = (
            "write it as a module's forward, with its layers as attributes" if callable(ann) else "build the network"
        )
        raise ConversionError(f"expected a torch.nn.Module, not {_article(type(ann).__name__)}; {remedy}")
    if isinstance(ann, GraphModule):
        ann = _unguarded(ann)
    try:
        tensors = (*ann.named_parameters(), *ann.named_buffers())
    except RecursionError:
        raise ConversionError("its modules are nested too deeply for Python; nest them less") from None
    for key, tensor in tensors:
        if isinstance(tensor, (nn.UninitializedParameter, nn.UninitializedBuffer)):
            raise ConversionError(f"{key} has no values yet; run the network once, and train it")
        if tensor.is_meta:
            raise ConversionError(
                f"{key} is on the meta device, without values; load weights into a network on another device"
            )
    return ann


def _of_script(script: torch.jit.ScriptModule, example: Tensor) -> nn.Module:
    """Return TorchScript as the module of an exported program, by PyTorch's own converter."""
    try:
        with _silence():
            from torch._export.converter import TS2EPConverter

            return TS2EPConverter(script.eval(), (example,), {}).convert().module()
    except Exception as error:
        raise ConversionError(
            f"PyTorch cannot make an exported program of this TorchScript: {_first_line(error)}. Pass the module that "
            "it was made from"
        ) from None


def _article(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def _inside(wrapper: object) -> object:
    return getattr(wrapper, "_orig_mod", None) or getattr(wrapper, "module", None)


def _unguarded(module: GraphModule) -> nn.Module:
    """Return an exported program's module without its check of the batch's size, so that any size can be traced."""
    if not hasattr(module, "_guards_fn"):
        return module
    graph = copy.deepcopy(module.graph)
    for node in graph.find_nodes(op="call_module", target="_guards_fn"):
        graph.erase_node(node)
    return GraphModule(module, graph, "Program")


def run(ann: nn.Module, example: Tensor) -> list[Tensor]:
    """Run the user's own network and return its outputs as a flat list. Its forward may work in place on its input.

    Raises:
        ConversionError: It does not run on such images.
    """
    try:
        return [leaf for leaf in torch.utils._pytree.tree_leaves(ann(example.clone())) if isinstance(leaf, Tensor)]
    except Exception as error:
        cause = None if isinstance(error, RecursionError) else error  # a thousand stack frames would not help
        raise ConversionError(
            f"the network does not run on images of shape {tuple(example.shape[1:])}, {example.dtype}: "
            f"{_first_line(error)}"
        ) from cause


def export(ann: nn.Module, example: Tensor) -> ExportedProgram:
    """Export ``ann`` for any number of images like ``example`` ([N, \\*], N > 1). No kernel runs.

    Raises:
        ConversionError: torch.export cannot trace it, or the result depends on the number of images.
    """
    shapes = ShapesCollection()
    shapes[example] = {0: Dim.AUTO}
    try:
        with _silence():
            program = torch.export.export(ann, (example,), dynamic_shapes=shapes, strict=False)
            _inline(program)
            conditions = _conditions(program)
            prune(program)
            if aliased(program):
                program = program.run_decompositions({})
    except Exception as error:
        raise ConversionError(_untraceable(error)) from None  # its own text may contain the whole graph
    if conditions:
        raise ConversionError(
            f"the network cannot be traced: it fixes the batch size ({conditions[0]}), so that one sample's result "
            "could depend on its batch; use x.shape[0] or -1 instead of len(x) or a number of samples"
        )
    return program


def decomposed(program: ExportedProgram, operators: Set[OpOverload]) -> ExportedProgram | None:
    """Return ``program`` with PyTorch's own decomposition of ``operators``, or None if there is none."""
    composite = default_decompositions()
    table = torch._decomp.get_decompositions(list(operators))
    table |= {operator: composite[operator] for operator in operators if operator in composite}
    if not table:
        return None
    try:
        with _silence():
            finer: ExportedProgram = program.run_decompositions(table)
    except Exception:  # then the operator itself has no spiking form
        return None
    return finer


def _inline(program: ExportedProgram) -> None:
    """Inline regions of ``program`` that change nothing here: without autocast, without gradients."""
    graph, modules = program.graph, dict(program.graph_module.named_modules())
    for node in list(graph.nodes):
        name = getattr(node.target, "__name__", "")
        if name == "wrap_with_autocast" and not node.args[2]:
            (_, _, _, _, body, *inputs) = node.args
        elif name == "wrap_with_set_grad_enabled":
            (_, body, *inputs) = node.args
        else:
            continue
        region = modules[body.target]
        assert isinstance(region, GraphModule)
        places = [n for n in region.graph.nodes if n.op == "placeholder"]
        if any(n.op == "get_attr" for n in region.graph.nodes):
            continue  # a region inside another region
        with graph.inserting_before(node):
            results = graph.graph_copy(region.graph, dict(zip(places, inputs, strict=True)))
        results = results if isinstance(results, (list, tuple)) else (results,)
        for reader in list(node.users):
            reader.replace_all_uses_with(results[reader.args[1]])
            graph.erase_node(reader)
        graph.erase_node(node)
    program.graph_module.recompile()


def _conditions(program: ExportedProgram) -> list[str]:
    """Return the conditions on the number of images N under which the program equals the network.

    A large upper bound is no such condition. Kernels for GPUs set them (65,535 images in a convolution), and their
    results do not depend on it.
    """
    batch = image(program).meta["val"].shape[0]
    if not isinstance(batch, torch.SymInt) or str(batch).isdigit():
        return [f"N = {batch}"]
    shapes = batch.node.shape_env
    guards = [str(guard.expr) for guard in shapes.guards] if shapes else []
    bounds = [re.fullmatch(rf"(?:\d+\*)?{batch} <=? (\d+)", guard) for guard in guards]
    small = [guard for guard, bound in zip(guards, bounds, strict=True) if not bound or int(bound[1]) < _MANY]
    return [guard.replace(str(batch), "N") for guard in small]


def image(program: ExportedProgram) -> Node:
    """Return the placeholder of the image among the program's inputs."""
    (name,) = program.graph_signature.user_inputs
    nodes: list[Node] = [node for node in program.graph.nodes if node.op == "placeholder" and node.name == name]
    return nodes[0]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Suppress what torch warns, logs and prints (the graph so far) before it raises an error of its own."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _untraceable(error: Exception) -> str:
    message = _first_line(error)
    if "data-dependent" in message or "GuardOnDataDependent" in type(error).__name__:
        reason = "its path depends on the values of a tensor (an `if`, a loop, or float() of them)"
        remedy = "make the control flow independent of them, take a constant by .item(), or convert the model in parts"
    elif "specialized" in message or "onstraint" in message:
        reason = "it fixes the batch size, so that one sample's result could depend on its batch"
        remedy = "use x.shape[0] or -1 instead of len(x) or a number of samples"
    else:
        reason = "torch.export cannot trace it"
        remedy = "see the cause below; rewrite that part with plain tensor operations"
    return f"the network cannot be traced{_where(error)}: {reason}; {remedy}. torch.export says: {message}"


def _where(error: Exception) -> str:
    """Return the user's own line in which an error arose, and the hook, if it lies in one."""
    frames = traceback.extract_tb(error.__traceback__)
    hook = blamed("".join(f'File "{frame.filename}"' for frame in frames))
    torch_home = Path(torch.__file__).parent
    own = [f for f in frames if Path(f.filename).exists() and not {_OURS, torch_home} & set(Path(f.filename).parents)]
    line = f" at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
    return f"{line}, in the hook {hook}" if hook else line


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[0][:300]
