"""``transpike demo``: the whole way on scikit-learn's digits, in under three minutes on two cores."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from transpike.coding.css import CSS
from transpike.experiments.convert import sweep
from transpike.experiments.distill import distill
from transpike.experiments.runs import start_run, write_json
from transpike.experiments.source import load_inputs
from transpike.experiments.train import train

__all__ = ["demo"]

STEPS = (4, 6, 8, 10, 12)


def demo(
    epochs: int = 20, student_epochs: int = 10, seed: int = 0, out: Path | None = None, json: Path | None = None
) -> None:
    """Train a ResNet-20 on scikit-learn's digits, convert it, train a spiking student by it, and report.

    Two codes are compared at several numbers of steps: ternary spikes with a silent period, and multi-level spikes
    (1, 2, 4, 8) without one, whose latency is T alone. The student, a narrow SEW-ResNet-19 at T = 4, learns from the
    labels and the ResNet-20 by bi-spectrum distillation. Nothing is downloaded.

    Args:
        epochs: Passes of the ResNet-20 over the 1,293 training images.
        student_epochs: Passes of the student over them.
        seed: Of the first weights and the order of images.
        out: The folder for results; by default a new one under runs/.
        json: Write results.json here too.

    Raises:
        TranspikeError: The folder cannot be written.
    """
    from transpike.data import Loading

    ternary, levels = CSS(), CSS(silent=0, levels=(1, 2, 4, 8))
    schemes = [replace(scheme, steps=steps) for scheme in (ternary, levels) for steps in STEPS]
    asked = {
        "model": "resnet20",
        "data": "digits",
        "loading": asdict(Loading(seed=seed)),
        "epochs": epochs,
        "student_epochs": student_epochs,
        "seed": seed,
    }
    with start_run("demo", asked, out=out) as run:
        trained = run.folder / "ann"
        train("resnet20", "digits", epochs=epochs, seed=seed, out=trained)
        ann, sets = load_inputs(str(trained), data=None, root=Path("data"), download=False, loading=Loading(seed=seed))
        student = run.folder / "student"
        distill(
            str(trained), "sew_resnet19", "digits", network={"width": 8}, steps=4, loading=Loading(batch_size=32),
            epochs=student_epochs, seed=seed, out=student,
        )  # fmt: skip
        title = {"model": "resnet20", "dataset": "digits"}
        results = sweep(ann, sets, schemes, run=run, calibration=512, title=title, beside=[student])
    if json is not None:
        write_json(json, results)
