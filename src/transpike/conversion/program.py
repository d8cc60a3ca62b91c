"""From what a user calls a network to the program that torch.export makes of it."""

from __future__ import annotations

import contextlib
import copy
import logging
import traceback
import warnings
from collections.abc import Iterator
from operator import getitem
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.fx import GraphModule, Node

from transpike.conversion.hooks import blamed
from transpike.errors import ConversionError

__all__ = ["export", "image", "network", "run"]

_WRAPPERS = ("torch._dynamo", "torch.nn.parallel", "torch.optim.swa_utils", "timm.utils.model_ema")
_OURS = Path(__file__).parents[1]


def network(ann: object) -> nn.Module:
    """The module to trace: ``ann`` itself, what it wraps (compiled, parallel, averaged), or an exported program's.

    Raises:
        ConversionError: if ``ann`` is no module, or one without weights of its own in memory.
    """
    if isinstance(ann, ExportedProgram):
        ann = ann.module()
    if isinstance(ann, str):
        raise ConversionError(
            f"expected a network, not its name {ann!r}; build it first, as transpike.create_model({ann!r})"
        )
    if isinstance(ann, type):
        raise ConversionError(f"expected a network, not the class {ann.__name__}; make one: {ann.__name__}(...)")
    for name in ("_orig_mod", "module"):
        while type(ann).__module__.startswith(_WRAPPERS) and isinstance(getattr(ann, name, None), nn.Module):
            ann = getattr(ann, name)
    if isinstance(ann, torch.jit.ScriptModule):
        raise ConversionError("expected a network, not TorchScript; pass the Python module that it was made from")
    if not isinstance(ann, nn.Module):
        remedy = "make it the forward of one, with its layers as attributes" if callable(ann) else "build the network"
        raise ConversionError(f"expected a torch.nn.Module, not {_article(type(ann).__name__)}; {remedy}")
    if isinstance(ann, GraphModule):
        ann = _unguarded(ann)
    try:
        tensors = (*ann.named_parameters(), *ann.named_buffers())
    except RecursionError:
        raise ConversionError("its modules are nested too deeply for Python; nest them less") from None
    for key, tensor in tensors:
        if isinstance(tensor, (nn.UninitializedParameter, nn.UninitializedBuffer)):
            raise ConversionError(
                f"{key} has no values yet; run the network once, and train it, before it is converted"
            )
        if tensor.is_meta:
            raise ConversionError(
                f"{key} is on the meta device, without values; move the network with to_empty(device='cpu') and load "
                "its weights"
            )
    return ann


def _article(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def _unguarded(module: GraphModule) -> nn.Module:
    """An exported program's module without its check of the batch's size, so that it can be traced for any."""
    guards = [node for node in module.graph.nodes if node.op == "call_module" and node.target == "_guards_fn"]
    if not guards:
        return module
    graph = copy.deepcopy(module.graph)
    for node in list(graph.nodes):
        if node.op == "call_module" and node.target == "_guards_fn":
            graph.erase_node(node)
    return GraphModule(module, graph, "Program")


def run(ann: nn.Module, example: Tensor) -> list[Tensor]:
    """The outputs of the user's own network, flat; its forward may work in place on what it gets.

    Raises:
        ConversionError: if it does not run on such images.
    """
    try:
        return [leaf for leaf in torch.utils._pytree.tree_leaves(ann(example.clone())) if isinstance(leaf, Tensor)]
    except Exception as error:
        cause = None if isinstance(error, RecursionError) else error  # a thousand frames that say nothing
        raise ConversionError(
            f"the network does not run on images of shape {tuple(example.shape[1:])}, {example.dtype}: "
            f"{_first_line(error)}"
        ) from cause


def export(ann: nn.Module, example: Tensor) -> ExportedProgram:
    """The program of ``ann`` for any number of images like ``example`` ([N, \\*], N > 1). No kernel is run.

    A bound of the batch from above is let pass: kernels for GPUs set one (65,535 images in a convolution), whose
    results do not depend on it.

    Raises:
        ConversionError: if torch.export cannot trace it, or finds that the number of images is fixed.
    """
    shapes = ShapesCollection()
    shapes[example] = {0: Dim.AUTO}
    try:
        with _silence():
            program = torch.export.export(ann, (example,), dynamic_shapes=shapes, strict=False)
            if _aliased(program):
                program = program.run_decompositions({})
    except Exception as error:
        raise ConversionError(_untraceable(error)) from None  # its own text may hold the whole graph
    if str(image(program).meta["val"].shape[0]).isdigit():  # a SymInt, but of one value
        raise ConversionError(
            "the network cannot be traced: it fixes the batch size, so that one sample's result could depend on its "
            "batch; use x.shape[0] or -1 instead of len(x) or a number of samples"
        )
    return program


def image(program: ExportedProgram) -> Node:
    """The place of the image among the program's inputs."""
    (name,) = program.graph_signature.user_inputs
    nodes: list[Node] = [node for node in program.graph.nodes if node.op == "placeholder" and node.name == name]
    return nodes[0]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """No warnings, and none of the 30 lines that torch logs before an error of its own."""
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "torch"]
    loggers = [logger for logger in map(logging.getLogger, names) if not logger.disabled]
    for logger in loggers:
        logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger in loggers:
            logger.disabled = False


def _untraceable(error: Exception) -> str:
    message = _first_line(error)
    if "data-dependent" in message or "GuardOnDataDependent" in type(error).__name__:
        reason = "its path depends on the values of the data (an `if` or a loop over a tensor's values)"
        remedy = "make the control flow independent of the data, or split the model and convert its parts"
    elif "specialized" in message or "onstraint" in message:
        reason = "it fixes the batch size, so that one sample's result could depend on its batch"
        remedy = "use x.shape[0] or -1 instead of len(x) or a number of samples"
    else:
        reason = "torch.export cannot trace it"
        remedy = "see the cause below; rewrite that part with plain tensor operations"
    return f"the network cannot be traced{_where(error)}: {reason}; {remedy}. torch.export says: {message}"


def _where(error: Exception) -> str:
    """The user's own line that an error comes from, and the hook, if it is in one."""
    frames = traceback.extract_tb(error.__traceback__)
    hook = blamed("".join(f'File "{frame.filename}"' for frame in frames))
    torch_home = Path(torch.__file__).parent
    own = [f for f in frames if Path(f.filename).exists() and not {_OURS, torch_home} & set(Path(f.filename).parents)]
    line = f" at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
    return f"{line}, in the hook {hook}" if hook else line


def _aliased(program: ExportedProgram) -> bool:
    """Whether an in-place operator changes what something else reads too, as a view or a buffer: order matters then."""
    order = {node: k for k, node in enumerate(program.graph.nodes)}
    for node in program.graph.nodes:
        for changed in _written(node):
            if changed.op == "placeholder" or any(_is_view(v) for v in (changed, *changed.users)):
                return True
            if any(order[user] > order[node] for user in changed.users):
                return True
    return False


def _written(node: Node) -> list[Node]:
    """The nodes whose values ``node`` changes in place."""
    if not isinstance(node.target, OpOverload):
        return []
    places = zip(node.target._schema.arguments, node.args, strict=False)
    return [value for place, value in places if _writes(place) and isinstance(value, Node)]


def _is_view(node: Node) -> bool:
    """Whether the value of ``node`` shares its memory with what it was made from."""
    if not isinstance(node.target, OpOverload):
        return node.target is getitem
    returns = node.target._schema.returns
    return any(result.alias_info is not None and not _writes(result) for result in returns)


def _writes(place: torch.Argument) -> bool:
    return place.alias_info is not None and place.alias_info.is_write


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[0][:300]
