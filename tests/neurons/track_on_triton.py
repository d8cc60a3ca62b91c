"""Run by test_tsa with TRITON_INTERPRET=1: the Triton kernels, interpreted on the CPU, against the reference.

On a machine with a GPU, run without that variable, it compares the compiled kernels.
"""

from __future__ import annotations

import os
from types import ModuleType

import torch
from torch import Tensor

from transpike.neurons import tsa
from transpike.neurons.kernels import track_gpu, track_reference
from transpike.neurons.kernels.track_reference import Final

CODES = (
    tsa.Code(steps=5, beta=2.0),
    tsa.Code(steps=5, beta=1.5, silent=2, signed=False),
    tsa.Code(steps=4, beta=2.3, silent=0, levels=(1, 2, 4, 8)),
    tsa.Code(steps=3, beta=4.7, silent=1, levels=tuple(range(1, 17))),
    tsa.Code(steps=3, beta=4.0, silent=0, levels=tuple(range(1, 17)), signed=False),
    tsa.Code(steps=6, beta=1.0, silent=0, signed=False, start=0.5),
    tsa.Code(steps=6, beta=2.0, silent=6, signed=False),
)
DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
FUNCTIONS = (tsa.RELU, tsa.Piecewise(slope=0.1, low=-1.0, high=17.3))


def tracked(
    backend: ModuleType,
    source: Tensor,
    code: tsa.Code,
    function: tsa.Piecewise,
    *,
    accumulated: bool,
    unit: float | None,
    gain: float,
) -> list[Tensor]:
    """Spikes, residuals and targets, and the spikes written over the input."""
    neurons, tables = source.shape[1], tsa._tables(code, function, unit, gain)
    spikes = torch.empty(code.steps, neurons, device=source.device)
    ends = torch.empty(2, neurons, device=source.device)
    backend.track(source, spikes, Final(*ends), tables, accumulated=accumulated)
    over, nothing = source.clone(), torch.empty(0, device=source.device)
    backend.track(over, over[: code.steps], Final(nothing, nothing), tables, accumulated=accumulated)
    return [spikes.cpu(), ends.cpu(), over[: code.steps].cpu()]


def undefined(z: Tensor) -> Tensor:
    """Estimates with no value in some places."""
    return torch.where(z > 2, torch.nan, torch.where(z < -2.5, torch.inf, z))


def main() -> None:
    torch.manual_seed(0)
    for code in CODES:
        neurons = int(torch.randint(1, 1500, ()))
        z = torch.randn(code.steps, neurons) * 1.5
        held = torch.empty(code.steps + code.silent, neurons)
        units = tuple(1 + step / 7 for step in range(len(held)))
        track_reference.accumulate(z, held, beta=code.beta, units=units, gain=0.7)
        ours = torch.empty_like(held, device=DEVICE)
        track_gpu.accumulate(z.to(DEVICE), ours, beta=code.beta, units=units, gain=0.7)
        assert torch.equal(held, ours.cpu()), code
        for function in FUNCTIONS:
            for accumulated, unit, source in ((False, None, z), (True, None, held), (True, 0.3, undefined(z))):
                how = {"accumulated": accumulated, "unit": unit, "gain": 1.3}
                wanted = tracked(track_reference, source, code, function, **how)
                found = tracked(track_gpu, source.to(DEVICE), code, function, **how)
                assert all(map(torch.equal, wanted, found)), (code, function)
        digits, start = tsa._digits(code.levels, scale=1.0), code.beta**-code.steps
        spikes, ours = torch.empty(code.steps, neurons), torch.empty(code.steps, neurons, device=DEVICE)
        track_reference.encode(z[0] * 9, spikes, beta=code.beta, start=start, digits=digits)
        track_gpu.encode((z[0] * 9).to(DEVICE), ours, beta=code.beta, start=start, digits=digits)
        assert torch.equal(spikes, ours.cpu()), code
    print("equal")


if __name__ == "__main__":
    main()
