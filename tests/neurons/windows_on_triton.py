"""Run by test_windows with TRITON_INTERPRET=1: maxima over windows in the Triton kernel, interpreted on the CPU.

On a machine with a GPU, run without that variable, it compares the compiled kernel.
"""

from __future__ import annotations

import os
from unittest.mock import patch

import torch
from torch import Tensor

from transpike.neurons import tsa
from transpike.neurons.inflow import Inflow
from transpike.neurons.kernels import track_gpu, track_reference
from transpike.neurons.windows import Window, track_windows

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
WINDOWS = (
    Window((2, 2), (2, 2)),
    Window((3, 3), (2, 2), (1, 1)),
    Window((3, 2), (1, 3), (1, 0), (2, 1), ceil_mode=True),
)
CODES = (
    tsa.Code(steps=4, beta=2.0, silent=1),
    tsa.Code(steps=3, beta=2.3, silent=0, levels=(1, 2, 4, 8)),
    tsa.Code(steps=3, beta=4.0, silent=2, levels=tuple(range(1, 17))),
)


def wanted(z: Tensor, window: Window, code: tsa.Code, function: tsa.Piecewise, inflow: Inflow | None) -> tsa.Tracked:
    """The accumulated input, pooled by PyTorch, then tracked."""
    with patch.object(
        tsa, "_prepare", lambda z, *, rows, usual=tsa._prepare: (track_reference, usual(z, rows=rows)[1])
    ):
        held = tsa.accumulate(z, beta=code.beta, silent=code.silent, gain=0.7, inflow=inflow).flatten(0, 1)
        how = (window.size, window.stride, window.padding, window.dilation, window.ceil_mode)
        held = torch.max_pool2d(held, *how).unflatten(0, (-1, z.shape[1]))
        return tsa.track(held, code=code, function=function, accumulated=True, final=True)


def main() -> None:
    torch.manual_seed(0)
    for window, code in zip(WINDOWS, CODES, strict=True):
        for layout in (torch.contiguous_format, torch.channels_last):
            for dtype, fed in ((torch.float32, False), (torch.float32, True), (torch.bfloat16, True)):
                two = torch.randn(2, code.steps * 2, 5, 9, 8, device=DEVICE).to(dtype)
                z, other = (x.contiguous(memory_format=layout).unflatten(0, (-1, 2)) for x in two)
                shift, factor = torch.randn(2, 5, 1, 1, device=DEVICE)
                inflow = Inflow(shift=shift, other=other, factor=factor) if fed else None
                function = tsa.Piecewise(slope=0.1, low=-1.0, high=17.3) if fed else tsa.RELU
                want = wanted(z, window, code, function, inflow)
                with patch.object(tsa, "_prepare", lambda z, *, rows: (track_gpu, z)):
                    got = track_windows(z, window, code=code, function=function, gain=0.7, inflow=inflow, final=True)
                assert got is not None and got.spikes.dtype == dtype and got.spikes.stride() == want.spikes.stride()
                assert torch.equal(got.spikes.float(), want.spikes.float()), (window, code, layout, fed)
                assert got.residual is not None and want.residual is not None
                assert torch.equal(got.residual, want.residual) and torch.equal(got.target, want.target)
    print("equal")


if __name__ == "__main__":
    main()
