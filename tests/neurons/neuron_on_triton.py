"""Run by test_kernels with TRITON_INTERPRET=1: the Triton kernels, interpreted on the CPU, against Numba's."""

from __future__ import annotations

from itertools import product
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from transpike.neurons import ATan, Dynamics, Rectangular, Sigmoid, Triangular, kernels, multi_step
from transpike.neurons.kernels import cpu, gpu

NEURONS = (
    Dynamics(1.0, decay=0.5, gain=0.5, carry=0.0, rest=0.1, bias=0.05),
    Dynamics(0.5, decay=1.5, drop=1.0, ternary=1),
    Dynamics(1.0, keep=0.99, drop=1.0, detach_reset=1, start=0.2),
)
SURROGATES = (ATan(), Sigmoid(), Triangular(0.3, 0.7), Rectangular())
SIZE = 515
"""Neurons: of programs of 512 or 256 the last holds three."""


def check(steps: int, dynamics: Dynamics, dtype: torch.dtype, learned: bool, state: bool) -> None:
    x, g = torch.randn(2, steps, SIZE).to(dtype)
    v, gv = torch.randn(2, SIZE)
    given = x, v if state else None, torch.tensor([0.6, 0.3, 0.1]) if learned else None, dynamics
    for ours, wanted in zip(gpu.forward(*given), cpu.forward(*given), strict=True):
        assert torch.equal(ours, wanted), given
    norm, at = torch.rand(2, 5), torch.arange(SIZE) // 7 % 5  # of channels that lie seven apart
    scaled = (x.float() * norm[0, at] + norm[1, at], *given[1:])
    for ours, wanted in zip(gpu.forward(*given, (*norm, 7)), cpu.forward(*scaled), strict=True):
        assert torch.equal(ours.float(), wanted), given
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    for surrogate, grads in zip(SURROGATES, ((g, gv), (None, gv), (g, None), (g, gv)), strict=True):
        shape = (surrogate.shape, surrogate.slope, surrogate.height)
        for ours, wanted in zip(gpu.backward(grads, *given, shape), cpu.backward(grads, *given, shape), strict=True):
            torch.testing.assert_close(ours, wanted, rtol=tolerance, atol=tolerance)


class Taken(TorchDispatchMode):
    """Counts the bytes of new tensors."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **kwargs or {})
        if "empty" in str(func) or "zeros" in str(func):
            Taken.bytes += found.nbytes
        return found


def memory(steps: int, dtype: torch.dtype) -> None:
    """Kept is the input alone; the backward pass takes the gradient, and of further spans one membrane each."""
    x, kept = torch.randn(steps, 64).to(dtype).requires_grad_(), list[Tensor]()
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x)
    with patch.object(kernels, "_backend", lambda x: gpu), hooks:
        spikes, _ = multi_step(x, None, NEURONS[0], ATan())
    assert [tensor.data_ptr() for tensor in kept] == [x.data_ptr()] and spikes.dtype == dtype
    Taken.bytes = 0
    with patch.object(gpu, "_launch", lambda *args, **options: None), torch.no_grad(), Taken():
        gpu.backward((spikes, None), x, None, None, NEURONS[0], (0, 2.0, 1.0))
    assert Taken.bytes == x.nbytes + 4 * 64 * ((steps - 1) // 16), (steps, dtype, Taken.bytes)


def main() -> None:
    torch.manual_seed(0)
    # Any two of the options meet in each value; all combinations would take twice as long.
    for number, dynamics in enumerate(NEURONS):
        for half, learned, state in product((False, True), repeat=3):
            if (number + half + learned + state) % 2 == 0:
                check(3, dynamics, torch.bfloat16 if half else torch.float32, learned, state)
    for steps in (1, 16, 17, 34):
        check(steps, NEURONS[0], torch.float32, True, True)
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            memory(steps, dtype)
    print("equal")


if __name__ == "__main__":
    main()
