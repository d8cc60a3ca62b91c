"""Run by test_tsa with TRITON_INTERPRET=1: the Triton kernels, interpreted on the CPU, against the reference."""

from __future__ import annotations

import torch

from transpike.neurons import tsa
from transpike.neurons.kernels import track_gpu, track_reference
from transpike.neurons.kernels.track_reference import Final

CODES = (
    tsa.Code(steps=5, beta=2.0),
    tsa.Code(steps=5, beta=1.5, silent=2, signed=False),
    tsa.Code(steps=4, beta=2.3, silent=0, levels=(1, 2, 4, 8)),
    tsa.Code(steps=3, beta=4.7, silent=1, levels=tuple(range(1, 17))),
    tsa.Code(steps=3, beta=4.0, silent=0, levels=tuple(range(1, 17)), signed=False),
)
FUNCTIONS = (tsa.RELU, tsa.Piecewise(slope=0.1, low=-1.0, high=17.3))


def main() -> None:
    torch.manual_seed(0)
    for code in CODES:
        neurons = int(torch.randint(1, 1500, ()))
        z = torch.randn(code.steps, neurons) * 1.5
        held = torch.empty(2, code.steps + code.silent, neurons)
        track_reference.accumulate(z, held[0], beta=code.beta)
        track_gpu.accumulate(z, held[1], beta=code.beta)
        assert torch.equal(held[0], held[1])
        for function in FUNCTIONS:
            tables = tsa._tables(code, function)
            for accumulated, source in ((False, z), (True, held[0])):
                spikes, ends = torch.empty(2, code.steps, neurons), torch.empty(2, 2, neurons)
                track_reference.track(source, spikes[0], Final(*ends[0]), tables, accumulated=accumulated)
                track_gpu.track(source, spikes[1], Final(*ends[1]), tables, accumulated=accumulated)
                assert torch.equal(spikes[0], spikes[1]) and torch.equal(ends[0], ends[1]), (code, function)
                overwritten = source.clone()
                nothing = Final(torch.empty(0), torch.empty(0))
                track_gpu.track(overwritten, overwritten[: code.steps], nothing, tables, accumulated=accumulated)
                assert torch.equal(overwritten[: code.steps], spikes[0]), (code, function)
        digits = tsa._digits(code.levels, scale=1.0, signed=True)
        spikes, start = torch.empty(2, code.steps, neurons), code.beta**-code.steps
        track_reference.encode(z[0] * 9, spikes[0], beta=code.beta, start=start, digits=digits)
        track_gpu.encode(z[0] * 9, spikes[1], beta=code.beta, start=start, digits=digits)
        assert torch.equal(spikes[0], spikes[1]), code
    print("equal")


if __name__ == "__main__":
    main()
