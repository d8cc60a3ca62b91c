"""Networks with trained weights, converted under given settings: are the predictions the same, and what does it take?

    python benchmarks/trained.py --data data --networks data/networks
    python benchmarks/trained.py --networks data/networks vit efficientnet-lite0 --images 100
    python benchmarks/trained.py --networks data/networks resnet20 vit --defaults   # what is chosen by itself
    python benchmarks/trained.py --networks data/networks resnet20 --paper --images 10000   # Table 2 of the CSS paper
    python benchmarks/trained.py --networks data/networks vit --choosing    # candidates, on training images

`trained_networks.py` says which files the folders hold. A row is a network under one setting: images with the same
prediction, relative error of the centred logits, accuracy of both, how far `snn.analog` is from the network, latency,
seconds, spikes and energy. Settings were chosen by `--choosing`: on training images, amplitudes from others. Every
finished part of a row is a line of benchmarks/results/trained.jsonl, so a command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from timing import RESULTS, save, show
from torch import Tensor
from trained_networks import NETWORKS, Trained, load

from transpike.coding import CSS, Quantised
from transpike.coding.operations import MULTIPLY_ACCUMULATE, Operations
from transpike.coding.scheme import Scheme
from transpike.conversion import SpikingNetwork, prepare
from transpike.conversion.cost import evaluated, macs
from transpike.measure.conversion import compare

PART = 20  # images of a line
INTEGER_ADDITION = 0.1e-6  # microjoules at 32 bits, as in `transpike.coding.operations`; shifts likewise
INTEGER_MAC = 0.3e-6  # of 8 bits, 0.2, and the addition to a 32-bit sum
FIGURES = ("spikes_per_neuron", "synops", "shifts", "multiplications", "products", "function_operations",
           "neuron_updates", "energy_uj", "energy_parts_uj")  # fmt: skip
COUNTED = {"vit-small-dinov2": 4}  # images whose spikes are counted; else PART

LEVELS = CSS(silent=0, levels=(1, 2, 4, 8), amplitude="layer")
TERNARY = CSS(silent=2, amplitude="layer")
QUANTISED = tuple(Quantised(bits=bits, amplitude="layer") for bits in (8, 6, 4))
DEFAULTS = (CSS(), CSS(levels=(1, 2, 4, 8)))
PAPER = (CSS.paper(steps=12),)
ROWS: Mapping[str, Sequence[Scheme]] = {
    "resnet20": (LEVELS, TERNARY, *QUANTISED),
    "mobilenetv3": (replace(LEVELS, steps=16, silent=3, percentile=100), replace(TERNARY, steps=16)),
    "vit": (LEVELS, TERNARY, *QUANTISED),
    "efficientnet-lite0": (replace(LEVELS, silent=1, percentile=99),),
    "vit-small-dinov2": (replace(LEVELS, silent=1, percentile=99.9),),
}
_CODES = tuple(
    replace(LEVELS, silent=silent, percentile=percentile)
    for silent, percentile in ((1, 99.9), (1, 99), (1, 99.99), (2, 99.9), (2, 99.99), (1, 100))
)
CANDIDATES: Mapping[str, Sequence[Scheme]] = {
    "resnet20": (LEVELS, TERNARY),
    "mobilenetv3": tuple(
        replace(code, steps=16, silent=silent, percentile=percentile)
        for code in (LEVELS, TERNARY)
        for silent in (1, 2, 3, 4)
        for percentile in (99.99, 100)
    ),
    "vit": (LEVELS, replace(LEVELS, percentile=99.9), TERNARY, *_CODES),
    "efficientnet-lite0": (*_CODES, replace(_CODES[2], levels=(1, 2, 4)), replace(TERNARY, silent=3)),
    "vit-small-dinov2": (*_CODES[:3], *(replace(code, steps=10) for code in _CODES[:2])),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *NETWORKS], help="which networks (default: all)")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the images (default: data)")
    parser.add_argument("--networks", type=Path, default=Path("data/networks"), help="folder of the weights")
    parser.add_argument("--images", type=int, help="only so many images (default: 1,000 of CIFAR-10, else all)")
    parser.add_argument("--choosing", action="store_true", help="measure candidates on training images instead")
    parser.add_argument("--defaults", action="store_true", help="measure the default code and its levels 1-8 instead")
    parser.add_argument("--paper", action="store_true", help="measure the CSS paper's setting at T = 12 instead")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch (default: 1)")
    parser.add_argument("--out", type=Path, default=RESULTS / "trained.jsonl")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    options.out.parent.mkdir(exist_ok=True)
    lines = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    rows = []
    for name in options.names or NETWORKS:
        where = {"data": options.data, "networks": options.networks, "choosing": options.choosing}
        trained = load(name, images=options.images, **where)
        rows += _network(name, trained, lines, options)
        _show(rows)
    print(
        save(f"trained{'-choosing' * options.choosing}{'-defaults' * options.defaults}{'-paper' * options.paper}", rows)
    )


def _network(
    name: str, trained: Trained, lines: list[dict[str, Any]], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """The rows of one network, with what is missing of them measured."""
    prepared, rows = None, []
    x, y = (images[: options.images] for images in (trained.choosing if options.choosing else trained.test))
    own = PAPER if options.paper else DEFAULTS if options.defaults else ()
    for scheme in own or (CANDIDATES if options.choosing else ROWS)[name]:
        key = {"network": name, "scheme": str(scheme), "choosing": options.choosing}
        parts = {f"{k}-{min(k + PART, len(x))}": slice(k, k + PART) for k in range(0, len(x), PART)}
        found = [line for line in lines if key.items() <= line.items() and line["part"] in (*parts, "counts")]
        missing = [part for part in (*parts, "counts") if all(line["part"] != part for line in found)]
        if missing:
            prepared = prepared or prepare(trained.ann, trained.calibration)
            snn = prepared.convert(scheme)
            for part in missing:
                chosen = parts.get(part, slice(COUNTED.get(name, PART)))
                measured = (_counts if part == "counts" else _part)(snn, trained, x[chosen], y[chosen])
                found.append(key | {"part": part} | measured)
                with options.out.open("a") as file:
                    file.write(json.dumps(found[-1]) + "\n")
        rows.append(_row(key, scheme, found))
        print(rows[-1], flush=True)
    return rows


def _part(snn: SpikingNetwork, trained: Trained, x: Tensor, y: Tensor) -> dict[str, float]:
    """Sums over a few images."""
    started = time.perf_counter()
    fired = snn(x)
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    wanted = trained.ann(x)
    forward = time.perf_counter() - started
    analog = snn.analog(x)
    same, right, right_ann = (
        int((a.argmax(1) == b).sum()) for a, b in ((fired, wanted.argmax(1)), (fired, y), (wanted, y))
    )
    error, off, norm = (
        float((z.double() - z.double().mean(1, keepdim=True)).square().sum())
        for z in (fired - wanted, analog - wanted, wanted)
    )
    return {
        "count": len(x), "same": same, "right": right, "right_ann": right_ann, "error": error, "off": off, "norm": norm,
        "seconds": seconds, "forward": forward,
    }  # fmt: skip


def _counts(snn: SpikingNetwork, trained: Trained, x: Tensor, y: Tensor) -> dict[str, Any]:
    """Latency; operations of the network itself, and those that the spikes of a few images cause."""
    once = [evaluated(snn.graph, op) for op in snn.graph.neurons]
    functions = Operations(
        function_additions=sum(one.additions for one in once),
        function_multiplications=sum(one.multiplications for one in once),
    )
    about = {
        "steps": snn.steps, "latency": snn.latency, "macs": sum(macs(snn.graph).values()),
        "functions_uj": functions.joules * 1e6,
    }  # fmt: skip
    if isinstance(snn.scheme, Quantised):
        return about
    row = compare(snn, [x], layer_images=len(x)).row
    worst = max((layer for layer in row.layers if layer.own_error), key=lambda layer: layer.own_error or 0)
    return about | {
        "operations": {figure: getattr(row, figure) for figure in FIGURES},
        "worst": {"layer": worst.name, "error": worst.own_error, "binding": worst.binding},
    }


def _row(key: dict[str, Any], scheme: Scheme, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All lines of a row in one."""
    (counts,) = (line for line in lines if line["part"] == "counts")
    parts = [line for line in lines if line["part"] != "counts"]
    sums = {name: math.fsum(part[name] for part in parts) for name in parts[0] if name not in (*key, "part")}
    count = sums["count"]
    return key | {
        "images": int(count),
        "label": scheme.label,
        "percentile": scheme.calibration.percentile,  # type: ignore[attr-defined]
        **{figure: value for figure, value in counts.items() if figure not in (*key, "part")},
        "same": sums["same"] / count,
        "error": math.sqrt(sums["error"] / sums["norm"]),
        "analog": math.sqrt(sums["off"] / sums["norm"]),
        "accuracy": sums["right"] / count,
        "accuracy_ann": sums["right_ann"] / count,
        "seconds": sums["seconds"],
        "forward": sums["forward"],
    }


def _show(rows: Sequence[dict[str, Any]]) -> None:
    show(
        "In %: same predictions, error, accuracies; ms an image; over T passes of the network; spikes a neuron",
        ["", "code", "T", "latency", "images", "same", "error", "analog", "ANN", "SNN", "ms", "floor", "spikes"],
        [_cells(row) for row in rows],
    )
    headings = ["", "code", "T", "accuracy", "float", "of the float ANN", "integer", "of the 8-bit ANN"]
    show("Energy in µJ, at 32-bit floating point and in integers", headings, [_energies(row) for row in rows])


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        *_named(row),
        *(str(row[figure]) for figure in ("latency", "images")),
        *(f"{100 * row[figure]:.2f}" for figure in ("same", "error")),
        f"{row['analog']:.0e}",
        *(f"{100 * row[figure]:.2f}" for figure in ("accuracy_ann", "accuracy")),
        f"{1e3 * row['seconds'] / row['images']:.0f}",
        f"{row['seconds'] / row['steps'] / row['forward']:.2f}",
        f"{row['operations']['spikes_per_neuron']:.2f}" if "operations" in row else "",
    ]


def _named(row: dict[str, Any]) -> list[str]:
    percentile = "" if row["percentile"] == 99.99 else f", {row['percentile']:g} %"
    return [row["network"], f"{row['label']}{percentile}", str(row["steps"])]


def _energies(row: dict[str, Any]) -> list[str]:
    """Of the float ANN where operands have 32 bits, of the 8-bit ANN where all but functions is integers.

    Weights have 8 bits in the second, which no accuracy here knows. Functions are evaluated in floating point.
    """
    floats = 1e6 * row["macs"] * MULTIPLY_ACCUMULATE + row["functions_uj"]
    integers = row["macs"] * INTEGER_MAC + row["functions_uj"]
    if "operations" not in row:
        own = ["", "", f"{integers:.4g}", "100%"]
    else:
        found = row["operations"]
        additions = found["synops"] + found["shifts"] + found["neuron_updates"]
        spent = additions * INTEGER_ADDITION + found["products"] * INTEGER_MAC
        spent += found["multiplications"] * INTEGER_MAC + found["energy_parts_uj"].get("functions", 0.0)
        own = [
            f"{found['energy_uj']:.4g}",
            f"{found['energy_uj'] / floats:.0%}",
            f"{spent:.4g}",
            f"{spent / integers:.0%}",
        ]
    return [*_named(row), f"{100 * row['accuracy']:.2f}", *own]


if __name__ == "__main__":
    main()
