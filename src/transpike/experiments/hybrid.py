"""``transpike hybrid``: an artificial network; its spiking twin, thresholds balanced; the twin trained over time."""

from __future__ import annotations

import json as json_format
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from transpike.coding import DCTEncoder
from transpike.data import ImageSets, Loading, load_images
from transpike.errors import ConfigError, ModelError
from transpike.experiments.runs import Run, plain, start_run, write_json
from transpike.experiments.training import EPOCHS, first_process
from transpike.train.options import Machine, Optim, Recipe, TrainOptions

if TYPE_CHECKING:
    from torch import nn

    from transpike.train import Evaluation, Fitted
    from transpike.train.hybrid import Encode

__all__ = ["Pretraining", "hybrid"]

ASKED = (
    *("ann", "data", "steps", "encoder", "settings", "network", "neuron", "root", "download", "loading"),
    *("pretraining", "balanced", "last", "percentile", "calibration", "test_steps", "epochs", "seed", "keep"),
    *("optim", "recipe", "machine"),
)
"""What run.json keeps of the command, and a resumed run needs."""

FOLDERS = {"ann": "ann", "balance": "balanced", "tune": "tuned"}
TUNING = Optim(name="adamw", lr=1e-3, warmup=0.0, weight_decay=5e-4)


@dataclass(frozen=True)
class Pretraining:
    """How the artificial network is trained, before its twin.

    Attributes:
        epochs: passes over the training images; by default as for `transpike train`.
        network: what the artificial network alone takes, such as {"dropout": 0.5}.
        optim: the optimiser and its schedule.
        recipe: the loss and its regularisers.
    """

    epochs: int | None = None
    network: dict[str, Any] = field(default_factory=dict)
    optim: Optim = field(default_factory=lambda: Optim(lr=0.05, weight_decay=1e-4))
    recipe: Recipe = field(default_factory=Recipe)


@dataclass(frozen=True)
class _Made:
    """A network, and what `create_model` makes it from."""

    model: nn.Module
    name: str
    kwargs: dict[str, Any]

    @property
    def thresholds(self) -> dict[str, float]:
        nodes = self.model.named_modules()
        return {name: float(cast(Any, node).v_threshold) for name, node in nodes if hasattr(node, "v_threshold")}


@dataclass(frozen=True)
class _Work:
    """What every stage needs: the command's options, images, their encoder, and where a stage leaves its network."""

    asked: dict[str, Any]
    sets: ImageSets
    encoder: nn.Module
    run: Run
    resumed: bool

    @property
    def machine(self) -> Machine:
        return Machine(**self.asked["machine"])

    @property
    def shape(self) -> dict[str, Any]:
        """Of the network, for which the encoder may have laid out an image larger than it is."""
        size = self.sets.size
        if isinstance(self.encoder, DCTEncoder):
            size, _ = self.encoder.output_size((size, size))
        return {"num_classes": self.sets.classes, "in_channels": self.sets.channels, "image_size": size}

    def place(self, stage: str) -> Path:
        return self.run.folder if stage == self.asked["last"] else self.run.folder / FOLDERS[stage]

    def finished(self, stage: str) -> bool:
        return self.resumed and (self.place(stage) / "results.json").is_file()

    def save(self, stage: str, made: _Made, results: dict[str, Any]) -> None:
        """Write a stage's network and its results, which mark the stage as finished."""
        from transpike.experiments.encoding import describe_encoder
        from transpike.models import save_weights

        if not first_process():
            return
        asked, sets, place = self.asked, self.sets, self.place(stage)
        about = {
            "name": made.name,
            "kwargs": made.kwargs,
            **self.shape,
            "data": sets.name,
            "class_names": sets.class_names,
        }
        about |= {"steps": None if stage == "ann" else asked["steps"], "mean": sets.mean, "std": sets.std}
        about["encoder"] = describe_encoder(asked["encoder"], asked["settings"], self.encoder)
        write_json(place / "model.json", about)
        save_weights(made.model, place / "weights.safetensors")
        write_json(place / "results.json", results)


def hybrid(
    ann: str = "mlp",
    data: str = "digits",
    *,
    steps: int = 16,
    encoder: str = "dct",
    settings: dict[str, Any] | None = None,
    network: dict[str, Any] | None = None,
    neuron: dict[str, Any] | None = None,
    root: Path = Path("data"),
    download: bool = False,
    loading: Loading = Loading(),
    pretraining: Pretraining = Pretraining(),
    balanced: Path | None = None,
    last: Literal["ann", "balance", "tune"] = "tune",
    percentile: float = 99.9,
    calibration: int = 512,
    test_steps: list[int] | int | None = None,
    epochs: int = 20,
    seed: int = 0,
    keep: Literal["last", "best"] = "last",
    optim: Optim = TUNING,
    recipe: Recipe = Recipe(),
    machine: Machine = Machine(),
    resume: Path | None = None,
    out: Path | None = None,
    json: Path | None = None,
) -> None:
    """Train an artificial network, give its weights and balanced thresholds to its spiking twin, and train that.

    DCT-SNN's route to few steps. The last stage's network lies in the run's folder, which is as that of `transpike
    train`: `transpike evaluate` and `report` read it. Those of the stages before lie in ann/ and balanced/, for
    `evaluate`. Each stage can begin with what an earlier run has saved: --ann FOLDER takes a trained artificial
    network, --balanced FOLDER a run's balanced twin. --last ends with an earlier stage.

    Networks have no biases and no normalisation, and pool by averages: mlp, vgg5, vgg9, vgg11, vgg13.

    Examples:
      transpike hybrid
      transpike hybrid --config configs/dct-mnist-t5.yaml --root data
      transpike hybrid --ann vgg9 --data cifar10 --steps 48 --settings '{"stride": 2, "color": "ycbcr"}' --last ann
      transpike hybrid --ann runs/hybrid-20261121-110000 --data mnist --steps 5
      transpike hybrid --balanced runs/hybrid-20261121-110000 --data mnist --steps 5 --optim.lr 1e-4
      transpike hybrid --resume runs/hybrid-20261121-110000

    Args:
        ann: mlp, vgg5, vgg9, vgg11, vgg13, which are trained first; or a folder of `transpike train` or `hybrid` with a
            trained one.
        data: digits, mnist, fashion_mnist, cifar10, cifar100 or folder.
        steps: T.
        encoder: dct, direct, poisson, latency, phase, burst.
        settings: What else the encoder takes, such as {"stride": 2, "order": "interleaved", "frequencies": 8}.
        network: What else both networks take, such as {"hidden": 100, "dropout": 0.2}; an artificial network from a
            folder keeps its own.
        neuron: What else the neurons take, such as {"leak_when": "silent"}.
        root: Where the data set's files lie.
        download: Download the data set into root where it is missing.
        loading: Batches, augmentation, validation split. Its seed is replaced by `seed`.
        pretraining: How the artificial network is trained.
        balanced: Begin with the balanced twin of this run's folder.
        last: The stage to end with.
        percentile: Of a layer's input, for its threshold.
        calibration: How many training images set the thresholds, the encoder's and the layers'.
        test_steps: Other numbers of steps to test at; by default T/2 and 2T.
        epochs: Passes over the training images in the last stage.
        seed: Of the first weights, the order of images, augmentation, dropout and the validation split.
        keep: The weights to hand on from either training: those of the last epoch, or of the best on the validation
            images.
        optim: The last stage's optimiser and its schedule.
        recipe: The last stage's loss and its regularisers.
        machine: Devices and precision.
        resume: Continue this run's folder with the options it began with; all other options are ignored.
        out: The run's folder; by default a new one under runs/.
        json: Write results.json here too.

    Raises:
        TranspikeError: An option, the data set or a folder is not as it must be; a network has biases or normalisation;
            a threshold comes out zero.
    """
    asked = {
        **{"ann": ann, "data": data, "steps": steps, "encoder": encoder, "settings": settings or {}},
        **{"network": network or {}, "neuron": neuron or {}, "root": root, "download": download},
        **{"loading": asdict(loading) | {"seed": seed}, "pretraining": asdict(pretraining), "balanced": balanced},
        **{"last": last, "percentile": percentile, "calibration": calibration, "epochs": epochs, "seed": seed},
        **{"test_steps": [test_steps] if isinstance(test_steps, int) else test_steps, "keep": keep},
        **{"optim": asdict(optim), "recipe": asdict(recipe), "machine": asdict(machine)},
    }
    if resume is not None:
        results = _stages(_recorded(resume), Run(resume), resumed=True)
    elif first_process():
        with start_run("hybrid", asked, out=out) as run:
            results = _stages(asked, run, resumed=False)
    else:
        results = _stages(asked, Run(out or Path("runs")), resumed=False)
    if first_process() and json is not None:
        write_json(json, results)


def _stages(asked: dict[str, Any], run: Run, *, resumed: bool) -> dict[str, Any]:
    from transpike.experiments.encoding import make_encoder

    _pretraining(asked), _tuning(asked)  # a wrong option is told before anything is loaded
    loading = Loading(**asked["loading"])
    sets = load_images(asked["data"], root=asked["root"], download=asked["download"], loading=loading)
    made = {"settings": asked["settings"], "mean": sets.mean, "std": sets.std}
    encoder = make_encoder(asked["encoder"], steps=asked["steps"], **made)
    if isinstance(encoder, DCTEncoder):
        encoder.fit(sets.calibration(asked["calibration"]))
    work = _Work(asked, sets, encoder, run, resumed)
    told: dict[str, Any] = {}
    try:
        if asked["balanced"] is None:
            network, results = _ann(work)
            told["ann"] = _summary(results)
            if asked["last"] != "ann":
                network, results = _balance(work, network)
        else:
            network, results = _read_balanced(work)
        if asked["last"] == "tune":
            told["balanced"] = _summary(results)
            network, results = _tune(work, network, told)
    except KeyboardInterrupt:
        if first_process() and any(run.folder.glob("**/last.ckpt")):
            print(f"Stopped. Continue: transpike hybrid --resume {run.folder}", file=sys.stderr)
        raise
    if first_process():
        _tell(results, told, run.folder)
    return results


def _ann(work: _Work) -> tuple[_Made, dict[str, Any]]:
    """The trained artificial network: an earlier run's, one that this run has trained, or one trained now."""
    import torch

    from transpike.models import create_model
    from transpike.models.mlp import MLPS
    from transpike.models.vgg import VGGS
    from transpike.models.zoo import SPIKING
    from transpike.train import evaluate
    from transpike.train.hybrid import check_constrained, laid_out

    asked, place, encode = work.asked, work.place("ann"), laid_out(work.encoder)
    if work.finished("ann"):
        return _load(place), _read(place)
    trained = None
    if given := _given(asked["ann"], "ann"):
        network = _load(given)
        _check_given(given, work)
    else:
        torch.manual_seed(asked["seed"])
        kwargs = asked["network"] | asked["pretraining"]["network"]
        network = _Made(create_model(asked["ann"], **work.shape, **kwargs), asked["ann"], kwargs)
    check_constrained(network.model)
    if f"spiking_{network.name}" not in SPIKING:
        raise ModelError(f"{network.name} has no spiking twin here: take {', '.join([*MLPS, *VGGS])}.")
    if not given:
        trained = _fit(work, "ann", network.model, _pretraining(asked), encode)
    tested = evaluate(network.model, work.sets.test, machine=work.machine, encode=encode)
    results = _results(work, network, tested, trained)
    work.save("ann", network, results)
    return network, results


def _balance(work: _Work, ann: _Made) -> tuple[_Made, dict[str, Any]]:
    """The spiking twin with the weights of the artificial network and thresholds of its own."""
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from transpike.models import create_model
    from transpike.train.hybrid import balance_thresholds, transfer

    asked, place = work.asked, work.place("balance")
    if work.finished("balance"):
        return _load(place), _read(place)
    # A network of an earlier run knows its own shape; one trained here may have had options that it alone took.
    kwargs = (ann.kwargs if _given(asked["ann"], "ann") else {}) | asked["network"] | asked["neuron"]
    twin = _Made(create_model(f"spiking_{ann.name}", **work.shape, **kwargs), f"spiking_{ann.name}", kwargs)
    transfer(ann.model, twin.model, steps=asked["steps"])
    device = "cuda" if work.machine.accelerator != "cpu" and torch.cuda.is_available() else "cpu"
    batches = work.sets.calibration(asked["calibration"])
    columns = (TextColumn("balancing thresholds"), BarColumn(bar_width=30), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not first_process()) as bar:
        task = bar.add_task("", total=len(twin.thresholds) * len(batches))
        balance_thresholds(
            twin.model.to(device),
            batches,
            encode=work.encoder.to(device),
            percentile=asked["percentile"],
            progress=lambda: bar.advance(task),
        )
    work.encoder.cpu()
    balanced = _Made(twin.model.cpu(), twin.name, kwargs | {"v_threshold": list(twin.thresholds.values())})
    tested, measured = _measure(work, balanced)
    results = _results(work, balanced, tested, None) | measured
    work.save("balance", balanced, results)
    return balanced, results


def _read_balanced(work: _Work) -> tuple[_Made, dict[str, Any]]:
    """An earlier run's balanced twin; its encoder must be the same, and hands on its thresholds."""
    from transpike.experiments.encoding import describe_encoder, read_encoder
    from transpike.models import read_description

    asked = work.asked
    given = _given(str(asked["balanced"]), "balance")
    if given is None:
        raise ModelError(f"{asked['balanced']}: no such folder; --balanced takes one of `transpike hybrid`.")
    about = read_description(given)
    if "encoder" not in about or about.get("steps") is None:
        raise ModelError(f"{given}: holds no network with balanced thresholds; `transpike hybrid` makes one.")
    theirs, ours = about["encoder"], plain(describe_encoder(asked["encoder"], asked["settings"], work.encoder))
    if any(plain(theirs[key]) != ours[key] for key in ("name", "steps", "settings")):
        raise ConfigError(
            f"{given}: balanced for --encoder {theirs['name']} --steps {theirs['steps']} with "
            f"settings={theirs['settings']}; give the same, or begin with --ann."
        )
    work.encoder.load_state_dict(read_encoder(about).state_dict())
    return _load(given), _read(given)


def _tune(work: _Work, balanced: _Made, told: dict[str, Any]) -> tuple[_Made, dict[str, Any]]:
    """The twin trained over time."""
    if work.finished("tune"):
        return _load(work.place("tune")), _read(work.place("tune"))
    trained = _fit(work, "tune", balanced.model, _tuning(work.asked), work.encoder)
    tested, measured = _measure(work, balanced)
    results = _results(work, balanced, tested, trained) | measured | {"stages": told}
    work.save("tune", balanced, results)
    return balanced, results


def _fit(work: _Work, stage: str, model: nn.Module, options: TrainOptions, encode: Encode) -> Fitted:
    from transpike.train import Loaders, fit

    if first_process():
        words = {"ann": "artificial network", "tune": f"spiking network, T = {options.steps}"}
        print(f"Training the {words[stage]}", file=sys.stderr)
    sets, place = work.sets, work.place(stage)
    loaders = Loaders(sets.train, sets.validation if len(sets.validation) else None)
    resume = work.resumed and (place / "last.ckpt").is_file()
    return fit(model, loaders, options, folder=place, encode=encode, resume=resume)


def _measure(work: _Work, network: _Made) -> tuple[Evaluation, dict[str, Any]]:
    from transpike.experiments.encoding import describe_encoder, read_encoder
    from transpike.experiments.spiking import measure_spiking

    asked, sets = work.asked, work.sets
    told = describe_encoder(asked["encoder"], asked["settings"], work.encoder)
    about = {"mean": sets.mean, "std": sets.std, "encoder": told}
    steps, others = asked["steps"], asked["test_steps"]
    tested, measured = measure_spiking(
        network.model,
        lambda _: sets.test,
        steps=steps,
        others=[max(1, steps // 2), 2 * steps] if others is None else others,
        machine=work.machine,
        encoder=lambda count: read_encoder(about, steps=count),
    )
    return tested, measured | {"thresholds": network.thresholds}


def _results(work: _Work, network: _Made, tested: Evaluation, trained: Fitted | None) -> dict[str, Any]:
    measured = {"images": tested.images, "accuracy": tested.accuracy, "loss": tested.loss}
    results = {"kind": "evaluation", "version": 1, "model": network.name, "dataset": work.asked["data"], **measured}
    if trained is None:
        return results
    curves = {"weights_of_epoch": trained.epoch, "validation_accuracy": trained.validation_accuracy}
    return results | {"kind": "training", **curves, "epochs": trained.curves}


def _summary(results: dict[str, Any]) -> dict[str, Any]:
    """What the results of the last stage say of an earlier one."""
    names = ("model", "accuracy", "loss", "validation_accuracy", "weights_of_epoch")
    return {name: results[name] for name in names if name in results}


def _tell(results: dict[str, Any], told: dict[str, Any], folder: Path) -> None:
    from rich.console import Console

    from transpike.experiments.spiking import spiking_tables

    if "spiking" in results:
        Console(highlight=False).print(*spiking_tables(results), sep="\n")
    before = "".join(f"; {stage} {row['accuracy']:.2%}" for stage, row in told.items() if row is not results)
    at = f" at T = {results['spiking']['steps']}" if "spiking" in results else ""
    print(
        f"{results['model']} on {results['dataset']}: {results['accuracy']:.2%} of {results['images']} test images "
        f"right{at}{before}. Written to {folder}"
    )


def _pretraining(asked: dict[str, Any]) -> TrainOptions:
    chosen = asked["pretraining"]
    return _options(asked, chosen, epochs=chosen["epochs"] or EPOCHS.get(asked["data"], 100), steps=None)


def _tuning(asked: dict[str, Any]) -> TrainOptions:
    return _options(asked, asked, epochs=asked["epochs"], steps=asked["steps"])


def _options(asked: dict[str, Any], chosen: dict[str, Any], *, epochs: int, steps: int | None) -> TrainOptions:
    return TrainOptions(
        epochs=epochs,
        seed=asked["seed"],
        keep=asked["keep"],
        steps=steps,
        optim=Optim(**chosen["optim"]),
        recipe=Recipe(**chosen["recipe"]),
        machine=Machine(**asked["machine"]),
    )


def _given(name: str, stage: str) -> Path | None:
    """The folder in which an earlier run left a stage's network; None where ``name`` is a network's."""
    from transpike.models import model_names

    folder = Path(name)
    if name in model_names() or not folder.is_dir():
        return None
    inner = folder / FOLDERS[stage]
    return inner if (inner / "model.json").is_file() else folder


def _check_given(folder: Path, work: _Work) -> None:
    from transpike.models import read_description

    about, size = read_description(folder), work.shape["image_size"]
    if about.get("steps") is not None:
        raise ModelError(f"{folder}: {about['name']} is a spiking network; --ann takes an artificial one.")
    if about.get("image_size") != size:
        raise ModelError(
            f"{folder}: trained on images of {about.get('image_size')} pixels a side, but this encoder lays out "
            f"{size}. Train it by `transpike hybrid --last ann` with this encoder."
        )


def _load(folder: Path) -> _Made:
    from transpike.models import create_model, read_description

    about = read_description(folder)
    return _Made(create_model(folder), about["name"], about.get("kwargs", {}))


def _read(folder: Path) -> dict[str, Any]:
    from transpike.report.results import read_result

    return {name: value for name, value in read_result(folder).items() if name not in ("folder", "run")}


def _recorded(folder: Path) -> dict[str, Any]:
    """The options a run began with."""
    path = folder / "run.json"
    try:
        recorded = json_format.loads(path.read_text())
        if recorded["verb"] != "hybrid":
            raise ConfigError(f"{folder}: a run of `transpike {recorded['verb']}`, not of `transpike hybrid`.")
        asked: dict[str, Any] = {name: recorded["options"][name] for name in ASKED}
        Loading(**asked["loading"]), _pretraining(asked), _tuning(asked)
    except FileNotFoundError:
        raise ConfigError(f"{folder}: no run to resume, for it has no run.json.") from None
    except (KeyError, TypeError, UnicodeDecodeError, json_format.JSONDecodeError) as error:
        raise ConfigError(f"{path}: damaged, or of another version ({error!r}). Start the training anew.") from error
    return asked
