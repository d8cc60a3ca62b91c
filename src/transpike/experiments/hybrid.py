"""``transpike hybrid``: an artificial network; its spiking twin, thresholds balanced; the twin trained over time."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from transpike.coding import DCTEncoder
from transpike.data import load_images
from transpike.errors import ConfigError, ModelError
from transpike.experiments.hybrid_options import Hybrid, settled
from transpike.experiments.options import read_record, record
from transpike.experiments.runs import Run, plain, write_json
from transpike.experiments.training import Results, checked_steps, copy_results, training_run
from transpike.train.processes import first_process

if TYPE_CHECKING:
    from torch import nn

    from transpike.measure.encoded import Encoded
    from transpike.train import Evaluation, Fitted, TrainOptions
    from transpike.train.hybrid import Encode
    from transpike.train.stages import Network

__all__ = ["Hybrid", "hybrid"]


def hybrid(options: Hybrid) -> Results:
    """Train an artificial network, balance its twin's thresholds, train the twin; each has a folder of its own.

    Returns:
        What the last stage's results.json says.

    Raises:
        TranspikeError: An option, the data set or a folder is not as it must be; a network has biases or normalisation;
            a threshold comes out zero.
    """
    chosen = settled(options) if options.resume is None else read_record(options.resume, "hybrid", Hybrid)
    with training_run("hybrid", record(chosen), resume=options.resume, out=options.out) as run:
        work = Work(chosen, _load(chosen), run, options.resume is not None)
        before: Results = {}
        if chosen.balanced is None:
            network, results = train_ann(work)
            if chosen.last != "ann":
                before["ann"] = _summary(results)
                network, results = balance(work, network, before)
        else:
            network, results = read_balanced(work)
            before |= results.get("stages", {})
        if chosen.last == "tune":
            before["balanced"] = _summary(results)
            network, results = tune(work, network, before)
        if first_process():
            _print(results, before, run.folder)
    copy_results(results, options.json)
    return results


def _load(chosen: Hybrid) -> Encoded:
    """The images, as pixels where the encoder's spikes tell of pixels, and the encoder with its thresholds."""
    from transpike.experiments.encoding import (
        describe_encoder,
        encoder_scheme,
        make_encoder,
        read_encoder,
        takes_pixels,
    )
    from transpike.measure.encoded import Encoded

    loading, name, settings = chosen.loading, chosen.encoder, chosen.settings or {}
    sets = load_images(chosen.data, root=chosen.root, download=chosen.download, loading=loading)
    if takes_pixels(name) and loading.mean is None and loading.std is None:
        # A network without biases cannot take up a shift: it learns from the pixels that its twin will see.
        loading = replace(loading, mean=(0.0,) * sets.channels, std=(1.0,) * sets.channels)
        sets = load_images(chosen.data, root=chosen.root, download=chosen.download, loading=loading)
    encoder = make_encoder(name, steps=chosen.steps, settings=settings, mean=sets.mean, std=sets.std)
    if isinstance(encoder, DCTEncoder):
        encoder.fit(sets.calibration(chosen.calibration))

    def at(steps: int) -> nn.Module:
        described = describe_encoder(name, settings, encoder)
        return read_encoder({"mean": sets.mean, "std": sets.std, "encoder": described}, steps=steps)

    return Encoded(sets, encoder, chosen.steps, encoder_scheme(name, settings, steps=chosen.steps), at, chosen.machine)


@dataclass(frozen=True)
class Work:
    """What every stage needs: the command's options, encoded images, and where it leaves its network."""

    options: Hybrid
    data: Encoded
    run: Run
    resumed: bool

    @property
    def about(self) -> dict[str, object]:
        """What a network's model.json says of its images and their encoder."""
        from transpike.experiments.encoding import describe_encoder

        sets, described = self.data.sets, (self.options.encoder, self.options.settings or {}, self.data.encoder)
        about = {**self.data.shape, "mean": sets.mean, "std": sets.std, "data": sets.name}
        return about | {"class_names": sets.class_names, "encoder": describe_encoder(*described)}

    def place(self, stage: str) -> Path:
        """The folder of a stage."""
        from transpike.train.stages import FOLDERS

        return self.run.folder if stage == self.options.last else self.run.folder / FOLDERS[stage]

    def finished(self, stage: str) -> tuple[Network, Results] | None:
        """A stage's network and results, where the run that continues has finished it."""
        place = self.place(stage)
        return _read(place) if self.resumed and (place / "results.json").is_file() else None

    def save(
        self, stage: str, network: Network, tested: Evaluation, trained: Fitted | None, **more: object
    ) -> tuple[Network, Results]:
        """Write a stage's network and its results, which mark the stage as finished."""
        from transpike.models import save_weights

        results: Results = {"kind": "evaluation", "version": 1, "model": network.name, "dataset": self.options.data}
        results |= {**asdict(tested), **more}
        if trained is not None:
            results |= {"kind": "training", "weights_of_epoch": trained.epoch, "epochs": trained.curves}
            results["validation_accuracy"] = trained.validation_accuracy
        if first_process():
            place, steps = self.place(stage), None if stage == "ann" else self.options.steps
            about = {"name": network.name, "kwargs": network.kwargs, **self.about, "steps": steps}
            write_json(place / "model.json", about)
            save_weights(network.model, place / "weights.safetensors")
            write_json(place / "results.json", results)
        return network, results

    def measure(self, twin: Network) -> tuple[Evaluation, Results]:
        """What a twin's results say of its spikes."""
        import torch

        torch.manual_seed(self.options.seed)  # whatever was drawn before, in this process or in the one it continues
        steps, others = self.options.steps, checked_steps(self.options.test_steps)
        return self.data.measure(twin, others=[max(1, steps // 2), 2 * steps] if others is None else others)

    def fit(self, stage: str, model: nn.Module, training: TrainOptions, encode: Encode) -> Fitted:
        """Train a stage's network, or go on with it."""
        from transpike.train import Loaders, fit

        if first_process():
            words = {"ann": "artificial network", "tune": f"spiking network, T = {training.steps}"}
            print(f"Training the {words[stage]}", file=sys.stderr)
        place = self.place(stage)
        resume = self.resumed and (place / "last.ckpt").is_file()
        return fit(model, Loaders.of(self.data.sets), training, folder=place, encode=encode, resume=resume)


def train_ann(work: Work) -> tuple[Network, Results]:
    """The trained artificial network: an earlier run's, one that this run has trained, or one trained now."""
    import torch

    from transpike.models import create_model, read_description
    from transpike.train import evaluate
    from transpike.train.hybrid import laid_out
    from transpike.train.stages import Network, check_images, given_folder

    options, data = work.options, work.data
    encode, trained = laid_out(data.encoder), None
    if done := work.finished("ann"):
        return done
    if given := given_folder(options.ann, "ann"):
        network = Network.load(given)
        check_images(given, read_description(given), {**data.shape, "mean": data.sets.mean, "std": data.sets.std})
    else:
        torch.manual_seed(options.seed)
        kwargs = (options.network or {}) | options.pretraining.network
        network = Network(create_model(options.ann, **data.shape, **kwargs), options.ann, kwargs)
        trained = work.fit("ann", network.model, options.first_training, encode)
    tested = evaluate(network.model, data.sets.test, machine=options.machine, encode=encode)
    return work.save("ann", network, tested, trained, operations=data.operations(network))


def balance(work: Work, ann: Network, before: Results) -> tuple[Network, Results]:
    """The spiking twin with the weights of the artificial network and thresholds of its own."""
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from transpike.models import create_model
    from transpike.train.hybrid import balance_thresholds, transfer
    from transpike.train.stages import Network, given_folder

    options, data = work.options, work.data
    if done := work.finished("balance"):
        return done
    torch.manual_seed(options.seed)  # a resumed run begins here, and an encoder may draw
    # A network of an earlier run knows its own shape; one trained here may have had options that it alone took.
    kwargs = (ann.kwargs if given_folder(options.ann, "ann") else {}) | (options.network or {}) | (options.neuron or {})
    twin = Network(create_model(f"spiking_{ann.name}", **data.shape, **kwargs), f"spiking_{ann.name}", kwargs)
    transfer(ann.model, twin.model, steps=options.steps)
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
    tested, measured = work.measure(balanced)
    return work.save("balance", balanced, tested, None, **measured, stages=dict(before))


def read_balanced(work: Work) -> tuple[Network, Results]:
    """An earlier run's balanced twin; its encoder must be the same, and hands on its thresholds."""
    from transpike.experiments.encoding import read_encoder
    from transpike.models import read_description
    from transpike.train.stages import check_images, given_folder

    name, sets = str(work.options.balanced), work.data.sets
    given = given_folder(name, "balance")
    if given is None:
        raise ModelError(f"{name}: no such folder; --balanced takes one of `transpike hybrid`.")
    about = read_description(given)
    if "encoder" not in about or about.get("steps") is None:
        raise ModelError(f"{given}: holds no network with balanced thresholds; `transpike hybrid` makes one.")
    check_images(given, about, {**work.data.shape, "mean": sets.mean, "std": sets.std})
    theirs, ours = about["encoder"], plain(work.about["encoder"])
    if any(theirs[key] != ours[key] for key in ("name", "steps", "settings")):
        raise ConfigError(
            f"{given}: balanced for --encoder {theirs['name']} --steps {theirs['steps']} with "
            f"settings={theirs['settings']}; give the same, or begin with --ann."
        )
    work.data.encoder.load_state_dict(read_encoder(about).state_dict())
    return _read(given)


def tune(work: Work, balanced: Network, before: Results) -> tuple[Network, Results]:
    """The twin trained over time."""
    if done := work.finished("tune"):
        return done
    trained = work.fit("tune", balanced.model, work.options.last_training, work.data.encoder)
    tested, measured = work.measure(balanced)
    return work.save("tune", balanced, tested, trained, **measured, stages=before)


def _read(folder: Path) -> tuple[Network, Results]:
    from transpike.report.results import read_result
    from transpike.train.stages import Network

    results = {name: value for name, value in read_result(folder).items() if name not in ("folder", "run")}
    return Network.load(folder), results


def _summary(results: Results) -> Results:
    """What the results of the last stage say of an earlier one."""
    names = ("model", "accuracy", "loss", "validation_accuracy", "weights_of_epoch")
    return {name: results[name] for name in names if name in results}


def _print(results: Results, before: Results, folder: Path) -> None:
    from rich.console import Console

    from transpike.report.terminal import operations_table, spiking_tables, summary

    console = Console(highlight=False)
    if "spiking" in results:
        # The words between the tables tell an energy that leaves out the encoder's.
        firing, _, by_steps = spiking_tables(results)
        console.print(firing, by_steps, sep="\n")
    if "operations" in results:
        console.print(operations_table(results["operations"]))
    stages = "".join(f"; {stage} {row['accuracy']:.2%}" for stage, row in before.items())
    print(f"{summary(results)}{stages}. Written to {folder}")
