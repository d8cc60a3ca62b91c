"""Runs weighted layers whose inputs are spikes as products of bytes, two to three times as fast on a CPU.

Spikes are small whole numbers. A CPU with the instructions AVX-512 VNNI multiplies bytes four times as fast as float32.
So a linear layer, or a convolution of size 1, can run two products of bytes in place of one of float32. Its weights
then have 16 bits. PyTorch's own setting decides: ``torch.set_float32_matmul_precision("high")`` allows it, and
``"highest"``, PyTorch's default, does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from transpike.coding.scheme import Scheme
from transpike.conversion.graph import Graph
from transpike.conversion.op import Op

__all__ = ["Products", "as_bytes"]

_MOVES = ("reshape", "permute", "slice", "select", "gather", "cat", "stack")
_LEAST = 64, 32  # inputs and outputs; with fewer, the conversion to bytes and back costs more than it saves


def as_bytes(graph: Graph, scheme: Scheme) -> frozenset[str]:
    """Return the weighted layers that can run as products of bytes. Each digit of their input must fit in a byte.

    The choice does not depend on the images, so a layer runs in the same way in all pieces and batches.
    """
    trains: set[str] = set()
    found: set[str] = set()
    for op in graph:
        sent = scheme.encoded if op.kind == "input" else scheme.digits
        if op.fires or op.kind == "input":
            trains |= {op.name} if _bytes(sent) else set()
        elif op.kind in _MOVES and not op.gains and trains.issuperset(op.inputs):
            trains.add(op.name)
        elif trains.issuperset(op.inputs) and _pointwise(op):
            found.add(op.name)
    return frozenset(found)


class Products:
    """The products of bytes of a network. It stores the bytes of each layer's weights until these change."""

    def __init__(self, graph: Graph, scheme: Scheme) -> None:
        self._layers = as_bytes(graph, scheme)
        self._weights: dict[str, tuple[Tensor, int, Any]] = {}

    def take(self, op: Op, x: Tensor) -> bool:
        """Whether a layer runs as a product of bytes: PyTorch's setting allows it, and it is faster on this CPU."""
        plain = x.device.type == "cpu" and x.dtype == torch.float32
        return op.name in self._layers and plain and torch.get_float32_matmul_precision() != "highest" and _supported()

    def __call__(self, op: Op, tensors: Mapping[str, Tensor], spikes: Tensor) -> Tensor:
        """Return the current of a layer of `as_bytes` for spikes [M, \\*], like `transpike.conversion.kinds.apply`."""
        kernels = import_module("transpike.neurons.kernels.bytes_cpu")  # on first use: Numba is slow to import
        weights = self._as_bytes(op, tensors["weight"], kernels.Weights.of)
        rows = spikes if op.kind == "linear" else spikes.movedim(1, -1)
        digits = rows.to(torch.int8, memory_format=torch.contiguous_format).flatten(0, -2)
        current: Tensor = kernels.linear(digits, weights, tensors.get("bias"))
        current = current.view(*rows.shape[:-1], current.shape[1])
        return current if op.kind == "linear" else current.movedim(-1, 1)

    def _as_bytes(self, op: Op, weight: Tensor, convert: Callable[[Tensor], Any]) -> Any:
        """Return the bytes of a weight. They follow changes in place, except those through ``weight.data``."""
        if weight.is_inference():  # it has no version
            return convert(weight.flatten(1))
        known, since, weights = self._weights.get(op.name, (None, 0, None))
        if known is not weight or since != weight._version:
            weights = convert(weight.flatten(1))
            self._weights[op.name] = weight, weight._version, weights
        return weights

    def __getstate__(self) -> dict[str, Any]:
        """Leave the bytes out of copies and files: the versions of copied weights begin anew."""
        return self.__dict__ | {"_weights": {}}


def _bytes(digits: tuple[int, ...] | None) -> bool:
    return digits is not None and all(digit == int(digit) and abs(digit) <= 127 for digit in digits)


def _pointwise(op: Op) -> bool:
    """Whether it only multiplies the channels of each place: a linear layer, or a convolution of size 1."""
    if op.gains or op.kind not in ("linear", "convolution"):
        return False
    outputs, inputs = op.tensors["weight"].shape[:2]
    if inputs < _LEAST[0] or outputs < _LEAST[1]:
        return False
    if op.kind == "linear":
        return True
    plain = not op.args["transposed"] and op.args["groups"] == 1 and not any(op.args["padding"])
    size, stride = op.tensors["weight"].shape[2:], op.args["stride"]
    return plain and set(size) == {1} and set(stride) == {1} and op.tensors["weight"].ndim == len(op.shape) + 1


def _supported() -> bool:
    """Whether this CPU multiplies bytes faster than float32."""
    name = "_is_vnni_supported" if hasattr(torch.cpu, "_is_vnni_supported") else "_is_avx512_vnni_supported"
    return bool(getattr(torch.cpu, name, bool)())
