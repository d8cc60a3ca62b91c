"""What a simulation costs beyond T passes of the network it was made from: attention, norms and gates; ResNets.

    python benchmarks/simulation.py
    python benchmarks/simulation.py --steps 8 --images 10 --by-operation
    python benchmarks/simulation.py --networks resnet20 resnet50 --threads 2
    python benchmarks/simulation.py --precision high     # weights of 16 bits, multiplied with spikes as bytes

Weights are random, which times do not depend on. Both run in turns, and the least processor time of several counts,
which a busy machine disturbs least; with several threads the least time on the clock, which is worth something on a
quiet machine alone. With --by-operation, each kind of operation is timed by itself.
Results: benchmarks/results/simulation.json.
"""
# quick

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any
from unittest.mock import patch

import timm
import torch
from timing import save, show
from torch import Tensor, nn

from transpike import create_model
from transpike.coding.css import CSS
from transpike.conversion import Prepared, SpikingNetwork, prepare
from transpike.conversion.kinds import apply, title
from transpike.conversion.op import Op

MOST = 1.1  # what must hold
VIT = {"img_size": 32, "patch_size": 4, "depth": 7, "num_classes": 10}
COLUMNS = {"model": "model", "channels last": "model, channels last", "folded": "folded", "snn": "simulation"}
NETWORKS: dict[str, tuple[str, Callable[[], nn.Module], int]] = {
    "vit": (
        "ViT, 7 blocks of width 192, 65 tokens",
        partial(timm.create_model, "vit_tiny_patch16_224", **VIT),
        32,
    ),
    "convnext": ("ConvNeXt-atto, 64 px", partial(timm.create_model, "convnext_atto", num_classes=10), 64),
    "resnet20": ("ResNet-20, 32 px", partial(create_model, "resnet20", num_classes=10), 32),
    "resnet50": ("ResNet-50, 224 px", partial(timm.create_model, "resnet50"), 224),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8, help="T (default: 8)")
    parser.add_argument("--silent", type=int, default=0, help="Ts (default: 0)")
    parser.add_argument("--images", type=int, default=10, help="images at once (default: 10)")
    parser.add_argument("--amplitude", default="channel", help="one a channel or one a layer (default: channel)")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["vit", "convnext"], help="which of them")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch (default: 1)")
    parser.add_argument("--precision", choices=("highest", "high"), default="highest", help="of PyTorch's products")
    parser.add_argument("--repeats", type=int, default=7, help="times are the least of so many (default: 7)")
    parser.add_argument("--by-operation", action="store_true", help="tell what each kind of operation takes")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_float32_matmul_precision(args.precision)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    how = {"amplitude": args.amplitude, "percentile": 100}
    scheme = CSS(steps=args.steps, silent=args.silent, levels=(1, 2, 4, 8), **how)
    rows = []
    for network in args.networks:
        name, make, size = NETWORKS[network]
        model = make().eval()
        prepared = prepare(model, torch.randn(16, 3, size, size))
        snn, x = prepared.convert(scheme), torch.randn(args.images, 3, size, size)
        runs = {"model": partial(model, x), "folded": partial(prepared.graph.run, x), "snn": partial(snn, x)}
        if network != "vit":  # the floor is in the faster memory format
            last = {"memory_format": torch.channels_last}
            runs["channels last"] = partial(deepcopy(model).to(**last), x.contiguous(**last))
        seconds = _seconds(runs, args.repeats, time.process_time if args.threads == 1 else time.perf_counter)
        floor = args.steps * min(t for run, t in seconds.items() if run != "snn")
        rows.append(
            {
                "network": name,
                "images": args.images,
                "threads": args.threads,
                "precision": args.precision,
                **seconds,
                "ratio": seconds["snn"] / floor,
            }
        )
        if args.by_operation:
            _show_operations(name, prepared, snn, x)
    show(
        f"{args.images} images, {scheme.label}, T = {args.steps}, {args.threads} threads, precision {args.precision}; "
        f"must hold: {MOST}",
        ["", *(f"{key}, ms" for key in COLUMNS.values()), "over T passes"],
        [
            [r["network"], *(f"{1e3 * r[key]:.1f}" if key in r else "" for key in COLUMNS), f"{r['ratio']:.2f}"]
            for r in rows
        ],
    )
    print(save("simulation", rows))


def _seconds(runs: dict[str, Callable[[], object]], repeats: int, clock: Callable[[], float]) -> dict[str, float]:
    best = dict.fromkeys(runs, float("inf"))
    for turn in range(repeats + 1):
        for name, run in runs.items():
            start = clock()
            run()
            best[name] = min(best[name], clock() - start) if turn else best[name]
    return best


def _show_operations(name: str, prepared: Prepared, snn: SpikingNetwork, x: Tensor) -> None:
    """The least time of each kind of operation, and what T passes take for it."""
    best: dict[tuple[str, str], float] = defaultdict(lambda: float("inf"))

    def timed(side: str, run: Callable[..., Any], spent: dict[tuple[str, str], float]) -> Callable[..., Any]:
        def timed_run(op: Op, *inputs: Any, **how: Any) -> Any:
            start = time.process_time()
            result = run(op, *inputs, **how)
            spent[side, op.name] += time.process_time() - start
            return result

        return timed_run

    current, fire, graphs = snn.current, snn.fire, sys.modules["transpike.conversion.graph"]
    for _ in range(6):
        spent: dict[tuple[str, str], float] = defaultdict(float)
        with (
            patch.object(snn, "current", timed("snn", current, spent)),
            patch.object(snn, "fire", timed("snn", fire, spent)),
            patch.object(graphs, "apply", timed("ann", apply, spent)),
        ):
            prepared.graph.run(x)
            snn(x)
        for key, seconds in spent.items():
            best[key] = min(best[key], seconds)
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for column, side, graph, times in ((0, "snn", snn.graph, 1), (1, "ann", prepared.graph, snn.steps)):
        for op in graph:
            sums[title(op) if op.fires else op.kind][column] += times * best.get((side, op.name), 0.0)
    show(
        name,
        ["operation", "simulation, ms", "T passes, ms"],
        [[kind, *(f"{1e3 * s:.1f}" for s in pair)] for kind, pair in sorted(sums.items(), key=lambda kv: -kv[1][0])],
    )


if __name__ == "__main__":
    main()
