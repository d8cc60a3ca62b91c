"""``transpike hybrid``: an artificial network, a spiking twin with balanced thresholds, the twin trained over time."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from transpike import files
from transpike.coding import ENCODERS, Encoder, create_encoder, describe_encoder, encoder_scheme, read_encoder
from transpike.data import ImageSets, load_images
from transpike.errors import ConfigError, DataError, ModelError
from transpike.experiments.hybrid_options import Hybrid, settled
from transpike.experiments.options import check_resumed, read_record, record
from transpike.experiments.training import check_outputs
from transpike.models import create_model, read_description, save_network
from transpike.report.terminal import operations_table, spiking_tables, summary
from transpike.results import Evaluation, RunFolder, Stage, copy_results, read_result, write
from transpike.train.hybrid import Encode, balance_thresholds, transfer
from transpike.train.options import TrainOptions
from transpike.train.processes import first_process
from transpike.train.runs import checked_steps, has_epochs, training_run
from transpike.train.stages import FOLDERS, Network, check_images, stage_folder

if TYPE_CHECKING:
    from transpike.measure.encoded import Encoded
    from transpike.train import Fitted

__all__ = ["Hybrid", "hybrid"]


def hybrid(options: Hybrid) -> Evaluation:
    """Train an artificial network, balance its twin's thresholds, train the twin. Each has its own folder.

    Returns:
        The content of the last stage's results.json.

    Raises:
        TranspikeError: An option, the data set or a folder is wrong; a network has biases or normalisation; or a
            threshold would be zero.
    """
    if options.resume is None:
        chosen = settled(options)
    else:
        check_resumed(options, chosen := read_record(options.resume, "hybrid", Hybrid), options.resume)
    with training_run("hybrid", record(chosen), resume=options.resume, out=options.out) as run:
        work = Work(chosen, _load(chosen), run, options.resume is not None)
        before: dict[str, Stage] = {}
        if chosen.balanced is None:
            network, results = train_ann(work)
            if chosen.last != "ann":
                before["ann"] = Stage.of(results)
                network, results = balance(work, network, before)
        else:
            network, results = read_balanced(work)
            before |= results.stages
        if chosen.last == "tune":
            before["balanced"] = Stage.of(results)
            network, results = tune(work, network, before)
        if first_process():
            _print(results, before, run.folder)
    if first_process():
        copy_results(results, options.json)
    return results


def _load(chosen: Hybrid) -> Encoded:
    """Return the images, as pixels if the encoder encodes pixels, and the encoder with its thresholds."""
    from transpike.measure.encoded import Encoded

    loading, name, settings = chosen.loading, chosen.encoder, chosen.settings or {}
    sets = load_images(chosen.data, root=chosen.root, download=chosen.download, loading=loading)
    if ENCODERS[name].takes_pixels and loading.mean is None and loading.std is None:
        # A network without biases cannot absorb a shift. So it learns from the pixels that its twin will see.
        loading = replace(loading, mean=(0.0,) * sets.channels, std=(1.0,) * sets.channels)
        sets = load_images(chosen.data, root=chosen.root, download=chosen.download, loading=loading)
    check_outputs(sets)
    encoder = create_encoder(name, steps=chosen.steps, settings=settings, mean=sets.mean, std=sets.std)
    encoder.fit(sets.calibration(chosen.calibration))

    def at(steps: int) -> Encoder:
        described = describe_encoder(name, settings, encoder)
        return read_encoder({"mean": sets.mean, "std": sets.std, "encoder": described}, steps=steps)

    scheme = encoder_scheme(name, settings, steps=chosen.steps)
    words = {"steps": f"T = {chosen.steps}", **encoder.words(scheme)}
    return Encoded(sets, encoder, scheme, words, at, chosen.machine)


@dataclass(frozen=True)
class Work:
    """The data for all stages: the command's options, encoded images, and the places of their networks."""

    options: Hybrid
    data: Encoded
    run: RunFolder
    resumed: bool

    @property
    def about(self) -> dict[str, object]:
        """Return the facts for a network's model.json about its images and their encoder."""
        sets, described = self.data.sets, (self.options.encoder, self.options.settings or {}, self.data.encoder)
        about = {**self.data.shape, "mean": sets.mean, "std": sets.std, "data": sets.name}
        return about | {"class_names": sets.class_names, "encoder": describe_encoder(*described)}

    def place(self, stage: str) -> Path:
        """Return the folder of a stage."""
        return self.run.folder if stage == self.options.last else self.run.folder / FOLDERS[stage]

    def finished(self, stage: str) -> tuple[Network, Evaluation] | None:
        """Return a stage's network and results, if the continued run has finished it."""
        place = self.place(stage)
        return _read(place) if self.resumed and os.path.isfile(place / "results.json") else None

    def save(self, stage: str, network: Network, results: Evaluation) -> tuple[Network, Evaluation]:
        """Write a stage's network and its results, which mark the stage as finished."""
        if first_process():
            place, steps = self.place(stage), None if stage == "ann" else self.options.steps
            about = {"name": network.name, "kwargs": network.kwargs, **self.about, "steps": steps}
            save_network(network.model, about, place)
            write(place / "results.json", results)
        return network, results

    def measure(self, twin: Network, before: dict[str, Stage]) -> Evaluation:
        """Return the results of a twin that is not trained over time yet."""
        torch.manual_seed(self.options.seed)  # independent of earlier draws, in this process or before a restart
        steps, others = self.options.steps, checked_steps(self.options.test_steps)
        others = [max(1, steps // 2), 2 * steps] if others is None else others
        tested, measured = self.data.measure(twin, others=others)
        about = {"model": twin.name, "dataset": self.options.data, **asdict(tested)}
        return Evaluation(**about, **measured, stages=dict(before))

    def fit(self, stage: str, model: nn.Module, training: TrainOptions, encode: Encode) -> Fitted:
        """Train a stage's network, or continue its training."""
        from transpike.train import Loaders, fit

        if first_process():
            words = {"ann": "artificial network", "tune": f"spiking network, T = {training.steps}"}
            print(f"Training the {words[stage]}", file=sys.stderr)
        place = self.place(stage)
        resume = self.resumed and has_epochs(place)
        loaders = Loaders.of(self._sets(stage))
        return fit(model, loaders, training, folder=RunFolder(place), encode=encode, resume=resume)

    def _sets(self, stage: str) -> ImageSets:
        """Return the images in batches of the stage's size."""
        options, sets = self.options, self.data.sets
        size = options.pretraining.batch_size if stage == "ann" else None
        if size is None:
            return sets
        return load_images(options.data, root=options.root, loading=replace(sets.loading, batch_size=size))


def train_ann(work: Work) -> tuple[Network, Evaluation]:
    """Return the trained artificial network: from an earlier run, from this run before its restart, or trained now."""
    from transpike.train import evaluate
    from transpike.train.record import after_training

    options, data = work.options, work.data
    encode, trained = data.encoder.layout, None
    if done := work.finished("ann"):
        return done
    if earlier := stage_folder(options.ann, "ann"):
        network = Network.load(earlier)
        check_images(earlier, read_description(earlier), {**data.shape, "mean": data.sets.mean, "std": data.sets.std})
    else:
        torch.manual_seed(options.seed)
        kwargs = (options.network or {}) | options.pretraining.network
        network = Network(create_model(options.ann, **data.shape, **kwargs), options.ann, kwargs)
        trained = work.fit("ann", network.model, options.first_training, encode)
    tested = evaluate(network.model, data.sets.test, machine=options.machine, encode=encode)
    about = {"model": network.name, "dataset": options.data, **asdict(tested)}
    results = Evaluation(**about, operations=data.operations(network))
    return work.save("ann", network, after_training(results, trained) if trained else results)


def balance(work: Work, ann: Network, before: dict[str, Stage]) -> tuple[Network, Evaluation]:
    """Return the spiking twin with the weights of the artificial network and its own thresholds."""
    options, data = work.options, work.data
    if done := work.finished("balance"):
        return done
    torch.manual_seed(options.seed)  # a resumed run starts here, and an encoder may draw
    # A network of an earlier run knows its own shape. One trained here may have had options for itself alone.
    kwargs = (ann.kwargs if stage_folder(options.ann, "ann") else {}) | (options.network or {}) | (options.neuron or {})
    twin = Network(create_model(f"spiking_{ann.name}", **data.shape, **kwargs), f"spiking_{ann.name}", kwargs)
    transfer(ann.model, twin.model)
    batches = data.sets.calibration(options.calibration)
    columns = (TextColumn("balancing thresholds"), BarColumn(bar_width=30), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not first_process()) as bar:
        task = bar.add_task("", total=len(twin.thresholds) * len(batches))
        balance_thresholds(
            twin.model.to(data.device),
            batches,
            encode=data.encoder.to(data.device),
            percentile=options.percentile,
            progress=lambda: bar.advance(task),
        )
    data.encoder.cpu()
    balanced = replace(twin, model=twin.model.cpu(), kwargs=kwargs | {"v_threshold": list(twin.thresholds.values())})
    return work.save("balance", balanced, work.measure(balanced, before))


def read_balanced(work: Work) -> tuple[Network, Evaluation]:
    """Return an earlier run's balanced twin. Its encoder must be the same, and passes on its thresholds."""
    name, sets = str(work.options.balanced), work.data.sets
    earlier = stage_folder(name, "balance")
    if earlier is None:
        raise ModelError(f"{name}: no such folder; --balanced takes one of `transpike hybrid`.")
    about = read_description(earlier)
    if "encoder" not in about or about.get("steps") is None:
        raise ModelError(f"{earlier}: holds no network with balanced thresholds; `transpike hybrid` makes one.")
    check_images(earlier, about, {**work.data.shape, "mean": sets.mean, "std": sets.std})
    options = work.options
    theirs = about["encoder"]
    ours = describe_encoder(options.encoder, options.settings or {}, work.data.encoder)
    if any(theirs[key] != files.plain(ours[key]) for key in ("name", "steps", "settings")):
        raise ConfigError(
            f"{earlier}: balanced for --encoder {theirs['name']} --steps {theirs['steps']} with "
            f"settings={theirs['settings']}; give the same, or begin with --ann."
        )
    work.data.encoder.load_state_dict(read_encoder(about).state_dict())
    return _read(earlier)


def tune(work: Work, balanced: Network, before: dict[str, Stage]) -> tuple[Network, Evaluation]:
    """Return the twin trained over time."""
    from transpike.train.record import after_training

    if done := work.finished("tune"):
        return done
    trained = work.fit("tune", balanced.model, work.options.last_training, work.data.encoder)
    return work.save("tune", balanced, after_training(work.measure(balanced, before), trained))


def _read(folder: Path) -> tuple[Network, Evaluation]:
    results = read_result(folder)
    if not isinstance(results, Evaluation):
        raise DataError(f"{folder / 'results.json'}: not the results of a network of `transpike hybrid`.")
    return Network.load(folder), results


def _print(results: Evaluation, before: dict[str, Stage], folder: Path) -> None:
    console = Console(highlight=False)
    if tables := spiking_tables(results):
        # The text between the tables states an energy without the encoder's.
        console.print(tables[0], tables[2], sep="\n")
    if results.operations:
        console.print(operations_table(results.operations))
    stages = "".join(f"; {stage} {row.accuracy:.2%}" for stage, row in before.items())
    print(f"{summary(results)}{stages}. Written to {folder}")
