"""``transpike evaluate``: tests a converted or a trained network on test images."""

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
    """Measure a converted network or a trained network on test images.

    A converted network is a folder of `transpike convert`. The command compares it with the original network: accuracy,
    same predictions, spikes, operations, energy, speed, and the error of each layer. A trained network is the folder of
    a `transpike train`, `distill` or `hybrid` run. If the run has an encoder, the images pass through it.

    The images come from the data set of the run, or from another data set.

    Examples:
      transpike evaluate runs/convert-20261121-110000/T8
      transpike evaluate runs/train-20261121-100000
      transpike evaluate runs/convert-20261121-110000/T8 --data folder --root my-images
      transpike evaluate runs/convert-20261121-110000/T8 --agreement 0.995
      torchrun --nproc-per-node 4 --no-python transpike evaluate runs/convert-20261121-110000/T8 --out runs/check

    Attributes:
        network: A folder with network.json, or the folder of a training run.
        data: The data set. The default is that of the run.
        root: The folder of the data set's files. The default is that of the run. If the run has none, it is the folder
            `data`.
        download: Download the data set into root if it is missing.
        loading: Image size, normalisation and batches. The default is the options of the run. If you set any of these
            options, only image size and normalisation still come from the run. Every other option that you do not set
            has the default that --loading.help shows.
        metric: Another measure of a converted network's outputs, beside the classes: same, iou, boxes, correlation, or
            module:function. Your own function has two arguments, outputs and targets, and returns one number or one for
            each image. The outputs are those of the spiking network, and the targets are the outputs of the original
            network. If the function accepts class labels as targets, it also measures the outputs of both networks
            against the labels.
        device: The device that computes: cpu, cuda, cuda:1, ...
        agreement: Measure a converted network a second time, with early stops: each image stops as soon as its answer
            is sure. This share of the answers, such as 0.995, must equal those after all steps.
        held_out: With agreement: the number of test images that set the threshold of the early stop. They are the first
            ones. The other test images measure the result. The default is 512, or half of the test images if there are
            fewer than 1,024. A high agreement can make this default larger.
        out: The folder for results. The default is a new folder under runs/.
        json: Write a copy of results.json to this path.
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
    """Test a network on test images, and write the results to a folder.

    Returns:
        The content of results.json.

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
        raise ConfigError(f"metric: this option is for converted networks, and {network} is a trained one")
    if converted:
        model = Source(begun["model"]).model if "model" in begun else network.name
        measure: Callable[[], Conversion | Evaluation] = partial(_converted, chosen, model)
    else:
        # The precision of the network's training and test.
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
        raise ConfigError(f"{chosen.network}: {reason}, so it has no early answers. Omit --agreement.")
    if chosen.data is None:
        raise ConfigError(
            f"{chosen.network}: give --data, the images to test with; no run.json beside the folder names them"
        )
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

    source = Source(os.path.join(os.curdir, chosen.network))  # a folder, even if a network has this name
    data = Data(chosen.data, chosen.root, chosen.download, chosen.loading)
    sets = load_data([source], data)
    subject = load_subject(source, sets, label="", device="cpu")
    machine = Machine(accelerator="gpu" if chosen.device.startswith("cuda") else "cpu", precision=precision)
    tested = test(subject.model, sets.test, machine=machine, steps=source.time, encode=subject.given.encode)
    if first_process():
        print(f"{tested.accuracy:.2%} of {tested.images} test samples of {sets.name} right")
    return Evaluation(model=str(chosen.network), dataset=sets.name, **asdict(tested))
