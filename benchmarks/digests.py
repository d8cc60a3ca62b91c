"""Digests of a fixed conversion, training, distillation and hybrid run on digits: equal before and after a change that
should change no number.

    python benchmarks/digests.py --out before.json      # two minutes; then change the code
    python benchmarks/digests.py --against before.json  # prints what differs, and exits with 1 if anything does

Equal numbers are promised on one machine with one version of PyTorch; time measurements are left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

import transpike

FIGURES = ("accuracy", "loss_pp", "agreement", "logit_error", "spikes_per_neuron", "synops", "energy_uj", "latency")
RUNS = {
    "train": ["--model", "resnet20", "--epochs", "3"],
    "distill": ["--student", "sew_resnet19", "--network", '{"width": 4}', "--steps", "2", "--epochs", "2"],
    "hybrid": ["--steps", "4", "--pretraining.epochs", "2", "--epochs", "2"],
}
SCHEMES = {
    "ternary": transpike.CSS(silent=2, amplitude="layer"),
    "levels": transpike.CSS(steps=6, silent=0, levels=(1, 2, 4, 8), amplitude="layer"),
    "paper": transpike.CSS(steps=8, beta=1.5, silent=1, adjustments=1, amplitude="layer"),
    "unsigned": transpike.CSS(signed=False, silent=1, amplitude="layer"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--out", type=Path, help="write the digests to this JSON file")
    parser.add_argument("--against", type=Path, help="compare with the digests of this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        digests = digests_of_runs(Path(folder)) | digests_of_operations()
    print(json.dumps(digests, indent=1))
    if options.out:
        options.out.write_text(json.dumps(digests, indent=1) + "\n")
    if options.against:
        before = json.loads(options.against.read_text())
        changed = [name for name in before if digests.get(name) != before[name]]
        print("\n".join(f"differs: {name}" for name in changed) or f"all {len(before)} digests are equal")
        return int(bool(changed))
    return 0


def digests_of_runs(folder: Path) -> dict[str, str]:
    """Weights of a training, a distillation and a hybrid run, and the conversion of the trained network."""
    digests = {}
    for verb, options in RUNS.items():
        teacher = ["--teacher", str(folder / "train")] if verb == "distill" else []
        run("transpike", verb, *teacher, *options, "--out", str(folder / verb))
        weights = load_file(folder / verb / "weights.safetensors")
        digests[f"{verb} weights"] = digest(*(weights[name] for name in sorted(weights)))
        results = json.loads((folder / verb / "results.json").read_text())
        digests[f"{verb} figures"] = digest(results["accuracy"], results.get("by_steps"))
    trained = folder / "train"
    sets = transpike.load_images("digits", loading=transpike.Loading(validation=0, workers=0))
    ann = transpike.create_model(trained).eval()
    images = torch.cat([batch[0] for batch in sets.calibration(128)])
    for name, scheme in SCHEMES.items():
        digests |= {
            f"convert {name} {key}": text for key, text in converted(ann, images, scheme, folder / name).items()
        }
    run("transpike", "convert", str(trained), "--steps", "4,8", "--out", str(folder / "sweep"))
    results = json.loads((folder / "sweep" / "results.json").read_text())
    rows = [[row[key] for key in FIGURES] for row in results["rows"]]
    layers = [
        [layer["error"], layer["clipped"], layer["energy_uj"]] for row in results["rows"] for layer in row["layers"]
    ]
    digests["sweep rows"] = digest(rows)
    digests["sweep layers"] = digest(layers)
    return digests


def digests_of_operations() -> dict[str, str]:
    """A random network of pooling, clips, slopes, skips, concatenation and functions of the output."""
    torch.manual_seed(0)
    ann = Mixed().eval()
    images = torch.rand(48, 3, 16, 16)
    digests = {}
    for amplitude in ("layer", "channel"):
        with tempfile.TemporaryDirectory() as folder:
            scheme = transpike.CSS(steps=8, silent=1, amplitude=amplitude)
            found = converted(ann, images, scheme, Path(folder) / "mixed")
        digests |= {f"mixed {amplitude} {key}": text for key, text in found.items()}
    return digests


class Mixed(torch.nn.Module):
    """One of each kind of operation that a converted network may hold."""

    def __init__(self) -> None:
        super().__init__()
        conv = torch.nn.Conv2d
        self.stem, self.norm = conv(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8)
        self.a, self.b, self.c = conv(8, 8, 3, padding=1), conv(8, 8, 1), conv(8, 8, 3, padding=1, groups=8)
        self.prelu, self.head = torch.nn.PReLU(8), torch.nn.Linear(48, 5)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        f = torch.nn.functional
        x = f.max_pool2d(self.norm(self.stem(x)).relu(), 2)
        y = f.relu6(self.a(x)) + x
        z = f.leaky_relu(self.b(y), 0.1)
        w = f.max_pool2d(self.prelu(self.c(self.b(z))), 2)
        y = f.avg_pool2d(f.hardtanh(y, -0.5, 0.5), 2)
        x = torch.cat([w, 0.5 * y, y - w], 1)
        pooled = f.adaptive_avg_pool2d(f.interpolate(x, scale_factor=2, mode="bilinear"), 1).flatten(1)
        pooled = torch.cat([pooled, x.amax((2, 3))], 1)
        logits = self.head(pooled)
        return {"logits": logits, "chances": logits.softmax(1)}


def converted(ann: torch.nn.Module, images: torch.Tensor, scheme: transpike.CSS, folder: Path) -> dict[str, str]:
    """Outputs, spikes and amplitudes, and the outputs after save and load."""
    snn = transpike.convert(ann, images, scheme=scheme)
    traced = snn.trace(images[:8])
    outputs = torch.utils._pytree.tree_leaves(snn(images[:32]))
    snn.save(folder)
    again = torch.utils._pytree.tree_leaves(transpike.load(folder)(images[:32]))
    assert all(torch.equal(one, other) for one, other in zip(outputs, again, strict=True))
    return {
        "outputs": digest(*outputs),
        "analog": digest(*torch.utils._pytree.tree_leaves(snn.analog(images[:32]))),
        "spikes": digest(*(layer.spikes for layer in traced.values())),
        "residuals": digest(*(layer.residual for layer in traced.values() if layer.residual is not None)),
        "amplitudes": digest(*(layer.amplitude for layer in traced.values()), snn.latency, snn.interval),
    }


def digest(*values: object) -> str:
    found = hashlib.sha256()
    for value in values:
        if isinstance(value, torch.Tensor):
            found.update(value.detach().contiguous().float().numpy().tobytes())
        else:
            found.update(json.dumps(value).encode())
    return found.hexdigest()[:16]


def run(*command: str) -> None:
    module = [sys.executable, "-m", *command]
    subprocess.run(module, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
