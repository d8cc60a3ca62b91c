"""Which beta, and how many silent steps for all? Same predictions and logit error over several networks and steps.

    python benchmarks/defaults.py --cifar10 data --weights resnet20-cifar10.pt

The evidence behind CSS's beta; one silence and one amplitude a layer, as in the paper. Networks without trained
weights have random ones and the true BatchNorm statistics of their inputs: harder, since nothing hides an error. What
is not given is left out. Writes benchmarks/results/defaults.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

import transpike
from transpike.conversion import Prepared, prepare
from transpike.data import Loading
from transpike.files import json_kind, write_json
from transpike.metrics.fidelity import agreement, logit_error

BETAS, SILENT, STEPS = (1.5, 1.8, 2.0), (1, 2, 3), (4, 6, 8, 12, 16)
FIGURES = json_kind("figures of this benchmark", rows=list)


def random_network(name: str, images: Tensor, *, seed: int = 0) -> nn.Module:
    """A network with random weights whose BatchNorm statistics are those of ``images``."""
    torch.manual_seed(seed)
    model = transpike.create_model(name, num_classes=1000)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None
            module.reset_running_stats()
    for module in model.train().modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    with torch.no_grad():
        model(images)
    return model.eval()


def networks(args: argparse.Namespace) -> dict[str, tuple[Prepared, Tensor]]:
    """What there is to convert, calibrated, and the images to measure on."""
    found: dict[str, tuple[Prepared, Tensor]] = {}
    torch.manual_seed(0)
    noise = torch.randn(32, 3, 48, 48)
    for name in ("torchvision/resnet18", "torchvision/mobilenet_v2"):
        found[name + ", random"] = prepare(random_network(name, noise), noise), noise
    if args.cifar10:
        sets = transpike.load_images("cifar10", root=args.cifar10, loading=Loading(test_images=args.images))
        ann = transpike.create_model("resnet20", weights=args.weights)
        found["resnet20, CIFAR-10"] = prepare(ann, sets.calibration()), torch.cat([x for x, _ in sets.test])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", type=Path, help="folder with cifar-10-batches-py/")
    parser.add_argument("--weights", type=Path, help="weights of a CIFAR-10 ResNet-20")
    parser.add_argument("--images", type=int, default=300, help="test images of CIFAR-10")
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/defaults.json"))
    args = parser.parse_args()
    rows = []
    for network, (prepared, images) in networks(args).items():
        table = Table(title=f"{network}: same predictions %, logit error %")
        table.add_column("beta, Ts")
        for steps in args.steps:
            table.add_column(f"T = {steps}", justify="right")
        logits = None
        for beta in track(BETAS, description=network, console=Console(stderr=True), transient=True):
            for silent in SILENT:
                cells = []
                for steps in args.steps:
                    snn = prepared.convert(transpike.CSS(steps=steps, beta=beta, silent=silent, amplitude="layer"))
                    logits = snn.analog(images) if logits is None else logits
                    out = snn(images)
                    same, error = agreement(out, logits), logit_error(out, logits)
                    row = {"network": network, "beta": beta, "silent": silent, "steps": steps}
                    rows.append(row | {"same": same, "error": error})
                    cells.append(f"{100 * same:.1f}  {100 * error:.2g}")
                table.add_row(f"{beta:g}, {silent}", *cells)
                write_json(args.out, {"images": args.images, "rows": rows}, kind=FIGURES)
        Console().print(table)


if __name__ == "__main__":
    main()
