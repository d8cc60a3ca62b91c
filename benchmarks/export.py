"""Converted networks outside the framework: does the runner, does onnxruntime compute the same, and what does it take?

    python benchmarks/export.py --digits runs/demo/ann --data data --networks data/networks
    python benchmarks/export.py --names digits --digits runs/demo/ann --images 40 --parts runner

Two networks with trained weights: the ResNet-20 of `transpike demo` on scikit-learn's digits, ternary, T = 8, and a
MobileNetV3 for CIFAR-10 (see `trained_networks.py`), levels 1, 2, 4, 8, T = 8. For every part (the NumPy runner, the
ONNX step in onnxruntime, both again with weights of 8 bits, and PyTorch with 8, 6 and 4) a row says on how many images
the largest difference is within 1e-4 of the largest output, in how many others the runner came nowhere nearer than
1e-5 theta to a threshold ("unexplained"), how many predictions are equal, and by which margin those stood that are not;
"turned" names the first digits that differ, and their distance from a threshold. Every finished part is a line of
benchmarks/results/export.jsonl, so a command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from timing import RESULTS, save, show
from torch import Tensor, nn
from trained_networks import load as load_trained

import transpike
from transpike import export
from transpike.conversion import SpikingNetwork
from transpike.data import Loading
from transpike.export.neurons import Neurons

BATCH = 20  # images of a line
NEAR = 1e-4  # of the largest output
CODES = {"digits": transpike.CSS(), "mobilenetv3": transpike.CSS(levels=(1, 2, 4, 8))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", choices=list(CODES), default=list(CODES))
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--digits", type=Path, help="the folder of a run that trained a network on digits")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the images (default: data)")
    parser.add_argument("--networks", type=Path, default=Path("data/networks"), help="folder of the weights")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--out", type=Path, default=RESULTS / "export.jsonl")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    options.out.parent.mkdir(exist_ok=True)
    lines = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    rows = []
    for name in options.names:
        ann, calibration, images, labels = networks(name, options)
        snn = transpike.convert(ann, calibration, scheme=CODES[name])
        print(name, chip(snn, images[:3]), flush=True)
        for part in options.parts:
            found = [line for line in lines if line["network"] == name and line["part"] == part]
            for start in range(0, len(images), BATCH):
                if any(line["start"] == start for line in found):
                    continue
                began = time.perf_counter()
                line = PARTS[part](snn, images[start : start + BATCH], labels[start : start + BATCH])
                line |= {"seconds": time.perf_counter() - began, "start": start, "network": name, "part": part}
                found.append(line)
                lines.append(line)
                with options.out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
            near = [d for one in lines if (one["network"], one["part"]) == (name, "runner") for d in one["nearest"]]
            rows.append(joined(name, part, found, near))
            print(rows[-1], flush=True)
    show("Outside the framework", list(rows[0]), [[f"{value:.4g}" if isinstance(value, float) else str(value)
         for value in row.values()] for row in rows])  # fmt: skip
    print(save("export", rows))


def networks(name: str, options: argparse.Namespace) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A network, calibration images, test images and their labels."""
    if name == "digits":
        ann = transpike.create_model(options.digits).eval()
        sets = transpike.load_images("digits", loading=Loading(seed=0))
        pixels, labels = (torch.cat(parts) for parts in zip(*sets.test, strict=True))
        calibration = torch.cat([images for images, _ in sets.calibration(512)])
        return ann, calibration, pixels[: options.images], labels[: options.images]
    trained = load_trained(name, data=options.data, networks=options.networks, images=options.images)
    return trained.ann, trained.calibration, *trained.test


def compared(found: np.ndarray[Any, Any], snn: SpikingNetwork, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """Outputs beside the simulation's: of each image the largest difference, relative to its largest output."""
    expected = snn(images).numpy()
    best, largest = np.sort(expected, 1)[:, -2:], np.abs(expected).max(1)
    others = found.argmax(1) != expected.argmax(1)
    return {
        "margins": [[int(k), float((best[k, 1] - best[k, 0]) / largest[k])] for k in np.flatnonzero(others)],
        "errors": (np.abs(found - expected).max(1) / np.abs(expected).max(1)).tolist(),
        "same": int((found.argmax(1) == expected.argmax(1)).sum()),
        "equal": int((found == expected).all(1).sum()),
        "right": int((found.argmax(1) == labels.numpy()).sum()),
        "count": len(images),
    }


def runner(snn: SpikingNetwork, images: Tensor, labels: Tensor) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        snn.save(folder)
        found = export.run(folder, images)
    assert (found.latency, found.interval) == (snn.latency, snn.interval)
    return compared(found.outputs, snn, images, labels) | {
        "close": found.close.tolist(), "nearest": found.nearest.tolist(),
        "events": sum(found.events.values()), "queued": found.queued,
        "synaptic": found.synaptic_updates, "neuronal": found.neuron_updates,
    }  # fmt: skip


def turned(snn: SpikingNetwork, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """The runner again: of each image the first digits that are others, and how far they were from their thresholds.

    Distances are in units of theta; ``levels`` says how large the neurons' values were then, of which float32 keeps
    24 bits.
    """
    seen: dict[tuple[str, int], tuple[Any, Any]] = {}
    call = Neurons.__call__

    def watched(self: Any, step: int, currents: Any) -> Any:
        found = call(self, step, currents)
        seen[self.node.name, step - self.node.wait] = found[1], np.abs(self._held[0])
        return found

    lines, outputs = [], []
    with tempfile.TemporaryDirectory() as folder, patch.object(Neurons, "__call__", watched):
        snn.save(folder)
        for image in images:
            found, trace = export.run(folder, image[None], record=True), snn.trace(image[None])
            outputs.append(found.outputs)
            first = []
            for number, name in enumerate(found.layers):
                rows, spikes = (
                    found.spikes[found.spikes["layer"] == number],
                    trace[name].spikes[:, 0].flatten(1).numpy(),
                )
                mine = np.zeros(spikes.shape)
                mine[rows["step"] - snn.timing.first_spike[name], rows["neuron"]] = rows["digit"]
                if name in snn.neurons and (mine != spikes).any():
                    step = int(np.flatnonzero((mine != spikes).any(1))[0])
                    first.append((snn.timing.first_spike[name] + step, number, name, step, mine[step] != spikes[step]))
            if not first:
                lines.append({})
                continue
            _, _, name, step, others = min(first, key=lambda one: one[:2])
            distance, held = (x.ravel()[others] if x.size == others.size else x for x in seen[name, step])
            scale = snn.scheme.beta ** snn.timing.waits[name]
            lines.append({"layer": name, "distance": float(distance.max()), "value": float(held.max()) / scale})
    return compared(np.concatenate(outputs), snn, images, labels) | {"turned": lines}


_SESSIONS: dict[int, tuple[Any, Any]] = {}


def in_onnxruntime(snn: SpikingNetwork, images: Tensor, labels: Tensor) -> dict[str, Any]:
    import onnxruntime

    if id(snn) not in _SESSIONS:
        folder = export.onnx(snn, tempfile.mkdtemp())
        threads = onnxruntime.SessionOptions()
        threads.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(folder / "step.onnx", threads)
        _SESSIONS[id(snn)] = json.loads((folder / "schedule.json").read_text()), session
    plan, session = _SESSIONS[id(snn)]
    state = {s["name"]: np.zeros([len(images), *s["shape"]], plan["type"]) for s in plan["states"]}
    for step in range(plan["latency"]):
        control = np.array(plan["schedule"][step % plan["interval"]], plan["type"])
        found = session.run(None, {"image": images.numpy(), "control": control, **state})
        state = dict(zip(state, found[len(plan["outputs"]) :], strict=True))
    return compared(found[0], snn, images, labels)


_WHOLE: dict[tuple[int, int], SpikingNetwork] = {}


def whole(snn: SpikingNetwork, bits: int) -> SpikingNetwork:
    """The network with weights of so many bits, made once."""
    if (id(snn), bits) not in _WHOLE:
        _WHOLE[id(snn), bits] = snn.quantise(bits)
    return _WHOLE[id(snn), bits]


def rounded(bits: int) -> Callable[[SpikingNetwork, Tensor, Tensor], dict[str, Any]]:
    """PyTorch with rounded weights, beside PyTorch without."""
    return lambda snn, images, labels: compared(whole(snn, bits)(images).numpy(), snn, images, labels)


PARTS: dict[str, Callable[[SpikingNetwork, Tensor, Tensor], dict[str, Any]]] = {
    "runner": runner,
    "turned": turned,
    "onnxruntime": in_onnxruntime,
    "8 bits": rounded(8),
    "6 bits": rounded(6),
    "4 bits": rounded(4),
    "runner, 8 bits": lambda snn, images, labels: runner(whole(snn, 8), images, labels),
    "onnxruntime, 8 bits": lambda snn, images, labels: in_onnxruntime(whole(snn, 8), images, labels),
}


def chip(snn: SpikingNetwork, images: Tensor) -> dict[str, Any]:
    """What the network takes on a chip of cores of 1,024 neurons and 128 kB, with weights of 8 bits."""
    rows = export.footprint(whole(snn, 8), export.Core(neurons=1024, memory=128 * 1024)).rows
    with tempfile.TemporaryDirectory() as folder:
        whole(snn, 8).save(folder)
        spikes = export.run(folder, images, record=True).spikes
    found = {key: sum(getattr(row, key) for row in rows) for key in ("neurons", "weights", "bytes", "cores")}
    found |= {key: max(getattr(row, key) for row in rows) for key in ("fan_in", "fan_out", "state_bits")}
    return found | {"layers": len(rows), "busiest step": int(np.unique(spikes["step"], return_counts=True)[1].max())}


def joined(name: str, part: str, lines: list[dict[str, Any]], near: list[float]) -> dict[str, Any]:
    """All lines of a part in one row; ``near`` is how near a threshold the runner came with each image."""
    total = {key: sum(line[key] for line in lines) for key in ("count", "same", "equal", "right", "seconds")}
    errors = np.concatenate([line["errors"] for line in lines])
    row: dict[str, Any] = {"network": name, "part": part, "images": total["count"], "same": total["same"]}
    row |= {"near": int((errors < NEAR).sum()), "equal": total["equal"], "right": total["right"]}
    if margins := [[line["start"] + k, margin] for line in lines for k, margin in line.get("margins", [])]:
        row["others, and their margins"] = margins
    row |= {"median": float(np.median(errors)), "largest": float(errors.max()), "seconds": total["seconds"]}
    if len(near) == len(errors) and "bits" not in part:
        row["unexplained"] = int(((errors >= NEAR) & (np.array(near) >= export.CLOSE)).sum())
    if "close" in lines[0]:
        row["without close"] = int((np.concatenate([line["close"] for line in lines]) == 0).sum())
        row |= {key: sum(line[key] for line in lines) / total["count"] for key in ("events", "synaptic", "neuronal")}
        row["queued"] = max(line["queued"] for line in lines)
    if "turned" in lines[0]:
        first = [one for line in lines for one in line["turned"]]
        row["other spikes"] = sum(map(bool, first))
        row["farthest"] = max((one["distance"] for one in first if one), default=0.0)
        row["of values to"] = max((one["value"] for one in first if one), default=0.0)
    return row


if __name__ == "__main__":
    main()
