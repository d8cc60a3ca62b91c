"""What the residual of trained SRD methods takes over, by tap: of every run in a folder.

    python benchmarks/srd_residual.py runs/bsd-controls
    python benchmarks/srd_residual.py runs/bsd-controls --images 500

The share is 1 - |F + R - F_t|^2 / |F - F_t|^2 on test images, F the student's projected maps, R the residual and F_t
the teacher's maps: 0 where the student makes its maps alone, 1 where the residual does. W2, which multiplies in the
residual, is given as the mean of its magnitude over frequencies (or places); high / low is that above 1/4 cycle per
pixel by that below. Rows are means and sample deviations over the runs of a label.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev

import torch

from transpike.distill.bsd import SpectralResidualDistillation
from transpike.experiments.source import Data, Source, load_data, load_subject, recorded_teacher
from transpike.measure.looking import filters
from transpike.measure.pictures import chosen_loader
from transpike.measure.subjects import find_stages
from transpike.results import Training, read_result


def measured(folder: Path, images: int) -> Iterator[tuple[str, float, float, float | None]]:
    """By tap: its name and grid, the share, mean |W2|, high / low."""
    source, teaching = Source(str(folder)), recorded_teacher(str(folder))
    assert teaching is not None
    sets = load_data([source, teaching], Data(None), own_teacher=teaching)
    student, teacher = (load_subject(one, sets, label=one.model, device="cpu") for one in (source, teaching))
    loader = chosen_loader(sets, "test", images)
    find_stages(student, teacher, next(iter(loader))[0][:2], taps=None)
    before, after = dict.fromkeys(student.stages, 0.0), dict.fromkeys(student.stages, 0.0)
    own, theirs = student.observer(), teacher.observer()
    with torch.no_grad():
        for batch, _ in loader:
            (_, maps), (_, targets) = own(batch), theirs(batch)
            for stage, srd in student.adapters.items():
                assert isinstance(srd, SpectralResidualDistillation)
                adapted, target = srd.pair(maps[stage.student], targets[stage.teacher])
                plain, _ = srd.adapter(maps[stage.student], targets[stage.teacher], size=stage.size)
                before[stage] += float((plain - target).square().sum())
                after[stage] += float((adapted - target).square().sum())
    for stage, one in zip(student.stages, filters([student]), strict=True):
        weights = torch.tensor(one.weights)
        name = f"{stage.student}, {stage.size[0]} x {stage.size[1]}"
        yield name, 1 - after[stage] / before[stage], float(weights.mean()), one.high_over_low


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with folders of runs")
    parser.add_argument("--images", type=int, default=500, help="of the test set (default: 500)")
    args = parser.parse_args()
    rows = defaultdict[tuple[str, str], list[tuple[float, float, float | None]]](list)
    for folder in sorted(path.parent for path in args.folder.glob("*/results.json")):
        result = read_result(folder)
        learned = result.distillation if isinstance(result, Training) else None
        if learned is None or learned.method not in ("srd", "bsd"):
            continue
        settings = dict(learned.settings)
        label = f"{learned.method}, {settings.get('domain', 'frequency')}, {settings.get('norm', 'ortho')}"
        for tap, share, weight, ratio in measured(folder, args.images):
            rows[label, tap].append((share, weight, ratio))
    print("| method, domain, norm | tap, grid | runs | share of the residual (%) | mean W2 | high / low |")
    print("| --- | --- | --- | --- | --- | --- |")
    for (label, tap), found in rows.items():
        shares, weights, ratios = zip(*found, strict=True)
        known = [ratio for ratio in ratios if ratio is not None]
        high_over_low = f"{mean(known):.2f}" if known else ""
        numbers = f"{spread([100 * one for one in shares])} | {spread(weights)} | {high_over_low}"
        print(f"| {label} | {tap} | {len(found)} | {numbers} |")


def spread(values: Sequence[float]) -> str:
    return f"{mean(values):.3g}" + (f" ± {stdev(values):.2g}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
