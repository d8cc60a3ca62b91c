"""In-place operations of an exported program: which of them the outputs need, and where their order matters."""

from __future__ import annotations

from operator import getitem

import torch
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import Node

__all__ = ["aliased", "constants", "needed", "outputs", "prune"]


def constants(program: ExportedProgram) -> dict[str, torch.Tensor]:
    """Return parameters, buffers and other tensors of ``program``, by the names of their placeholders."""
    signature = program.graph_signature
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    known = {**program.state_dict, **program.constants}
    return {place: known[name].detach() for place, name in names.items()}


def outputs(program: ExportedProgram) -> list[object]:
    """Return what the model returns, as a flat list: nodes and other values. New values of buffers are left out."""
    (results,) = next(iter(reversed(program.graph.nodes))).args
    assert isinstance(results, (list, tuple))
    return list(results[-len(program.graph_signature.user_outputs) :])


def needed(program: ExportedProgram) -> set[Node]:
    """Return the nodes on which the outputs depend, through values or through shared memory.

    A running maximum, a histogram or a counter of calls is not among them, although it writes into buffers.
    """
    groups = _groups(program)
    nodes = {node for node in outputs(program) if isinstance(node, Node)}
    read = {groups[node] for node in nodes}
    for node in reversed(program.graph.nodes):
        if node.op == "call_function" and (node in nodes or read.intersection(groups[n] for n in _written(node))):
            nodes |= {node, *node.all_input_nodes}
            read |= {groups[source] for source in node.all_input_nodes}
    return nodes


def prune(program: ExportedProgram) -> None:
    """Remove from ``program`` what its outputs do not need."""
    keep = needed(program)
    for node in reversed(program.graph.nodes):
        if node.op == "call_function" and node not in keep:
            program.graph.erase_node(node)
    program.graph_module.recompile()


def aliased(program: ExportedProgram) -> bool:
    """Whether an in-place operator changes memory that something else reads, such as a view or a buffer.

    Then the order of operations matters.
    """
    order = {node: k for k, node in enumerate(program.graph.nodes)}
    for node in program.graph.nodes:
        for changed in _written(node):
            if changed.op == "placeholder" or any(_is_view(v) for v in (changed, *changed.users)):
                return True
            if any(order[user] > order[node] for user in changed.users):
                return True
    return False


def _groups(program: ExportedProgram) -> dict[Node, Node]:
    """Return for every node one that represents all nodes that may share its memory."""
    groups: dict[Node, Node] = {}
    tensors: dict[int, Node] = {}
    stored = constants(program)
    for node in program.graph.nodes:
        shared = [groups[source] for source in _sources(node)]
        if node.name in stored and node.op == "placeholder":
            memory = stored[node.name].untyped_storage().data_ptr() or id(stored[node.name])
            shared = [tensors.setdefault(memory, node)]
        groups[node] = shared[0] if shared else node
        if len(set(shared)) > 1:
            groups = {other: shared[0] if group in shared else group for other, group in groups.items()}
    return groups


def _sources(node: Node) -> list[Node]:
    """Return the nodes whose memory the value of ``node`` may share."""
    if isinstance(node.target, OpOverload):
        places = zip(node.target._schema.arguments, node.args, strict=False)
        return [value for place, value in places if place.alias_info is not None and isinstance(value, Node)]
    return node.all_input_nodes if node.target is getitem else []


def _written(node: Node) -> list[Node]:
    """Return the nodes whose values ``node`` changes in place."""
    if not isinstance(node.target, OpOverload):
        return []
    places = zip(node.target._schema.arguments, node.args, strict=False)
    return [value for place, value in places if _writes(place) and isinstance(value, Node)]


def _is_view(node: Node) -> bool:
    """Whether the value of ``node`` shares memory with its source."""
    if not isinstance(node.target, OpOverload):
        return node.target is getitem
    return any(result.alias_info is not None and not _writes(result) for result in node.target._schema.returns)


def _writes(place: torch.Argument) -> bool:
    return place.alias_info is not None and place.alias_info.is_write
