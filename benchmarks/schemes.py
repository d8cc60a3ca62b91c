"""Coding schemes side by side on one trained network: what is lost, at which latency, with how many bits a spike.

    python benchmarks/schemes.py --data data --networks data/networks
    python benchmarks/schemes.py --networks data/networks burst phase --images 200
    python benchmarks/schemes.py --networks data/networks css quantised --network vit --images 200

`trained_networks.py` says which files the folders hold. A row is a scheme with its settings: loss of accuracy, images
with the same prediction, relative error of the centred logits, latency with a zero-delay encoder, the bits that name
one of the digits of a step (0 is one of them), and these times T. The network itself is the same in all rows. Every
finished row is a line of benchmarks/results/schemes.jsonl, so a command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from timing import RESULTS, save, show
from trained_networks import NETWORKS, Trained, load

from transpike.coding import SCHEMES, Scheme, create_scheme
from transpike.conversion import Prepared, prepare
from transpike.errors import ConversionError
from transpike.measure.conversion import compare

COUNTED = 20  # images whose spikes are counted
ROWS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "burst": [{"steps": steps} for steps in (16, 32, 64, 128)],
    "css": [
        {"steps": 8},
        {"steps": 8, "levels": (1, 2, 4, 8)},
        {"steps": 1, "levels": tuple(range(1, 128)), "span": 127},
    ],
    "differential": [*({"steps": steps} for steps in (2, 4, 8)), {"steps": 8, "thresholds": 4}],
    "multithreshold": [
        *({"steps": steps} for steps in (1, 2, 4)),
        {"steps": 2, "percentile": "fit"},
        *({"steps": steps, "thresholds": 4} for steps in (2, 4, 8, 16)),
    ],
    "phase": [{"steps": steps} for steps in (64, 256, 512, 1024)],
    "quantised": [*({"bits": bits} for bits in (4, 5, 6, 8)), {"bits": 8, "signed": False}],
}
"""By scheme: the settings that are measured. A scheme that is not here is measured with its defaults."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *SCHEMES], help="which schemes (default: all)")
    parser.add_argument("--network", choices=NETWORKS, default="resnet20", help="default: resnet20")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the images (default: data)")
    parser.add_argument("--networks", type=Path, default=Path("data/networks"), help="folder of the weights")
    parser.add_argument("--images", type=int, default=200, help="test images (default: 200)")
    parser.add_argument("--most", type=int, help="leave out rows of more steps")
    parser.add_argument("--out", type=Path, default=RESULTS / "schemes.jsonl")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    options.out.parent.mkdir(exist_ok=True)
    lines = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    known = {(line["network"], line["images"], line["scheme"]): line for line in lines}
    trained = load(options.network, data=options.data, networks=options.networks, images=options.images)
    prepared, rows = None, []
    for name in options.names or sorted(SCHEMES):
        for settings in ROWS.get(name, [{}]):
            scheme = create_scheme(name, settings)
            if options.most and len(scheme.weights) > options.most:
                continue
            key = (options.network, options.images, str(scheme))
            if key not in known:
                prepared = prepared or prepare(trained.ann, trained.calibration)
                try:
                    measured = _row(scheme, prepared, trained)
                except ConversionError as error:  # no neurons for a function of the network
                    print(f"{scheme}: {error!s:.200}", flush=True)
                    continue
                known[key] = dict(zip(("network", "images", "scheme"), key, strict=True)) | measured
                with options.out.open("a") as file:
                    file.write(json.dumps(known[key]) + "\n")
            rows.append(known[key])
            print(rows[-1], flush=True)
    _show(options, rows)
    print(save(f"schemes-{options.network}", rows))


def _row(scheme: Scheme, prepared: Prepared, trained: Trained) -> dict[str, Any]:
    snn, (x, y) = prepared.convert(scheme), trained.test
    started = time.perf_counter()
    told = snn(x)
    seconds = time.perf_counter() - started
    wanted = trained.ann(x)
    right, same, right_ann = (
        int((a.argmax(1) == b).sum()) for a, b in ((told, y), (told, wanted.argmax(1)), (wanted, y))
    )
    centred = wanted - wanted.mean(1, keepdim=True)
    error = told - told.mean(1, keepdim=True) - centred
    counted = compare(snn, [(x[:COUNTED], y[:COUNTED])], layer_images=COUNTED).row
    return {
        "label": scheme.label,
        "steps": snn.steps,
        "latency": snn.timing.latency_zero_delay,
        "bits": math.log2(len(scheme.digits)),
        "loss_pp": 100 * (right_ann - right) / len(x),
        "same": 100 * same / len(x),
        "error": 100 * float(error.norm() / centred.norm()),
        "spikes": counted.spikes_per_neuron,
        "energy_uj": counted.energy_uj,
        "seconds": seconds,
    }


def _show(options: argparse.Namespace, rows: Sequence[Mapping[str, Any]]) -> None:
    columns = ("code", "T", "latency", "bits", "T x bits", "loss pp", "same %", "error %", "spikes", "energy uJ", "s")
    cells = []
    for row in rows:
        plain = (row["label"], str(row["steps"]), str(row["latency"]))
        bits = (f"{row['bits']:.1f}", f"{row['steps'] * row['bits']:.0f}")
        lost = (f"{row['loss_pp']:.2f}", f"{row['same']:.1f}", f"{row['error']:.2f}")
        spent = (f"{row['spikes']:.2f}", f"{row['energy_uj']:.1f}", f"{row['seconds']:.1f}")
        cells.append((*plain, *bits, *lost, *spent))
    show(f"{options.network}, {options.images} test images", columns, cells)


if __name__ == "__main__":
    main()
