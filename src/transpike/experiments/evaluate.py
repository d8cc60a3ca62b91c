"""``transpike evaluate``: what a converted or a trained network does on test images."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import KW_ONLY, asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import track

from transpike.checks import whole
from transpike.conversion.stopping import least_images
from transpike.data import Loading, load_images
from transpike.errors import ConfigError
from transpike.experiments.options import Paths, record
from transpike.experiments.places import check_measured
from transpike.experiments.source import Data, Source, load_data, load_subject
from transpike.report.terminal import conversion_table, early_tables
from transpike.results import Conversion, Evaluation, copy_results, start_run
from transpike.train.options import Machine
from transpike.train.processes import checked_device, first_process, join_processes
from transpike.train.recorded import filled_loading, read_options, recorded_loading

__all__ = ["Evaluate", "evaluate"]


@dataclass(frozen=True)
class Evaluate(Paths):
    """Measure a converted network (a folder of `transpike convert`) or a trained one (a run of `transpike train`,
    `distill` or `hybrid`, whose images pass through the run's own encoder).

    For a converted network everything is measured beside the network it was made from: accuracy, same predictions,
    spikes, operations, energy, speed, errors layer by layer. Images come from the data set it was made with, or any
    other.

    Examples:
      transpike evaluate runs/convert-20261121-110000/T8
      transpike evaluate runs/train-20261121-100000
      transpike evaluate runs/convert-20261121-110000/T8 --data folder --root my-images
      transpike evaluate runs/convert-20261121-110000/T8 --agreement 0.995
      torchrun --nproc-per-node 4 --no-python transpike evaluate runs/convert-20261121-110000/T8 --out runs/check

    Attributes:
        network: A folder with network.json, or a training run's folder.
        data: The images; by default those of the run.
        root: Where the data set's files lie; by default as in the run, else data.
        download: Download the data set into root where it is missing.
        loading: Image size, normalisation, batches; by default as in the run. What is left out of size and
            normalisation is as in the run.
        metric: Of a converted network, what to measure its outputs by beside classes: same, iou, boxes, correlation, or
            module:function, a function of your own of outputs and targets that gives a number, or one an image.
        device: Where to compute: cpu, cuda, cuda:1, ...
        agreement: Of a converted network: measure too what it answers if each image stops when its answer is sure, so
            that this share of the answers, such as 0.995, is as after all steps.
        held_out: How many test images, the first ones, set the threshold for that; it is measured on the others. By
            default 512, of fewer than 1,024 images half of them.
        out: The folder for results; by default a new one under runs/.
        json: Write results.json here too.
    """

    network: Path
    data: str | None = None
    _: KW_ONLY
    root: Path | None = None
    download: bool = False
    loading: Loading | None = None
    metric: str | None = None
    device: str = "cpu"
    agreement: float | None = None
    held_out: int | None = None
    out: Path | None = None
    json: Path | None = None


def evaluate(options: Evaluate) -> Conversion | Evaluation:
    """Measure a network on test images, and write what is found to a folder.

    Returns:
        What results.json says.

    Raises:
        TranspikeError: The network or the images cannot be read.
    """
    checked_device(options.device)
    network = options.network
    check_measured(network)
    converted = os.path.isfile(network / "network.json")
    if options.agreement is not None:
        if not converted:
            raise ConfigError(f"{network}: agreement is for converted networks; this folder holds none.")
        needed = least_images(options.agreement)
        if options.held_out is not None and whole("held_out", options.held_out) < needed:
            raise ConfigError(f"agreement={options.agreement} needs held_out={needed} or more, not {options.held_out}.")
    elif options.held_out is not None:
        raise ConfigError(f"held_out={options.held_out}: it sets the threshold of an agreement; give --agreement, too.")
    begun = ({} if converted else read_options(network)) or read_options(network.parent)
    known = recorded_loading(begun, network)
    chosen = replace(
        options,
        data=options.data or begun.get("data"),
        root=options.root or Path(begun.get("root", "data")),
        loading=known if options.loading is None else filled_loading(options.loading, known),
    )
    if options.metric is not None and not converted:
        raise ConfigError(f"metric: only a converted network is measured by one, and {network} is a trained one")
    if converted:
        model = Source(begun["model"]).model if "model" in begun else network.name
        measure: Callable[[], Conversion | Evaluation] = partial(_converted, chosen, model)
    else:
        # What the network was trained and tested in.
        precision = begun.get("options", begun).get("machine", {}).get("precision", "32-true")
        measure = partial(_trained, chosen, precision)
    if not first_process():
        return measure()
    with start_run("evaluate", record(chosen), out=options.out) as run:
        results = measure()
        run.write(results)
    print(f"Results: {run.folder / 'results.json'}")
    copy_results(results, options.json)
    return results


def _converted(chosen: Evaluate, model: str) -> Conversion:
    from transpike.conversion import load
    from transpike.conversion.stream import unstreamed
    from transpike.measure.conversion import compare
    from transpike.measure.outputs import find_metric
    from transpike.measure.stopping import early_row, held_out_images

    total = join_processes(chosen.device)
    metric = find_metric(chosen.metric)
    snn = load(chosen.network).to(chosen.device)
    if chosen.agreement is not None and (reason := unstreamed(snn)):
        raise ConfigError(f"{chosen.network}: {reason}, so no answer is early. Leave --agreement away.")
    if chosen.data is None:
        raise ConfigError(f"{chosen.network}: give --data, the images to test with; no run.json beside it tells")
    root, loading = chosen.root or Path("data"), chosen.loading or Loading()
    sets = load_images(chosen.data, root=root, download=chosen.download, loading=loading)
    images = len(sets.test.dataset)  # type: ignore[arg-type]
    held_out = 0 if chosen.agreement is None else held_out_images(chosen.agreement, chosen.held_out, images)
    console = Console(stderr=True, quiet=not first_process())
    measured = compare(snn, track(sets.test, description="evaluating", console=console), total=total, metric=metric)
    row, glossary = measured.row, dict(snn.scheme.terms)
    if chosen.agreement is not None:
        batches = track(sets.test, description="stopping early", console=console)
        row = early_row(row, snn, sets, agreement=chosen.agreement, held_out=held_out, total=total, batches=batches)
    results = Conversion(
        model=model, dataset=sets.name, images=measured.images, ann=measured.ann, rows=(row,), glossary=glossary
    )
    if not console.quiet:
        for table in (conversion_table(results), *early_tables(results)):
            Console().print(table)
    return results


def _trained(chosen: Evaluate, precision: Literal["32-true", "bf16-mixed"]) -> Evaluation:
    from transpike.train import evaluate as test

    source = Source(os.path.join(os.curdir, chosen.network))  # a folder, though a network be called so
    data = Data(chosen.data, chosen.root, chosen.download, chosen.loading)
    sets = load_data([source], data)
    subject = load_subject(source, sets, label="", device="cpu")
    machine = Machine(accelerator="gpu" if chosen.device.startswith("cuda") else "cpu", precision=precision)
    tested = test(subject.model, sets.test, machine=machine, steps=source.time, encode=subject.given.encode)
    if first_process():
        print(f"{tested.accuracy:.2%} of {tested.images} test samples of {sets.name} right")
    return Evaluation(model=str(chosen.network), dataset=sets.name, **asdict(tested))
