"""A training step of a spiking network: ours, SpikingJelly's equivalent, and ours without neurons as the floor.

    python benchmarks/training.py
    python benchmarks/training.py --networks "[spikingformer_4_384]" --device cuda --precision bfloat16

Direct coding, cross-entropy of the mean over time, SGD. Of the SEW-ResNet-19, SpikingJelly's is the same network, built
of its layers, blocks and neurons; of the Spikingformer-4-384, its Spikformer of the same width, depth and heads, whose
neurons follow the layers instead of preceding them. In the floor every neuron is the identity. Each has a process of
its own, so that none runs on memory that another has left.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Literal

import torch
import torch.nn.functional as F
from jsonargparse import auto_cli
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.model import sew_resnet, spikformer
from timing import alone, best_seconds, peak_mebibytes, save, show
from torch import nn

from transpike.models import create_model
from transpike.neurons import ATan, LIFNode, reset_net


def _sew_resnet19() -> nn.Module:
    lif = {"tau": 2.0, "decay_input": False, "surrogate_function": surrogate.ATan()}
    blocks, width = [], 64
    for channels, depth, first in ((128, 3, 1), (256, 3, 2), (512, 2, 2)):
        for index in range(depth):
            stride = 1 if index else first
            projection = None
            if width != channels:
                projection = nn.Sequential(sew_resnet.conv1x1(width, channels, stride), layer.BatchNorm2d(channels))
            block = sew_resnet.BasicBlock(
                width, channels, stride, projection, cnf="ADD", spiking_neuron=neuron.LIFNode, **lif
            )
            blocks.append(block)
            width = channels
    stem = (sew_resnet.conv3x3(3, 64), layer.BatchNorm2d(64), neuron.LIFNode(**lif))
    head = (layer.Linear(512, 256), neuron.LIFNode(**lif), layer.Linear(256, 10))
    net = nn.Sequential(*stem, *blocks, layer.AdaptiveAvgPool2d(1), layer.Flatten(), *head)
    functional.set_step_mode(net, "m")
    return net


def _spikformer() -> nn.Module:
    return spikformer.Spikformer(
        img_size_h=32, img_size_w=32, patch_size=4, num_classes=10, embed_dims=384, num_heads=12, depths=4,
        surrogate_function=surrogate.ATan(),
    )  # fmt: skip


SPIKINGJELLY: dict[str, Callable[[], nn.Module]] = {
    "sew_resnet19": _sew_resnet19,
    "spikingformer_4_384": _spikformer,
}

KINDS = ("transpike", "SpikingJelly", "without neurons (floor)")


def _network(kind: str, name: str) -> nn.Module:
    if kind == "SpikingJelly":
        return SPIKINGJELLY[name]()
    lif = {"tau": 2.0, "decay_input": name != "sew_resnet19", "surrogate_function": ATan()}
    neurons = {"spiking_neuron": LIFNode, **lif} if kind == "transpike" else {"spiking_neuron": nn.Identity}
    return create_model(name, **neurons)


def _step(net: nn.Module, images: torch.Tensor, labels: torch.Tensor, dtype: torch.dtype) -> Callable[[], float]:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

    def step() -> float:
        reset_net(net)
        with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
            out = net(images)
            loss = F.cross_entropy(out.mean(0) if out.ndim == 3 else out, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def _measure(
    kind: str, name: str, device: str, precision: str, batch: int, steps: int, repeats: int
) -> tuple[float, float, int]:
    """Seconds of a step, MiB at its peak, and how many parameters the network has."""
    torch.manual_seed(0)
    images = torch.rand(batch, 3, 32, 32, device=device).expand(steps, -1, -1, -1, -1)
    labels = torch.randint(10, (batch,), device=device)
    net = _network(kind, name).to(device)
    run = _step(net, images, labels, getattr(torch, precision))
    seconds = best_seconds({kind: run}, repeats=repeats, cuda=device == "cuda")[kind]
    return seconds, peak_mebibytes(run, cuda=device == "cuda"), sum(p.numel() for p in net.parameters())


def main(
    networks: list[Literal["sew_resnet19", "spikingformer_4_384"]] = ["sew_resnet19", "spikingformer_4_384"],  # noqa: B006  (jsonargparse shows it)
    device: Literal["cpu", "cuda"] = "cpu",
    precision: Literal["float32", "bfloat16"] = "float32",
    batch: int = 32,
    steps: int = 4,
    repeats: int = 2,
    rounds: int = 2,
) -> None:
    """Images a second and peak memory of each; writes benchmarks/results/training-NETWORK-DEVICE-....json.

    Args:
        networks: Which.
        device: Where.
        precision: bfloat16 is autocast.
        batch: Images a step.
        steps: Time steps T.
        repeats: Training steps that a process times, after one to warm up; the fastest counts.
        rounds: Processes of each network, in turns; the fastest counts.
    """
    for name in networks:
        setting = name, device, precision, batch, steps, repeats
        turns = [[alone(_measure, kind, *setting) for kind in KINDS] for _ in range(rounds)]
        rows = {kind: tuple(map(min, zip(*row, strict=True))) for kind, *row in zip(KINDS, *turns, strict=True)}
        counts = [row[2] for row in rows.values()]
        if max(counts) / min(counts) > 1.01:
            raise SystemExit(f"the networks differ in size: {counts}")
        theirs, floor = rows["SpikingJelly"][0], rows["without neurons (floor)"][0]
        show(
            f"{name}, a training step, T = {steps}, batch {batch}, {precision} on {device}; "
            f"SpikingJelly {version('spikingjelly')}",
            ["", "s", "images/s", "speed-up", "of the floor", "peak MiB"],
            [
                [kind, f"{s:.3f}", f"{batch / s:.1f}", f"{theirs / s:.2f}x", f"{s / floor:.2f}x", f"{peak:.0f}"]
                for kind, (s, peak, _) in rows.items()
            ],
        )
        results = {
            kind: {"step_s": s, "images_per_s": batch / s, "peak_mib": peak} for kind, (s, peak, _) in rows.items()
        }
        print(save(f"training-{name}-{device}-{precision}-T{steps}-N{batch}", results))


if __name__ == "__main__":
    auto_cli(main)
