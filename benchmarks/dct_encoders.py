"""DCT against five other encoders, and its orders of frequencies against each other, on one small network and CIFAR-10.

    python benchmarks/dct_encoders.py --root data --out runs/dct-encoders

One artificial network of normalised images, for DCT and direct coding, and one of pixels, for the others
(configs/dct/encoders.yaml): a spiking twin begins with its weights, thresholds are set
and the twin is trained for each encoder and each T alone, on a part of the training images. What is finished in the
folder is kept and what was broken off continues, so that the command can be given again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dct_mnist import run
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table

from transpike.coding import ENCODERS

CONFIG = Path(__file__).parents[1] / "configs" / "dct" / "encoders.yaml"
ORDERS: dict[str, dict[str, Any]] = {
    "dct interleaved": {"order": "interleaved"},
    "dct top 8": {"frequencies": 8},
    "dct top 8 interleaved": {"frequencies": 8, "order": "interleaved"},
    "dct intermittent 8": {"order": "intermittent"},
}
# Within one period an interleaved order is the cyclic one.
PLAN = (
    *((name, 16) for name in (*ENCODERS, *list(ORDERS)[1:])),
    *((name, 32) for name in ("dct", "dct interleaved")),
    *((name, steps) for steps in (8, 4) for name in ENCODERS),
)


def main(
    root: Path = Path("data"),
    out: Path = Path("runs/dct-encoders"),
    images: int = 6000,
    ann_images: int = 40000,
    test_images: int = 5000,
    seed: int = 0,
) -> None:
    """Test accuracy of every encoder and T; writes table.json.

    Args:
        root: Where CIFAR-10 lies.
        out: The folder of all runs.
        images: Training images of the spiking networks, validation included.
        ann_images: Those of the artificial one.
        test_images: Test images, the same for all.
        seed: Of all runs.
    """
    common = ["--config", str(CONFIG), "--root", str(root), "--machine.accelerator", "cpu", "--seed", str(seed)]
    common += ["--loading.test_images", str(test_images)]
    anns, rows = {}, []
    for code in ("direct", "phase"):
        asked = ["--encoder", code, "--last", "ann", "--loading.train_images", str(ann_images)]
        anns[code] = run(out / f"ann-{code}", *common, *asked)
    for name, steps in PLAN:
        settings = ORDERS.get(name, {})
        asked = ["--encoder", name.split()[0], "--settings", json.dumps(settings), "--steps", str(steps)]
        ann = out / ("ann-direct" if name.startswith(("dct", "direct")) else "ann-phase")
        asked += ["--test_steps", str(steps), "--ann", str(ann), "--loading.train_images", str(images)]
        told = run(out / f"{name.replace(' ', '-')}-t{steps}", *common, *asked)
        rows.append(
            {
                "encoder": name,
                "steps": steps,
                "accuracy": told["accuracy"],
                "balanced": told["stages"]["balanced"]["accuracy"],
                "rate": told["spiking"]["rate"],
                "synops": told["spiking"]["synops"],
            }
        )
    out.mkdir(parents=True, exist_ok=True)
    accuracies = {code: told["accuracy"] for code, told in anns.items()}
    (out / "table.json").write_text(json.dumps({"ann": accuracies, "runs": rows}, indent=2) + "\n")
    shown = sorted({steps for _, steps in PLAN})
    table = Table("test accuracy (%)", *(f"T = {steps}" for steps in shown), title=f"artificial: {accuracies}")
    for name in dict.fromkeys(name for name, _ in PLAN):
        found = {row["steps"]: f"{100 * row['accuracy']:.2f}" for row in rows if row["encoder"] == name}
        table.add_row(name, *(found.get(steps, "") for steps in shown))
    Console().print(table)
    print(f"Written to {out / 'table.json'}")


if __name__ == "__main__":
    auto_cli(main)
