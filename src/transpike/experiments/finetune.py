"""``transpike finetune``: trains a converted network under its spikes, so that it needs fewer silent steps."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Literal

from rich.console import Console

from transpike.data import ImageSets, Loading
from transpike.data.event_files import EVENT_SOURCES
from transpike.errors import ConfigError, DataError
from transpike.experiments.options import Paths, check_resumed, read_record, record
from transpike.experiments.places import check_converted
from transpike.experiments.source import Data
from transpike.report import write_report
from transpike.report.terminal import finetuning_table
from transpike.results import Training, copy_results
from transpike.train.options import Machine, Optim, Recipe, TrainOptions
from transpike.train.processes import first_process
from transpike.train.recorded import filled_loading, read_options, recorded_loading
from transpike.train.runs import has_epochs, training_run

__all__ = ["Finetune", "finetune"]


@dataclass(frozen=True)
class Finetune(Paths):
    """Train the weights of a converted network while it runs with spikes, so that its layers need fewer silent steps.

    In a silent step, a layer receives input and does not fire. Silent steps make the latency longer. With too few
    silent steps, a layer fires its first digits before it knows its late input, and cannot correct them later. The
    training reduces this late input by a penalty in the loss. The penalty is zero if the number of silent steps given
    by --silent is enough for every layer.

    Then the command chooses the silent steps again on validation images. Of the networks that are as accurate as the
    converted one, it keeps the network with the least latency. It tries fewer silent steps with the trained weights
    and also with the weights from before the training. So the table shows what the training gains. The command uses the
    test images only once, at the end.

    The run's folder holds the network (T8/, for `transpike evaluate` and transpike.load), results.json, curves.csv,
    checkpoints and report.html. The network must come from `transpike convert`, with signed css spikes.

    Examples:
      transpike convert runs/train-20261121-110000 --steps 8 --out runs/converted
      transpike finetune runs/converted/T8
      transpike finetune runs/converted/T8 --silent 1 --epochs 4 --optim.lr 3e-4 --out runs/tuned
      transpike finetune runs/converted/T8 --loading.batch_size 64 --loading.train_images 5000 --tolerance 0.2
      transpike finetune runs/converted/T8 --resume runs/tuned

    Attributes:
        converted: A folder with network.json, such as RUN/T8 of `transpike convert`.
        data: The data set. The default is that of the conversion. The training needs its labels.
        root: The folder of the data set's files. The default is that of the conversion. If the conversion has none, it
            is the folder `data`.
        download: Download the data set into root if it is missing.
        loading: Batches, augmentation and validation split. The default is the options of the conversion. If you set
            any of these options, only image size and normalisation still come from the conversion. Every other
            option that you do not set has the default that --loading.help shows. The validation images must not be
            training images of the network. So loading.validation, loading.train_images and --seed must have the same
            values as in the network's original training.
        silent: The number of silent steps that the training prepares for. If a layer has fewer silent steps already,
            its own number applies.
        penalty: Weight of the penalty. With 0 the loss has no penalty, only the loss of the labels.
        tolerance: The percentage points of validation accuracy that may be lost for fewer silent steps.
        judged: The number of validation images on which the silent steps are chosen.
        epochs: Passes over the training images.
        seed: Seed of the order of images, the augmentation and the validation split. The default is that of the
            conversion.
        keep: Keep the weights of the last epoch, or of the epoch with the best validation accuracy.
        optim: The optimiser and its schedule.
        recipe: The loss of the labels.
        machine: Devices and precision.
        resume: Continue the run in this folder where it stopped, with its own options.
        out: The run's folder. The default is a new folder under runs/.
        json: Write a copy of results.json to this path.
    """

    converted: Path
    data: str | None = None
    _: KW_ONLY
    root: Path | None = None
    download: bool = False
    loading: Loading | None = None
    silent: int = 0
    penalty: float = 10.0
    tolerance: float = 0.0
    judged: int = 1000
    epochs: int = 10
    seed: int | None = None
    keep: Literal["last", "best"] = "last"
    optim: Optim = Optim(name="adamw", lr=1e-3, weight_decay=0.0)
    recipe: Recipe = Recipe()
    machine: Machine = Machine()
    resume: Path | None = None
    out: Path | None = None
    json: Path | None = None


def finetune(options: Finetune) -> Training:
    """Tune a converted network, and write the run's folder.

    Returns:
        The content of results.json: the curves, and the silent steps before and after.

    Raises:
        TranspikeError: An option, the network, the data set or the folder is wrong, or the loss is not finite.
    """
    if options.resume is None:
        chosen = _settled(options)
    else:
        chosen = read_record(options.resume, "finetune", Finetune)
        check_resumed(options, chosen, options.resume, usual=Finetune(chosen.converted))
    training = TrainOptions(
        chosen.epochs, chosen.seed or 0, chosen.keep, optim=chosen.optim, recipe=chosen.recipe, machine=chosen.machine
    )
    from transpike.conversion import load
    from transpike.train.finetune import Silencing, check_tunable
    from transpike.train.finetune import finetune as tune

    silencing = Silencing(chosen.silent, chosen.penalty, chosen.tolerance, chosen.judged)
    snn = check_tunable(load(chosen.converted))
    sets = Data(chosen.data, chosen.root, chosen.download, chosen.loading).load(None)
    assert isinstance(sets, ImageSets)
    subject = str(chosen.converted)
    with training_run("finetune", record(chosen), resume=options.resume, out=options.out, subject=subject) as run:
        from transpike.train import Loaders

        resume = options.resume is not None and has_epochs(run.folder)
        tuned = tune(snn, Loaders.of(sets), training, folder=run, silencing=silencing, resume=resume)
        results = tuned.results(subject, sets.name)
        if first_process():
            run.write(results)
            Console().print(finetuning_table(results))
            page = write_report([run.folder], run.folder / "report.html")
            print(f"Network: {run.folder / tuned.record.network}\nReport: {page}")
    if first_process():
        copy_results(results, options.json)
    return results


def _settled(options: Finetune) -> Finetune:
    """Return the options with the facts from the run of the converted network."""
    folder = options.converted
    check_converted(folder)
    began = read_options(folder.parent)
    data = options.data or began.get("data")
    if data is None:
        raise ConfigError(f"{folder}: give --data, the images to tune it on; no run.json beside the folder names them.")
    if data in EVENT_SOURCES:
        raise DataError(f"{data} gives frames of events, and a converted network takes images.")
    known = recorded_loading(began, folder.parent) if data == began.get("data") else Loading()
    loading = known if options.loading is None else filled_loading(options.loading, known)
    seed = known.seed if options.seed is None else options.seed
    root = options.root or Path(began.get("root", "data"))
    return replace(options, data=data, root=root, loading=replace(loading, seed=seed), seed=seed)
