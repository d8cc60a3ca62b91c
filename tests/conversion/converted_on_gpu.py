"""Run by test_gpu in a process of its own: conversion and simulation where every tensor is on a (pretended) GPU."""

from __future__ import annotations

import torch
from tests.conversion.pretended import OnGPU, machine, moved
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from transpike.coding import CSS, FS
from transpike.conversion import prepare
from transpike.conversion.course import course
from transpike.conversion.program import export, image


class Attends(nn.Module):
    """Convolutions with norms and a skip, attention, a norm, GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
        self.second, self.bn = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.qkv, self.norm, self.head = nn.Linear(8, 24), nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = (self.bn(self.second(x)) + x).relu().flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + (q @ k.transpose(1, 2) / 8**0.5).softmax(-1) @ v
        return self.head(nn.functional.gelu(x).mean(1))


def without_values() -> None:
    """What torch.export finds of a network on a GPU bounds the number of images, and is no reason to refuse it."""
    model = Attends().eval()
    with FakeTensorMode():
        for module in model.modules():
            for held in (module._parameters, module._buffers):
                for key, tensor in held.items():
                    if tensor is not None:
                        fake = torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
                        held[key] = nn.Parameter(fake) if isinstance(tensor, nn.Parameter) else fake
        example = torch.empty(2, 3, 16, 16, device="cuda")
    batch = image(export(model, example)).meta["val"].shape[0]
    assert any("65535" in str(guard.expr) for guard in batch.node.shape_env.guards), "no bound: nothing was tested"


def main() -> None:
    torch.manual_seed(0)
    without_values()
    model, images = Attends().eval(), torch.randn(40, 3, 16, 16)
    schemes = (
        CSS(steps=6, silent=1, levels=(1, 2, 4, 8), amplitude="channel"),
        CSS(steps=6, silent=1, amplitude="layer", adjustments=1),
        CSS(steps=6, amplitude="channel"),  # waits are chosen; not compared, since gradients are pretended
        FS(steps=6),
    )
    simple = nn.Sequential(model.first, nn.Flatten(), nn.Linear(72, 4)).eval()
    ready = {network: prepare(network, images) for network in (model, simple)}
    wanted = []
    for scheme in schemes:
        snn = ready[simple if isinstance(scheme, FS) else model].convert(scheme)
        snn._courses[False] = course(snn.graph, snn.neurons, bare=True)  # as on a GPU
        wanted.append(snn(images))
    simple[2] = moved(simple[2])
    moved(model)
    with machine():
        x = OnGPU(images)
        ready = {network: prepare(network, x) for network in (model, simple)}
        for scheme, want in zip(schemes, wanted, strict=True):
            snn = ready[simple if isinstance(scheme, FS) else model].convert(scheme)
            got = snn(x)
            assert isinstance(got, OnGPU) and got.shape == want.shape
            if scheme.wait is not None:
                torch.testing.assert_close(got.inner, want, rtol=0, atol=1e-5)
            assert str(snn.diagnose(x[:4])) and len(snn.trace(x[:4]))
            assert len(list(snn.stream(x[:4]))) == snn.steps
    print("converted")


if __name__ == "__main__":
    main()
