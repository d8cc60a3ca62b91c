"""Answers as soon as they are sure: is the guarantee kept, and what do they save?

    python benchmarks/anytime.py --data data --networks data/networks
    python benchmarks/anytime.py --data data --networks data/networks resnet20 --more 2488 --rate 64

The folder of --networks holds the CIFAR-10 weights that `trained_networks.py` names. Amplitudes come from 512 training
images, thresholds from 512 test images, figures from 1,000 others. "splits" are 100 random splits of all test images
seen into 512 to calibrate and the rest to measure. Writes benchmarks/results/anytime.json.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from trained_networks import load

import transpike
from transpike.coding import CSS, Rate
from transpike.conversion import SpikingNetwork
from transpike.conversion.anytime import Answer, left, trajectories
from transpike.conversion.stopping import learned, other_prediction
from transpike.files import json_kind, write_json
from transpike.measure.anytime import energies, fixed, stopped
from transpike.results import Early

AGREEMENTS = (0.99, 0.995)
CALIBRATION = 512
SCORES = ("bound", "margin", "entropy")
SPLITS = 100
FIGURES = json_kind("figures of this benchmark", rows=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["resnet20", "mobilenetv3", "vit"])
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with cifar-10-batches-py/")
    parser.add_argument("--networks", type=Path, required=True, help="folder with the weights")
    parser.add_argument("--images", type=int, default=1000, help="test images that are answered (default: 1000)")
    parser.add_argument("--more", type=int, default=488, help="further test images for the splits (default: 488)")
    parser.add_argument("--energy", type=int, default=100, help="images whose energy is counted (default: 100)")
    parser.add_argument("--timed", type=int, default=400, help="images that are timed (default: 400)")
    parser.add_argument("--rate", type=int, help="also a rate code of so many steps, with the same rule")
    parser.add_argument("--keep", type=Path, help="folder to keep converted networks in, and to take them from")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/anytime.json"))
    args = parser.parse_args()
    rows: list[dict[str, object]] = []
    schemes = [CSS(steps=8, levels=(1, 2, 4, 8)), *([Rate(steps=args.rate)] if args.rate else [])]
    for name in args.names:
        seen = args.images + CALIBRATION + args.more
        trained = load(name, data=args.data, networks=args.networks, images=seen)
        for scheme in schemes:
            kept = args.keep and args.keep / (name if isinstance(scheme, CSS) else f"{name}-{scheme.label}")
            if kept and kept.exists():
                snn = transpike.load(kept)
            else:
                snn = transpike.convert(trained.ann, trained.calibration, scheme=scheme)
                if kept:
                    snn.save(kept)
            rows.append({"network": name, "scheme": scheme.label, "steps": snn.steps, "latency": snn.latency})
            rows[-1] |= figures(snn, *trained.test, images=args.images, counted=args.energy, timed=args.timed)
            write_json(args.out, {"rows": rows}, kind=FIGURES)
            show(rows[-1])


def figures(
    snn: SpikingNetwork, x: Tensor, labels: Tensor, *, images: int, counted: int, timed: int
) -> dict[str, object]:
    """The splits over all images; the first ``images`` answered by a rule from the next 512."""
    outputs, share = trajectories(snn, x), left(snn)
    energy = energies(snn, x[:counted])
    chosen, said, labels = outputs[:, images : images + CALIBRATION], outputs[:, :images], labels[:images]
    snn.stop = rule = learned(chosen, share, score="bound", changed=other_prediction)
    early = []
    for agreement in AGREEMENTS:
        steps = rule.stops(said, share, agreement=agreement)
        answer = Answer(said[steps - 1, torch.arange(images)], steps, steps, steps)
        early.append(stopped(snn, answer, said[-1], agreement=agreement, labels=labels, energy=energy))
    by_class = [float(steps[labels == k].float().mean()) for k in range(10)]
    hardest = steps.argsort(descending=True)[:10].tolist()
    early += fixed(snn, said, labels=labels, energy=energy)
    clocks = [clock(snn, x[:timed]) for _ in range(3)]
    # What runs piece by piece and leaves the batch is what the whole of the outputs says.
    assert torch.equal(snn.until(x[:timed], agreement=AGREEMENTS[-1]).steps, steps[:timed])
    splits = [split(outputs, share, score, agreement) for score in SCORES for agreement in AGREEMENTS]
    found = {"early": [asdict(one) for one in early], "seconds": clocks, "timed": timed, "splits": splits}
    return found | {"steps_by_class": by_class, "hardest": hardest}


def clock(snn: SpikingNetwork, x: Tensor) -> dict[str, list[float]]:
    """Seconds by the clock and of the processor, of a full run and of one that stops."""
    found = {}
    snn(x[:32])
    for name, run in (("full", snn), ("until", partial(snn.until, agreement=AGREEMENTS[-1]))):
        before = (time.perf_counter(), time.process_time())
        run(x)
        found[name] = [time.perf_counter() - before[0], time.process_time() - before[1]]
    return found


def split(outputs: Tensor, share: tuple[float, ...], score: str, agreement: float) -> dict[str, object]:
    """Means over random splits, and the standard deviation over them."""
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(SPLITS):
        order = torch.randperm(outputs.shape[1], generator=generator)
        chosen, rest = outputs[:, order[:CALIBRATION]], outputs[:, order[CALIBRATION:]]
        rule = learned(chosen, share, score=score, changed=other_prediction)
        steps = rule.stops(rest, share, agreement=agreement)
        answers = rest[steps - 1, torch.arange(len(steps))]
        found.append([float(other_prediction(answers, rest[-1]).mean()), float(steps.float().mean())])
    means, spread = torch.tensor(found).mean(0).tolist(), torch.tensor(found).std(0).tolist()
    keys = ("changed", "steps", "changed_deviation", "steps_deviation")
    return {"score": score, "agreement": agreement, **dict(zip(keys, (*means, *spread), strict=True))}


def show(row: dict[str, object]) -> None:
    """The figures of one network as tables."""
    console = Console()
    table = Table(title=f"{row['network']}, {row['scheme']}, T = {row['steps']}, latency {row['latency']}")
    for heading in ("agreement", "changed %", "accuracy %", "steps", "latency", "µJ", "stopped after each step"):
        table.add_column(heading)
    for one in (Early(**fields) for fields in row["early"]):  # type: ignore[attr-defined]
        energy, accuracy = f"{one.energy_uj:.1f}", f"{100 * (one.accuracy or 0):.1f}"
        changed = f"{100 * one.changed:.2f} ± {100 * one.changed_error:.2f}"
        asked = "" if one.agreement is None else f"{one.agreement:g}"
        where = " ".join(map(str, one.stopped)) if one.agreement else "all at one"
        table.add_row(asked, changed, accuracy, f"{one.steps:.2f}", f"{one.latency:.2f}", energy, where)
    console.print(table)
    for seconds in row["seconds"]:  # type: ignore[attr-defined]
        (wall, cpu), (early_wall, early_cpu) = seconds["full"], seconds["until"]
        ratios = f"{wall / early_wall:.2f} x by the clock, {cpu / early_cpu:.2f} x of the processor's time"
        console.print(f"{row['timed']} images: full {cpu:.2f} s, until {early_cpu:.2f} s of the processor; {ratios}")
    hardest = ", ".join(map(str, row["hardest"]))  # type: ignore[call-overload]
    console.print(f"mean steps by class: {' '.join(f'{one:.2f}' for one in row['steps_by_class'])}; hardest {hardest}")  # type: ignore[attr-defined]
    for one in row["splits"]:  # type: ignore[attr-defined]
        changed = f"{100 * one['changed']:.3f} ± {100 * one['changed_deviation']:.3f} % changed"
        console.print(f"{SPLITS} splits, {one['score']}, {one['agreement']:g}: {changed}, {one['steps']:.2f} steps")


if __name__ == "__main__":
    main()
