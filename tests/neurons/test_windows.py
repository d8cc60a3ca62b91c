"""Maxima over windows: which inputs a window has, and the kernel for CUDA in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transpike.coding.function import Call, Function, Operand
from transpike.neurons import tsa
from transpike.neurons.windows import Window, track_windows


@settings(deadline=None)
@given(st.data())
def test_places_are_the_inputs_that_pytorch_takes(data: st.DataObject) -> None:
    pairs = [tuple(data.draw(st.integers(1, 3)) for _ in range(2)) for _ in range(3)]
    padding = tuple(data.draw(st.integers(0, size // 2)) for size in pairs[0])
    window = Window(pairs[0], pairs[1], padding, pairs[2], data.draw(st.booleans()))
    maps = torch.randn(3, data.draw(st.integers(7, 10)), data.draw(st.integers(7, 10)))
    maps = maps.permute(1, 2, 0).contiguous().permute(2, 0, 1) if data.draw(st.booleans()) else maps
    places = window.places(tuple(maps.shape), maps.stride())
    memory = maps.as_strided((maps.numel(),), (1,))
    found = torch.where(places < 0, -torch.inf, memory[places]).amax(0)
    how = (window.size, window.stride, window.padding, window.dilation, window.ceil_mode)
    wanted = torch.max_pool2d(maps[None], *how)[0]
    assert window.pooled(tuple(maps.shape)) == tuple(wanted.shape)
    order = sorted(range(3), key=maps.stride, reverse=True)
    assert torch.equal(found, wanted.permute(order).reshape(-1))


def test_of_a_function() -> None:
    def window(*args: object) -> Window | None:
        return Function((Call("max_pool2d.default", (Operand(0), *args)),)).window

    assert window(2) == window((2, 2), ()) == window((2, 2), (2, 2), 0, (1, 1), False) == Window((2, 2), (2, 2))
    assert window((3, 3), (2, 2), (1, 1), 1, True) == Window((3, 3), (2, 2), (1, 1), ceil_mode=True)
    assert Function.of("amax.default", Operand(0), (2,)).window is None
    on_cpu = track_windows(
        torch.zeros(2, 1, 1, 2, 2), Window((2, 2), (2, 2)), code=tsa.Code(steps=2, beta=2.0), function=tsa.RELU
    )
    assert on_cpu is None


@pytest.mark.skipif(find_spec("triton") is None, reason="no Triton for this platform")
def test_the_kernel_equals_pooling_of_what_is_accumulated() -> None:
    command = [sys.executable, str(Path(__file__).with_name("windows_on_triton.py"))]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.stdout == "equal\n", done.stderr
