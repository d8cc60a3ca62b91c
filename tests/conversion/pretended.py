"""Tensors that say they are on a GPU and hold their values on the CPU, so that what mixes devices fails here too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from transpike.conversion import trace
from transpike.conversion.lower import Lowered
from transpike.neurons import tsa

GPU = torch.device("cuda", 0)
aten = torch.ops.aten
ACROSS = {aten._to_copy.default, aten.copy_.default, aten.index.Tensor, aten.index_put_.default, aten.index_put.default}


class OnGPU(Tensor):
    """A tensor on a pretended GPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor, requires_grad: bool = False) -> OnGPU:
        made = Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=GPU, requires_grad=requires_grad,
        )  # fmt: skip
        made.inner = inner.detach()
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatched(func, args, kwargs or {})


class Machine(TorchDispatchMode):
    """New tensors for the GPU are pretended ones."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatched(func, args, kwargs or {})


def dispatched(func: Any, args: Any, kwargs: Any) -> Any:
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    there = [isinstance(x, OnGPU) for x in tensors]
    device = kwargs.get("device")
    gpu = any(there) if device is None else torch.device(device).type == "cuda"
    if any(there) and func not in ACROSS and any(x.ndim for x, on in zip(tensors, there, strict=True) if not on):
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, but found cuda:0 and cpu")
    if (generator := kwargs.get("generator")) is not None and gpu != (generator.device.type == "cuda"):
        raise RuntimeError(f"{func}: the generator is on {generator.device}")
    inner = {"device": torch.device("cpu")} if device is not None else {}
    plain = tree_map(lambda x: x.inner if isinstance(x, OnGPU) else x, (args, kwargs))
    with torch._C._DisableTorchDispatch():
        found = func(*plain[0], **plain[1] | inner)
    if func in (aten._local_scalar_dense.default, aten.equal.default):
        return found
    if func._schema.is_mutable:
        given = {id(p): x for p, x in zip(tree_leaves(plain), tree_leaves((args, kwargs)), strict=True)}
        return tree_map(lambda x: given.get(id(x), x), found)
    if func is aten.copy_.default:
        return args[0]
    return tree_map(lambda x: OnGPU(x) if gpu and isinstance(x, Tensor) else x, found)


def moved(model: nn.Module) -> nn.Module:
    """A network whose weights are on the GPU."""
    for module in model.modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[key] = nn.Parameter(OnGPU(parameter.detach(), True), requires_grad=True)
        for key, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[key] = OnGPU(buffer)
    return model


@contextlib.contextmanager
def machine() -> Iterator[None]:
    """A machine with such a GPU.

    Programs are traced on the CPU, since PyTorch traces no tensors of this kind, and gradients are ones, since its
    engine asks for the GPU itself.
    """
    usual, lowered, made = trace.export, trace.lower, torch.tensor

    def export(ann: nn.Module, example: Tensor) -> ExportedProgram:
        with _disable_current_modes():
            places = [(d, key, t) for m in ann.modules() for d in (m._parameters, m._buffers) for key, t in d.items()]
            for d, key, t in places:
                if isinstance(t, OnGPU):
                    d[key] = nn.Parameter(t.inner) if isinstance(t, nn.Parameter) else t.inner
            program = usual(ann, example.inner if isinstance(example, OnGPU) else example)
            for d, key, t in places:
                d[key] = t
        return program

    def lower(program: ExportedProgram) -> Lowered:
        with _disable_current_modes():
            found = lowered(program)
        ops = (replace(op, tensors={key: OnGPU(t.detach()) for key, t in op.tensors.items()}) for op in found.ops)
        return replace(found, ops=tuple(ops))

    def tensor(data: object, *, device: Any = None, **options: Any) -> Tensor:
        found = made(data, **options)
        return OnGPU(found) if device is not None and torch.device(device).type == "cuda" else found

    with (
        patch("torch.tensor", tensor),
        patch.object(trace, "export", export),
        patch.object(trace, "lower", lower),
        patch.object(tsa, "_HAS_TRITON", False),
        patch("transpike.conversion.running.free", lambda device: 2**24),
        patch("torch.cuda._lazy_init", lambda: None),
        torch.backends.cudnn.flags(enabled=False),
        patch("torch.autograd.grad", lambda out, values, *args, **options: [torch.ones_like(v) for v in values]),
        Machine(),
    ):
        yield


__all__ = ["OnGPU", "machine", "moved"]
