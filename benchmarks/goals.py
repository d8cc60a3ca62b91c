"""Goals of equal predictions under limits of payload: what latency is found, and do new images keep the goal?

    python benchmarks/goals.py --data data --networks data/networks
    python benchmarks/goals.py --data data --networks data/networks vit --images 200

The folder of --networks holds the weights that `trained_networks.py` reads. Each network is searched on training
images with goal={"same": 99} and measured on test images. Writes benchmarks/results/goals.json.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from trained_networks import NETWORKS

import transpike
from transpike.data import Loading
from transpike.files import json_kind, write_json
from transpike.metrics.fidelity import agreement, logit_error
from transpike.results.records import to_json

GOAL = {"same": 99.0}
BARS = {("resnet20", 1): 32, ("resnet20", 3): 8, ("resnet20", 5): 6, ("vit", 3): 24}
"""Latency by network and payload bits that was to be reached."""
FIGURES = json_kind("figures of this benchmark", rows=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="which networks (default: all)")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with cifar-10-batches-py/")
    parser.add_argument("--networks", type=Path, required=True, help="folder of the weights")
    parser.add_argument("--bits", type=int, nargs="+", help="payload bits (default: all that have a bar)")
    parser.add_argument("--images", type=int, default=1000, help="test images (default: 1000)")
    parser.add_argument("--calibration", type=int, default=512, help="training images; half of them judge")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/goals.json"))
    args = parser.parse_args()
    sets = transpike.load_images("cifar10", root=args.data, loading=Loading(test_images=args.images))
    images, tests = (
        torch.cat([x for x, _ in batches]).to(args.device)
        for batches in (sets.calibration(args.calibration), sets.test)
    )
    table, rows = Table(title=f"goal: 99 % same predictions; {args.images} test images"), []
    for heading in ("network", "bits", "bar", "latency", "T", "code", "same %", "error %", "s"):
        table.add_column(heading)
    for (name, bits), bar in BARS.items():
        if (args.names and name not in args.names) or (args.bits and bits not in args.bits):
            continue
        ann = NETWORKS[name](args.networks / f"{name}.safetensors", sets).eval().to(args.device)
        began = time.perf_counter()
        limits = {"payload_bits": bits}
        snn = transpike.convert(ann, images, scheme="auto", goal=GOAL, limits=limits, verbose=True)
        seconds = time.perf_counter() - began
        with torch.no_grad():
            got, want = (torch.cat([net(x) for x in tests.split(50)]) for net in (snn, ann))
        same, error = 100 * agreement(got, want), 100 * logit_error(got, want)
        row = {"network": name, "payload_bits": bits, "bar": bar, "latency": snn.latency, "steps": snn.steps}
        rows.append(row | {"same": same, "error": error, "seconds": seconds, "tries": to_json(snn.search)})
        write_json(args.out, {"goal": GOAL, "images": args.images, "rows": rows}, kind=FIGURES)
        cells = (bits, bar, snn.latency, snn.steps, snn.scheme.label, f"{same:.1f}", f"{error:.2g}", f"{seconds:.0f}")
        table.add_row(name, *map(str, cells))
        Console().print(table)


if __name__ == "__main__":
    main()
