"""``transpike demo``: the whole method on scikit-learn's digits, in under three minutes on two cores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transpike.checks import whole
from transpike.coding import create_scheme
from transpike.data import Loading
from transpike.experiments.convert import load_inputs, run_sweep
from transpike.experiments.distill import Distill, distill
from transpike.experiments.options import Paths, record
from transpike.experiments.source import Data, Source
from transpike.experiments.train import Train, train
from transpike.results import Conversion, copy_results, start_run
from transpike.train.options import checked_seed

__all__ = ["Demo", "demo"]

STEPS = (4, 6, 8, 10, 12)
SETTINGS: tuple[dict[str, object], ...] = ({}, {"levels": (1, 2, 4, 8)})


@dataclass(frozen=True)
class Demo(Paths):
    """Train a ResNet-20 on scikit-learn's digits, convert it, train a spiking student with it, and write a report.

    The demo compares two codes at several numbers of steps: ternary spikes with silent steps, and multi-level spikes
    (1, 2, 4, 8) without silent steps, whose latency is only T. The student is a narrow SEW-ResNet-19 with T = 4. It
    learns from the labels and from the ResNet-20, by bi-spectrum distillation. The demo downloads nothing.

    Attributes:
        epochs: Passes of the ResNet-20 over the 1,293 training images.
        student_epochs: Passes of the student over these images.
        seed: Seed of the initial weights and of the order of the images.
        out: The folder for results. The default is a new folder under runs/.
        json: Write a copy of results.json to this path.
    """

    epochs: int = 20
    student_epochs: int = 10
    seed: int = 0
    out: Path | None = None
    json: Path | None = None


def demo(options: Demo) -> Conversion:
    """Run the demo, and write its folder.

    Returns:
        The content of results.json for the conversions.

    Raises:
        TranspikeError: An option is out of range, or the folder cannot be written.
    """
    from transpike.measure.sweep import Sweep

    for name, value in (("epochs", options.epochs), ("student_epochs", options.student_epochs)):
        whole(name, value)
    checked_seed(options.seed)
    schemes = [create_scheme("css", {**settings, "steps": steps}) for settings in SETTINGS for steps in STEPS]
    loading = Loading(seed=options.seed)
    begun = {"model": "resnet20", "data": "digits", "loading": loading, **record(options)}
    with start_run("demo", begun, out=options.out) as run:
        ann, student = run.folder / "ann", run.folder / "student"
        train(Train("resnet20", "digits", epochs=options.epochs, seed=options.seed, out=ann))
        trained, sets = load_inputs(Source(str(ann)), Data(None, Path("data"), loading=loading))
        distill(
            Distill(
                str(ann), "sew_resnet19", "digits", network={"width": 8}, steps=4, loading=Loading(batch_size=32),
                epochs=options.student_epochs, seed=options.seed, out=student,
            )
        )  # fmt: skip
        results = run_sweep(Sweep("resnet20", trained, sets, schemes), run, beside=[student])
    copy_results(results, options.json)
    return results
