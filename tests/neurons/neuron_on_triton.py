"""Run by test_kernels with TRITON_INTERPRET=1: the Triton kernels, interpreted on the CPU, against Numba's."""

from __future__ import annotations

from itertools import product

import torch

from transpike.neurons import ATan, Dynamics, Rectangular, Sigmoid, Triangular
from transpike.neurons.kernels import cpu, gpu

NEURONS = (
    Dynamics(1.0, decay=0.5, gain=0.5, carry=0.0, rest=0.1, bias=0.05),
    Dynamics(0.5, decay=1.5, drop=1.0, ternary=1),
    Dynamics(1.0, keep=0.99, drop=1.0, detach_reset=1, start=0.2),
)
SURROGATES = (ATan(), Sigmoid(), Triangular(0.3, 0.7), Rectangular())


def check(dynamics: Dynamics, dtype: torch.dtype, learned: bool, state: bool) -> None:
    x, g = torch.randn(2, 3, 1100).to(dtype)
    v, gv = torch.randn(2, 1100)
    given = x, v if state else None, torch.tensor([0.6, 0.3, 0.1]) if learned else None, dynamics
    for ours, wanted in zip(gpu.forward(*given), cpu.forward(*given), strict=True):
        assert torch.equal(ours, wanted), given
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    for surrogate, grads in zip(SURROGATES, ((g, gv), (None, gv), (g, None), (g, gv)), strict=True):
        shape = (surrogate.shape, surrogate.slope, surrogate.height)
        for ours, wanted in zip(gpu.backward(grads, *given, shape), cpu.backward(grads, *given, shape), strict=True):
            torch.testing.assert_close(ours, wanted, rtol=tolerance, atol=tolerance)


def main() -> None:
    torch.manual_seed(0)
    for options in product(NEURONS, (torch.float32, torch.bfloat16), (False, True), (False, True)):
        check(*options)
    print("equal")


if __name__ == "__main__":
    main()
