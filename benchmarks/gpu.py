"""Everything that a GPU is claimed to do, measured by one command in under five minutes.

    pip install -e ".[spikingjelly]" timm
    python benchmarks/gpu.py
    python benchmarks/gpu.py --parts kernels convert
    python benchmarks/gpu.py --device cpu --quick        (every part, tiny: a test runs it)

Nothing is downloaded. Each part runs by itself: one that fails is reported, and the rest goes on. Times are the least
of several in turns. Results: benchmarks/results/gpu.json, written after each part.

Planned, in seconds: kernels 40, convert 30, simulate 40, graphs 10, fidelity 30, lif 20, training 50, compiled 40,
loader 20; to compile kernels for the first time is a part of that.
"""

from __future__ import annotations

import argparse
import contextlib
import time
import traceback
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from importlib.metadata import version
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from gpu_rows import Row, Setting
from gpu_training import compiled, lif, loader, training
from timing import save, show
from torch import Tensor, nn

from transpike.coding.css import CSS
from transpike.conversion import prepare
from transpike.data import Loading, load_images
from transpike.neurons import ATan, Dynamics, Rectangular, Sigmoid, Triangular, multi_step, tsa
from transpike.neurons.inflow import Inflow
from transpike.neurons.kernels import reference, track_reference

# -- equality ----------------------------------------------------------------------------------------------------------


def kernels(at: Setting) -> Iterator[Row]:
    """Values that differ from the torch reference, which must be none, and by how much gradients do."""
    torch.manual_seed(0)
    neurons = 3000 if at.quick else 1 << 20
    family = (
        Dynamics(1.0, decay=0.5, gain=0.5, carry=0.0, rest=0.1, bias=0.05),
        Dynamics(0.5, decay=1.5, drop=1.0, ternary=1),
        Dynamics(1.0, keep=0.99, drop=1.0, detach_reset=1, start=0.2),
    )
    differing, errors = 0, [0.0]
    for dynamics in family:
        for surrogate in (ATan(), Sigmoid(), Triangular(), Rectangular()):
            x = torch.randn(5, neurons, device=at.device).requires_grad_()
            ours, _ = multi_step(x, None, dynamics, surrogate)
            theirs = reference.multi_step(x, None, None, dynamics, surrogate).spikes
            differing += int((ours != theirs).sum())
            grads = [torch.autograd.grad(s.sum(), x)[0] for s in (ours, theirs)]
            errors.append(float((grads[0] - grads[1]).abs().max()))
    yield Row("LIF family: spikes that differ", differing, most=0)
    yield Row("LIF family: largest difference of a gradient", max(errors), most=1e-4)
    codes = (
        tsa.Code(steps=8, beta=2.0),
        tsa.Code(steps=8, beta=2.0, silent=0, levels=(1, 2, 4, 8)),
        tsa.Code(steps=4, beta=4.0, silent=0, levels=tuple(range(1, 17))),
    )
    tracked, encoded, clipped = 0, 0, 0
    for code in codes:
        z, other = torch.randn(2, code.steps, 4, 8, neurons // 32, device=at.device).unbind()
        inflow = Inflow(shift=torch.randn(8, 1, device=at.device), other=other)
        found = []
        for backend in (None, track_reference):
            usual = tsa._prepare
            forced = lambda z, *, rows, usual=usual: (track_reference, usual(z, rows=rows)[1])  # noqa: E731
            with patch.object(tsa, "_prepare", forced) if backend else contextlib.nullcontext():
                found.append((tsa.track(z, code=code, inflow=inflow).spikes, tsa.encode(z[0], code=code)))
        tracked += int((found[0][0] != found[1][0]).sum())
        encoded += int((found[0][1] != found[1][1]).sum())
        relative = torch.rand(8, 1, device=at.device) + 0.1
        known = tsa.estimate(z, beta=code.beta, unit=0.1).clamp(0, 0.5) / relative
        ours = tsa.track(z, code=code, function=tsa.Piecewise(high=0.5), unit=0.1, relative=relative).spikes
        clipped += int((ours != tsa.track(known, code=code, function=tsa.IDENTITY, unit=0.1).spikes).sum())
    yield Row("tracking, with a bias and a skip: spikes that differ", tracked, most=0)
    yield Row("tracking of ReLU6 over channels' amplitudes: spikes that differ", clipped, most=0)
    yield Row("encoding: digits that differ", encoded, most=0)


# -- conversion --------------------------------------------------------------------------------------------------------


def _networks(at: Setting) -> dict[str, tuple[nn.Module, int]]:
    vit = {"img_size": 32, "patch_size": 4, "depth": 1 if at.quick else 7, "num_classes": 10}
    found = {
        "resnet20": (at.network("resnet20", num_classes=10, **({"width": 4} if at.quick else {})), 32),
        "vit": (at.network("vit_tiny_patch16_224", **vit), 32),
    }
    return found if at.quick else found | {"resnet50": (at.network("resnet50"), 224)}


def convert(at: Setting) -> Iterator[Row]:
    """Networks and images on the device: seconds, and how far the converted network's analog run is from the model."""
    for name, (model, size) in _networks(at).items():
        images = torch.randn(8 if at.quick else 32, 3, size, size, device=at.device)
        start = time.perf_counter()
        snn = prepare(model, images).convert(CSS(steps=8, silent=1, percentile=100))
        yield Row(f"{name}: conversion", time.perf_counter() - start, "s")
        with torch.no_grad():
            wanted = model(images)
        yield Row(
            f"{name}: analog against the model", float((snn.analog(images) - wanted).norm() / wanted.norm()), most=1e-3
        )
        yield Row(f"{name}: chunk", snn.default_chunk, "images")


def simulate(at: Setting) -> Iterator[Row]:
    """Simulation at T = 8 over T passes of the network it was made from, on the same batch."""
    steps = 4 if at.quick else 8
    for name, (model, size) in _networks(at).items():
        batch = 4 if at.quick else 64 if size > 100 else 256
        images = torch.randn(batch, 3, size, size, device=at.device)
        prepared = prepare(model, images[:8])
        snn = prepared.convert(CSS(steps=steps, silent=0, levels=(1, 2, 4, 8), percentile=100))
        for kind in ("TF32", "bfloat16"):
            torch.set_float32_matmul_precision("high" if kind == "TF32" else "highest")
            torch.backends.cudnn.allow_tf32 = kind == "TF32"
            dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
            network, x = deepcopy(model).to(dtype, memory_format=torch.channels_last), images.to(dtype)
            x, spiking = x.contiguous(memory_format=torch.channels_last), deepcopy(snn).to(dtype)
            with torch.no_grad():
                seconds = at.seconds({"ann": partial(network, x), "snn": partial(spiking, images)})
            most = 0.6 if name == "resnet50" else 1.1
            yield Row(f"{name}, {kind}: over {steps} x the ANN", seconds["snn"] / steps / seconds["ann"], most=most)
            yield Row(f"{name}, {kind}: images", batch / seconds["snn"], "a second")
    torch.set_float32_matmul_precision("highest")


def graphs(at: Setting) -> Iterator[Row]:
    """Small networks and batches, where launching takes longest: as one CUDA graph, over the same without."""
    for name, (model, size) in _networks(at).items():
        for batch in (2,) if at.quick else (2, 16):
            images = torch.randn(batch, 3, size, size, device=at.device)
            snn = prepare(model, images).convert(CSS(steps=4 if at.quick else 8, silent=0, levels=(1, 2, 4, 8)))
            plain = deepcopy(snn)
            snn.capture, plain.capture = True, False
            wanted = plain(images)
            differing = max(int((snn(images) != wanted).sum()) for _ in range(3))
            yield Row(f"{name}, batch {batch}: outputs that differ", differing, most=0)
            seconds = at.seconds({"graph": partial(snn, images), "plain": partial(plain, images)})
            yield Row(f"{name}, batch {batch}: over plain", seconds["graph"] / seconds["plain"], most=1.0)


def _trained(at: Setting) -> tuple[nn.Module, Tensor, Tensor]:
    """A ResNet-20 trained on scikit-learn's digits, its training and its test images."""
    loading = Loading(
        device=at.device, validation=0.0, train_images=256 if at.quick else None, test_images=40 if at.quick else None
    )
    sets = load_images("digits", loading=loading)
    options = {"width": 4} if at.quick else {}
    net = at.network("resnet20", num_classes=10, in_channels=1, **options).train()
    epochs = 1 if at.quick else 15
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for _ in range(epochs):
        for images, labels in sets.train:
            optimizer.zero_grad()
            F.cross_entropy(net(images), labels).backward()
            optimizer.step()
    gathered = [torch.cat([x for x, _ in loader]) for loader in (sets.calibration(), sets.test)]
    return net.eval(), gathered[0], gathered[1]


def fidelity(at: Setting) -> Iterator[Row]:
    """The first T at which 99 % of the predictions are the network's, ours and SpikingJelly's rate recipe's."""
    net, calibration, images = _trained(at)
    with torch.no_grad():
        wanted = net(images).argmax(1)
    prepared, last = prepare(net, calibration), 6 if at.quick else 16
    first = next(
        (
            t
            for t in range(2, last + 1)
            if (prepared.convert(CSS(steps=t, silent=0, levels=(1, 2, 4, 8)))(images).argmax(1) == wanted)
            .float()
            .mean()
            >= 0.99
        ),
        None,
    )
    yield Row("CSS, levels 1, 2, 4, 8: first T with 99 % same", first or float("nan"), most=last)
    from spikingjelly.activation_based import functional
    from spikingjelly.activation_based.ann2snn import Converter, RateCodingRecipe

    peer = Converter(RateCodingRecipe([calibration], mode="99.9%")).convert(deepcopy(net)).eval().to(at.device)
    functional.reset_net(peer)
    total, limit = torch.zeros((), device=at.device), 8 if at.quick else 512
    with torch.no_grad():
        same = []
        while len(same) < limit and not (same and same[-1] >= 0.99):
            total = total + peer(images)
            same.append(float((total.argmax(1) == wanted).float().mean()))
    found = len(same) if same[-1] >= 0.99 else float("nan")
    yield Row(f"SpikingJelly {version('spikingjelly')}, rate: the same (nan: not by {limit})", found)


PARTS: dict[str, Callable[[Setting], Iterator[Row]]] = {
    part.__name__: part for part in (kernels, convert, simulate, graphs, fidelity, lif, training, compiled, loader)
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="where (default: cuda)")
    parser.add_argument(
        "--quick", action="store_true", help="tiny, to see that all of it runs: no number is worth a look"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="which (default: all)")
    args = parser.parse_args(arguments)
    at, results, failed = Setting(args.device, args.quick), dict[str, Any](), 0
    for name in args.parts:
        start, rows, error = time.perf_counter(), list[Row](), ""
        try:
            rows.extend(PARTS[name](at))
        except Exception as problem:  # the next part may well run
            traceback.print_exc()
            error, failed = f"{type(problem).__name__}: {problem}", failed + 1
        seconds = time.perf_counter() - start
        results[name] = {"seconds": seconds, "error": error, "rows": [vars(row) for row in rows]}
        path = save("gpu-quick" if args.quick else "gpu", {"device": args.device, "parts": results})
        cells = [[r.what, f"{r.value:.4g} {r.unit}", "" if r.most is None else f"{r.most:g}"] for r in rows]
        show(
            f"{name}, {seconds:.0f} s",
            ["", "", "at most"],
            [*cells, *([[f"FAILED: {error}"[:200], "", ""]] if error else [])],
        )
    print(path)
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
