"""The claims of the CSS paper's Figures 1 and 2 at its beta of 1.5: what silent steps and negative spikes are worth.

    transpike train --epochs 20 --out runs/digits
    python benchmarks/css_claim.py digits --run runs/digits
    python benchmarks/css_claim.py resnet20 --data data --networks data/networks --images 500

One amplitude a layer, as in the paper, with and without its adjustment of amplitudes (Appendix A.3), done three times.
Figure 1 compares no silent step with one, Figure 2 spikes of both signs with spikes of one; latency is T plus the
silent steps of the layers and the classifier. Every row is a line of benchmarks/results/css_claim.jsonl, so that a
command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from timing import RESULTS, save, show
from torch import Tensor, nn
from trained_networks import load

from transpike.coding import CSS
from transpike.conversion import prepare
from transpike.experiments.convert import load_inputs
from transpike.experiments.source import Data, Source
from transpike.metrics.fidelity import agreement, logit_error

ADJUSTMENTS = 3
CODES = [(True, silent) for silent in (0, 1, 2)] + [(False, silent) for silent in (0, 1, 2, 3)]
"""Whether spikes have both signs, and silent steps."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=["digits", "resnet20"])
    parser.add_argument("--run", type=Path, help="a training run on digits")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the images (default: data)")
    parser.add_argument("--networks", type=Path, default=Path("data/networks"), help="folder of the weights")
    parser.add_argument("--images", type=int, default=500, help="test images of CIFAR-10 (default: 500)")
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 6, 8, 12, 16])
    parser.add_argument("--out", type=Path, default=RESULTS / "css_claim.jsonl")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    options.out.parent.mkdir(exist_ok=True)
    lines = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    ann, calibration, images = _network(options)
    prepared = prepare(ann, [calibration])
    want = _run(ann, images)
    rows: list[dict[str, Any]] = []
    for signed, silent in CODES:
        for adjustments in (0, ADJUSTMENTS):
            for steps in options.steps:
                key = {"network": options.network, "images": len(images), "signed": signed, "silent": silent}
                key |= {"adjustments": adjustments, "steps": steps}
                row = next((line for line in lines if key.items() <= line.items()), None)
                if row is None:
                    code = {"signed": signed, "silent": silent, "adjustments": adjustments}
                    snn = prepared.convert(CSS.paper(steps=steps, **code))
                    got = _run(snn, images)
                    found = {"same": agreement(got, want), "error": logit_error(got, want), "latency": snn.latency}
                    row = key | found
                    with options.out.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                rows.append(row)
            _show(rows, options)
    print(save(f"css_claim-{options.network}", rows))


def _network(options: argparse.Namespace) -> tuple[nn.Module, Tensor, Tensor]:
    """The network, images that calibrate and images that test."""
    if options.network == "resnet20":
        trained = load("resnet20", data=options.data, networks=options.networks, images=options.images)
        return trained.ann, trained.calibration, trained.test[0]
    ann, sets = load_inputs(Source(str(options.run)), Data(None, options.data))
    calibration, test = (torch.cat([x for x, _ in batches]) for batches in (sets.calibration(), sets.test))
    return ann.eval(), calibration, test


def _run(network: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([network(part) for part in images.split(50)])


def _show(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    table: dict[str, list[str]] = {}
    for row in rows:
        signs = "both signs" if row["signed"] else "no negative spikes"
        name = f"{signs}, Ts = {row['silent']}, {row['adjustments']} adjustments"
        cell = f"{100 * row['same']:.1f} ({100 * row['error']:.2g}), {row['latency']}"
        table.setdefault(name, []).append(cell)
    headings = ["", *(f"T = {steps}" for steps in options.steps)]
    title = f"{options.network}, {rows[0]['images']} images: same predictions in % (logit error in %), latency"
    show(title, headings, [[name, *cells] for name, cells in table.items()])


if __name__ == "__main__":
    main()
