"""The parts of gpu.py that measure neurons, training and loading."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from gpu_rows import Row, Setting
from PIL import Image
from timing import peak_mebibytes
from torch import Tensor, nn

from transpike.data import Loading, load_images
from transpike.neurons import ATan, LIFNode, reset_net


def lif(at: Setting) -> Iterator[Row]:
    """A LIF layer forward and both ways, over a copy and SpikingJelly's."""
    from spikingjelly.activation_based import functional, neuron, surrogate

    ours = LIFNode(surrogate_function=ATan(), step_mode="m")
    theirs = neuron.LIFNode(surrogate_function=surrogate.ATan(), step_mode="m")
    if at.cuda:
        with contextlib.suppress(Exception):  # its fastest, where there is one
            theirs.backend = "triton"

    def layer(node: nn.Module, reset: Callable[[nn.Module], None], x: Tensor, grad: Tensor | None) -> None:
        reset(node)
        spikes = node(x)
        if grad is not None:
            x.grad = None
            spikes.backward(grad)

    for dtype in (torch.float32, torch.bfloat16):
        for steps in (4, 32):
            shape = (steps, 2, 8, 4, 4) if at.quick else (steps, 32, 128, 32, 32)
            x = torch.randn(shape, device=at.device).to(dtype)
            grad, leaf = torch.randn_like(x), x.clone().requires_grad_()
            for way, given, g in (("forward", x, None), ("both ways", leaf, grad)):
                runs = {
                    "ours": partial(layer, ours, reset_net, given, g),
                    "theirs": partial(layer, theirs, functional.reset_net, given, g),
                    "floor": (lambda x=x, g=g: (x.clone(), g.clone())) if g is not None else x.clone,
                }
                seconds = at.seconds(runs)
                label = f"LIF {str(dtype)[6:]}, T = {steps}, {way}"
                yield Row(f"{label}: over clone", seconds["ours"] / seconds["floor"])
                yield Row(f"{label}: times faster than SpikingJelly", seconds["theirs"] / seconds["ours"])


def training(at: Setting) -> Iterator[Row]:
    """A training step: over the same network without neurons, and SpikingJelly's."""
    from training import KINDS, _network, _step

    torch.manual_seed(0)
    batch, steps = (2, 2) if at.quick else (128, 4)
    images = torch.rand(batch, 3, 32, 32, device=at.device).expand(steps, -1, -1, -1, -1)
    labels = torch.randint(10, (batch,), device=at.device)
    for name in ("sew_resnet19",) if at.quick else ("sew_resnet19", "spikingformer_4_384"):
        for dtype in (torch.bfloat16,) if at.quick else (torch.float32, torch.bfloat16):
            runs = {kind: _step(_network(kind, name).to(at.device), images, labels, dtype) for kind in KINDS}
            seconds = at.seconds(runs)
            peak = {kind: peak_mebibytes(run, cuda=at.cuda) for kind, run in runs.items()}
            ours, theirs, floor = KINDS
            label = f"{name}, {str(dtype)[6:]}"
            yield Row(f"{label}: over the floor", seconds[ours] / seconds[floor], most=1.1)
            yield Row(f"{label}: times faster than SpikingJelly", seconds[theirs] / seconds[ours])
            yield Row(f"{label}: memory over the floor's", peak[ours] / max(peak[floor], 1), most=1.15)
            yield Row(f"{label}: images", batch / seconds[ours], "a second")


def loader(at: Setting) -> Iterator[Row]:
    """Images a second that reach the device from JPEG files, standard augmentation at 224 px."""
    count, workers = (8, 0) if at.quick else (2048, 8)
    generator = torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as place:
        for part in ("train", "val"):
            for k in range(count if part == "train" else 4):
                folder = Path(place, part, f"class{k % 2}")
                folder.mkdir(parents=True, exist_ok=True)
                coarse = torch.randint(256, (12, 12, 3), generator=generator, dtype=torch.uint8).numpy()
                Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC).save(
                    folder / f"{k}.jpg", quality=90
                )
        sets = load_images(
            "folder", root=place, loading=Loading(batch_size=min(count // 2, 128), workers=workers, validation=0.0)
        )
        for _ in range(2):  # the first pass starts the workers
            start, seen = time.perf_counter(), 0
            for images, _ in sets.train:
                seen += len(images.to(at.device, non_blocking=True))
        yield Row(f"JPEG, 224 px, {workers} workers: images", seen / (time.perf_counter() - start), "a second")


def compiled(at: Setting) -> Iterator[Row]:
    """A training step of a whole spiking network under torch.compile, over the same without."""
    from training import KINDS, _network, _step

    torch.manual_seed(0)
    batch, steps = (2, 2) if at.quick else (128, 4)
    images = torch.rand(batch, 3, 32, 32, device=at.device).expand(steps, -1, -1, -1, -1)
    labels = torch.randint(10, (batch,), device=at.device)
    net = _network(KINDS[0], "sew_resnet19").to(at.device)
    dtype = torch.bfloat16
    wrapped = torch.compile(net, backend="aot_eager" if at.quick else "inductor", fullgraph=True)
    start = time.perf_counter()
    runs = {"plain": _step(net, images, labels, dtype), "compiled": _step(wrapped, images, labels, dtype)}
    runs["compiled"]()
    yield Row("sew_resnet19, bfloat16: the first compiled step", time.perf_counter() - start, "s")
    seconds = at.seconds(runs)
    yield Row("sew_resnet19, bfloat16: compiled over plain", seconds["compiled"] / seconds["plain"], most=1.0)
