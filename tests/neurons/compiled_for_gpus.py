"""Run by test_gpu_code: every Triton kernel as it is launched, compiled for an H100 (sm_90) without one.

A launch is recorded in place of being made: its arguments give the signature, as Triton itself derives it. Each
option is compiled in some combinations, with `--all` in every one.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from transpike.neurons import ATan, Dynamics, tsa
from transpike.neurons.kernels import gpu, track_gpu
from transpike.neurons.kernels.track_reference import PLAIN, Carried, Clip, Feed, Final, Pattern

TARGET = GPUTarget("cuda", 90, 32)
TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.float64: "*fp64",
    torch.int32: "*i32",
}
EVERY = "--all" in sys.argv
KERNELS = [(gpu, "_forward"), (gpu, "_backward")]
KERNELS += [(track_gpu, name) for name in ("_track", "_track_windows", "_accumulate", "_encode")]
OPTIONS = {"enable_fp_fusion", "num_warps", "num_stages"}


class Launched:
    """Stands for a kernel; what would be launched is compiled."""

    count = 0

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: object) -> Any:
        return self.compile

    def compile(self, *args: object, **named: object) -> None:
        options = {key: named.pop(key) for key in OPTIONS & set(named)}
        given = dict(zip(self.kernel.arg_names, args, strict=False)) | named
        fixed = {p.name for p in self.kernel.params if p.is_constexpr}
        signature, constants = {}, {}
        for name in self.kernel.arg_names:
            value = given[name]
            if name in fixed or value is None:
                signature[name], constants[name] = "constexpr", value
            else:
                signature[name] = TYPES[value.dtype] if isinstance(value, Tensor) else _number(value)
        source = ASTSource(fn=self.kernel, signature=signature, constexprs=constants)
        code = triton.compile(source, target=TARGET, options=options)
        assert ".target sm_90" in code.asm["ptx"] and code.asm["cubin"]
        assert "fma.rn" not in code.asm["ptx"], "products and sums are fused"
        assert _stack(code.asm["cubin"]) == 0, f"{code.metadata.name}: registers do not suffice, {constants}"
        Launched.count += 1


def _stack(cubin: bytes) -> int:
    """Bytes of memory a thread takes because its registers do not suffice."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(cubin)
        told = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    return int(told.stdout.partition("STACK:")[2].split()[0])


def _number(value: object) -> str:
    return "fp32" if isinstance(value, float) else "i32"


def _neurons() -> None:
    surrogate = (ATan().shape, ATan().slope, ATan().height)
    for half, learned in product((False, True), repeat=2):
        dtype = torch.bfloat16 if half else torch.float32
        shapes = ((4, False), (16, True), (20, False))
        for steps, state in shapes if EVERY else shapes[(half + learned) % 2 :: 2]:
            x, v = torch.zeros(steps, 1100, dtype=dtype), torch.zeros(1100) if state else None
            charge = torch.zeros(3) if learned else None
            dynamics = Dynamics(1.0, decay=0.5, ternary=float(state))
            gpu.forward(x, v, charge, dynamics, (*torch.zeros(2, 5), 7) if state else None)
            gpu.backward((x, v), x, v, charge, dynamics, surrogate)


def _tracking() -> None:
    codes = (tsa.Code(steps=4, beta=2.0, levels=(1, 2, 4, 8)), tsa.Code(steps=3, beta=4.0, levels=tuple(range(1, 17))))
    types = (torch.float32, torch.bfloat16)
    for code, dtype in product(codes, types) if EVERY else zip(codes, types, strict=True):
        z, tables = torch.zeros(code.steps, 1100, dtype=dtype), tsa._tables(code, tsa.RELU, None, 1.0)
        some = Pattern(torch.zeros(5), 7)
        full = Feed(some, some, (1.0,) * code.steps, torch.zeros_like(z), some)
        ends, nothing = Final(*torch.zeros(2, 1100)), Final(torch.zeros(0), torch.zeros(0))
        for feed, carried in ((PLAIN, None), (full, None), (PLAIN, Carried(torch.zeros(2, 1100), 2))):
            final = nothing if carried else ends
            track_gpu.track(z, z, final, tables, accumulated=False, feed=feed, carried=carried)
            how = {"beta": 2.0, "units": (1.0,) * code.steps, "feed": feed, "carried": carried}
            track_gpu.accumulate(z, z.float(), **how)
        clip = Clip((1.0,) * code.steps, 0.0, 0.0, 6.0, some)
        track_gpu.track(z, z, ends, tables, accumulated=False, feed=full, clip=clip)
        for count in (4, 9):
            places = torch.zeros(count, 55, dtype=torch.int32)
            track_gpu.track_windows(z, z[:, :275], Final(*torch.zeros(2, 275)), tables, places, feed=full)
        track_gpu.track(z.float(), z, nothing, tables, accumulated=True)
        track_gpu.encode(z[0], z, beta=2.0, start=0.1, digits=tables.digits)


def main() -> None:
    with contextlib.ExitStack() as stack:
        for module, name in KERNELS:
            stack.enter_context(patch.object(module, name, Launched(getattr(module, name))))
        stack.enter_context(patch("torch.cuda.device", lambda index: contextlib.nullcontext()))
        stack.enter_context(patch("torch.cuda.device_of", lambda x: contextlib.nullcontext()))
        _neurons()
        _tracking()
    print(f"compiled {Launched.count}")


if __name__ == "__main__":
    main()
