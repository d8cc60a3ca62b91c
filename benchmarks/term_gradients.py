"""How strongly each term of each arm of a study pulls at the student: gradients at the first batch, before any step.

    python benchmarks/term_gradients.py studies/sfkd-readings.yaml --root data
    python benchmarks/term_gradients.py studies/sfkd-readings.yaml --root data --seeds 5

An ablation that changes a loss's scale also changes its weight. Two arms whose terms of features have gradients of
equal norm at the student's parameters begin with equal weight: multiply beta by what stands under "beta x".
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from math import sqrt
from pathlib import Path
from statistics import mean
from typing import Any

import lightning as L
import torch

from transpike.experiments.distill import Distill, distill
from transpike.experiments.study_plan import read_plan
from transpike.train.distill import Distiller

TERMS_OF_LOGITS = ("cross_entropy", "regulariser", "kd", "ssd", "anchor")


class Seen(Exception):
    """The first batch was seen; there is nothing to train."""


class Gradients(L.Callback):
    """Norms of every weighted term's gradient at the student's parameters, by the term's name."""

    def __init__(self) -> None:
        self.norms: dict[str, float] = {}

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, index: int) -> None:
        assert isinstance(module, Distiller)
        images, target = module.read(batch)
        terms = module.terms(module.outputs(images), target, images)
        parameters = list(module.model.parameters())
        for name, term in terms.items():
            found = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
            self.norms[name] = sqrt(sum(float(gradient.square().sum()) for gradient in found if gradient is not None))
        raise Seen


def gradients(options: Distill) -> dict[str, float]:
    """Norms by term of a run that ends before its first step."""
    seen = Gradients()
    with tempfile.TemporaryDirectory() as folder:
        try:
            distill(replace(options, out=Path(folder) / "run"), watching=[seen])
        except Seen:
            return seen.norms
    raise AssertionError("a run without a batch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="a file of studies/")
    parser.add_argument("--root", type=Path, help="the folder of the data sets")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="the study's folder, if its runs need others")
    parser.add_argument("--seeds", type=int, default=2, help="so many of the study's (default: 2)")
    args = parser.parse_args()
    plan = read_plan(args.study, root=args.root)
    arms: dict[str, list[dict[str, float]]] = {}
    for cell in plan.cells:
        options = cell.job.settled(args.out) if cell.job else None
        if isinstance(options, Distill) and len(arms.setdefault(cell.arm, [])) < args.seeds:
            arms[cell.arm].append(gradients(options))
    reference = 0.0
    print("| arm | gradient of the labels | of logits' terms | of features | beta x |\n| --- | --- | --- | --- | --- |")
    for arm, norms in arms.items():
        told = {name: mean(one[name] for one in norms) for name in norms[0]}
        own = sum(norm for name, norm in told.items() if name not in TERMS_OF_LOGITS)
        reference = reference or own
        logits = " ".join(f"{name} {told[name]:.3g}" for name in ("kd", "ssd") if name in told)
        ratio = f"{reference / own:.3g}" if own else ""
        print(f"| {arm} | {told['cross_entropy']:.3g} | {logits} | {own:.3g} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
