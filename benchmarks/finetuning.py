"""Silent steps that fine-tuning removes from trained CIFAR-10 networks at equal accuracy.

    python benchmarks/finetuning.py resnet20 --data data --networks networks
    python benchmarks/finetuning.py mobilenetv3 --data data --networks networks --levels 1 2 4 8 --tolerance 0.2

The networks were trained on all training images, so that these cannot judge: half of the test images do (--judged of
them), and --tested of the other half test. Writes a run's folder for each network, --out/NAME.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from torch.utils.data import DataLoader, Subset
from trained_networks import NETWORKS

import transpike
from transpike.data import Loading, load_images
from transpike.report import write_report
from transpike.report.terminal import finetuning_table
from transpike.train import Loaders, Machine
from transpike.train.finetune import TUNING, Silencing, finetune
from transpike.train.options import Optim


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["resnet20", "mobilenetv3"], help="which networks")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with cifar-10-batches-py/")
    parser.add_argument("--networks", type=Path, required=True, help="folder with the weights")
    parser.add_argument("--steps", type=int, default=8, help="T")
    parser.add_argument("--levels", type=int, nargs="+", default=[1])
    parser.add_argument("--train-images", type=int, default=4000)
    parser.add_argument("--judged", type=int, default=500)
    parser.add_argument("--tested", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--silent", type=int, default=0)
    parser.add_argument("--penalty", type=float, default=Silencing.penalty)
    parser.add_argument("--tolerance", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/finetuning"))
    args = parser.parse_args()
    loading = Loading(batch_size=args.batch, validation=0.0, train_images=args.train_images, seed=args.seed)
    sets = load_images("cifar10", root=args.data, loading=loading)
    order = torch.randperm(len(sets.test.dataset), generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    half = len(order) // 2
    judging, testing = order[:half][: args.judged], order[half:][: args.tested]
    held, tests = (_loader(sets.test, part.tolist()) for part in (judging, testing))
    silencing = Silencing(args.silent, args.penalty, args.tolerance, args.judged)
    optim = Optim(name="adamw", lr=args.lr, weight_decay=0.0, warmup=0.2)
    options = replace(TUNING, epochs=args.epochs, seed=args.seed, optim=optim, machine=Machine(accelerator="cpu"))
    for name in args.names:
        began, ann = time.perf_counter(), NETWORKS[name](args.networks / f"{name}.safetensors", sets).eval()
        scheme = transpike.CSS(steps=args.steps, levels=args.levels)
        snn = transpike.convert(ann, sets.calibration(512), scheme=scheme)
        print(f"{name}: latency {snn.latency}, waits {snn.timing.waits}", flush=True)
        loaders = Loaders(sets.train, held, tests)
        tuned = finetune(snn, loaders, options, folder=args.out / name, silencing=silencing)
        Console(width=110).print(finetuning_table(tuned.results(name, "cifar10")))
        before, after = tuned.record.before, tuned.record.after
        print(f"same predictions {before.agreement:.2%} before, {after.agreement:.2%} after; ", end="")
        print(f"{time.perf_counter() - began:.0f} s, processor {time.process_time():.0f} s", flush=True)
        write_report([args.out / name], args.out / name / "report.html")


def _loader(loader: DataLoader[object], places: list[int]) -> DataLoader[object]:
    return DataLoader(Subset(loader.dataset, places), batch_size=100, collate_fn=loader.collate_fn)


if __name__ == "__main__":
    main()
