"""DCT-SNN's MNIST figures: 784-100-10 at T = 16, 5 and 2, each with several seeds.

    python benchmarks/dct_mnist.py --root data --out runs/dct-mnist

Every seed trains one artificial network and tunes a twin of it for each T, after configs/dct/mnist.yaml. What
is finished in the folder is kept and what was broken off continues, so that the command can be given again. The table
has the test accuracy, mean and sample deviation over seeds; the paper's figures are Table 1 of its supplement.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from transpike.cli import main as transpike

PAPER = {16: 98.54, 5: 97.3, 2: 86.7}
CONFIG = Path(__file__).parents[1] / "configs" / "dct" / "mnist.yaml"
ROWS = {16: ["--steps", "16", "--optim.lr", "3e-3"], 5: [], 2: ["--steps", "2", "--epochs", "15"]}


def run(folder: Path, *arguments: str) -> dict[str, Any]:
    """The results of `transpike hybrid` in a folder, which is run, continued or read."""
    if not (folder / "results.json").is_file():
        begun = (folder / "run.json").is_file()
        code = transpike(["hybrid", *(["--resume", str(folder)] if begun else [*arguments, "--out", str(folder)])])
        if code:
            raise SystemExit(code)
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data", help="where MNIST lies")
    parser.add_argument("--out", type=Path, default=Path("runs/dct-mnist"), help="the folder of all runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="further options of transpike hybrid")
    asked = parser.parse_args()
    common = ["--root", asked.root, "--machine.accelerator", "cpu", *asked.more]
    measured: dict[int, list[dict[str, Any]]] = {steps: [] for steps in PAPER}
    for seed in asked.seeds:
        files = {steps: ["--config", str(CONFIG), *ROWS[steps], "--seed", str(seed)] for steps in PAPER}
        ann = asked.out / f"ann-seed{seed}"
        before = run(ann, *files[16], *common, "--last", "ann")
        for steps, config in files.items():
            told = run(asked.out / f"t{steps}-seed{seed}", *config, *common, "--ann", str(ann))
            measured[steps].append(
                {
                    "seed": seed,
                    "accuracy": told["accuracy"],
                    "validation_accuracy": told["validation_accuracy"],
                    "balanced": told["stages"]["balanced"]["accuracy"],
                    "ann": before["accuracy"],
                    "synops": told["spiking"]["synops"],
                    "rate": told["spiking"]["rate"],
                }
            )
    rows = [_row(steps, found) for steps, found in measured.items()]
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "table.json").write_text(json.dumps(rows, indent=2) + "\n")
    table = Table("T", "test accuracy (%)", "seeds", "the paper", "balanced only", "ANN", "firing rate")
    for row in rows:
        each = ", ".join(f"{100 * one['accuracy']:.2f}" for one in row["runs"])
        table.add_row(
            str(row["steps"]),
            f"{row['mean']:.2f} ± {row['deviation']:.2f}",
            each,
            f"{row['paper']:.2f}",
            *(f"{100 * statistics.mean(one[key] for one in row['runs']):.2f}" for key in ("balanced", "ann", "rate")),
        )
    Console().print(table)
    print(f"Written to {asked.out / 'table.json'}")


def _row(steps: int, runs: list[dict[str, Any]]) -> dict[str, Any]:
    accuracies = [100 * one["accuracy"] for one in runs]
    deviation = statistics.stdev(accuracies) if len(runs) > 1 else 0.0
    mean = statistics.mean(accuracies)
    return {"steps": steps, "mean": mean, "deviation": deviation, "paper": PAPER[steps], "runs": runs}


if __name__ == "__main__":
    main()
