"""The stages of ``transpike hybrid``: each makes a network, or reads a run's, and leaves it in a folder."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from transpike.coding import DCTEncoder
from transpike.data import ImageSets
from transpike.errors import ConfigError, ModelError
from transpike.experiments.hybrid_results import measure_ann, measure_twin, results_of
from transpike.experiments.runs import RESULTS, Run
from transpike.experiments.training import EPOCHS, first_process
from transpike.files import plain, write_json
from transpike.train.options import Machine, Optim, Recipe, TrainOptions

if TYPE_CHECKING:
    from torch import nn

    from transpike.train import Fitted
    from transpike.train.hybrid import Encode

__all__ = [
    "Made",
    "Work",
    "balance",
    "given_folder",
    "pretraining_options",
    "read_balanced",
    "train_ann",
    "tune",
    "tuning_options",
]

FOLDERS = {"ann": "ann", "balance": "balanced", "tune": "tuned"}


@dataclass(frozen=True)
class Made:
    """A network, and what `create_model` makes it from."""

    model: nn.Module
    name: str
    kwargs: dict[str, Any]

    @property
    def thresholds(self) -> dict[str, float]:
        nodes = self.model.named_modules()
        return {name: float(cast(Any, node).v_threshold) for name, node in nodes if hasattr(node, "v_threshold")}


@dataclass(frozen=True)
class Work:
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
    def device(self) -> str:
        """Of what Lightning does not run."""
        import torch

        return "cuda" if self.machine.accelerator != "cpu" and torch.cuda.is_available() else "cpu"

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

    def save(self, stage: str, made: Made, results: dict[str, Any]) -> None:
        """Write a stage's network and its results, which mark the stage as finished."""
        from transpike.experiments.encoding import describe_encoder
        from transpike.models import save_network

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
        save_network(made.model, about, place)
        write_json(place / "results.json", results, kind=RESULTS)


def train_ann(work: Work) -> tuple[Made, dict[str, Any]]:
    """The trained artificial network: an earlier run's, one that this run has trained, or one trained now."""
    import torch

    from transpike.models import create_model, read_description
    from transpike.train import evaluate
    from transpike.train.hybrid import laid_out

    asked, place, encode = work.asked, work.place("ann"), laid_out(work.encoder)
    if work.finished("ann"):
        return _load(place), _read(place)
    trained = None
    if given := given_folder(asked["ann"], "ann"):
        network = _load(given)
        _check_shape(given, read_description(given), work)
    else:
        torch.manual_seed(asked["seed"])
        kwargs = asked["network"] | asked["pretraining"]["network"]
        network = Made(create_model(asked["ann"], **work.shape, **kwargs), asked["ann"], kwargs)
    if not given:
        trained = _fit(work, "ann", network.model, pretraining_options(asked), encode)
    tested = evaluate(network.model, work.sets.test, machine=work.machine, encode=encode)
    results = results_of(work, network, tested, trained) | {"operations": measure_ann(work, network)}
    work.save("ann", network, results)
    return network, results


def balance(work: Work, ann: Made, told: dict[str, Any]) -> tuple[Made, dict[str, Any]]:
    """The spiking twin with the weights of the artificial network and thresholds of its own."""
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from transpike.models import create_model
    from transpike.train.hybrid import balance_thresholds, transfer

    asked, place = work.asked, work.place("balance")
    if work.finished("balance"):
        return _load(place), _read(place)
    torch.manual_seed(asked["seed"])  # a resumed run begins here, and an encoder may draw
    # A network of an earlier run knows its own shape; one trained here may have had options that it alone took.
    kwargs = (ann.kwargs if given_folder(asked["ann"], "ann") else {}) | asked["network"] | asked["neuron"]
    twin = Made(create_model(f"spiking_{ann.name}", **work.shape, **kwargs), f"spiking_{ann.name}", kwargs)
    transfer(ann.model, twin.model, steps=asked["steps"])
    batches = work.sets.calibration(asked["calibration"])
    columns = (TextColumn("balancing thresholds"), BarColumn(bar_width=30), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not first_process()) as bar:
        task = bar.add_task("", total=len(twin.thresholds) * len(batches))
        balance_thresholds(
            twin.model.to(work.device),
            batches,
            encode=work.encoder.to(work.device),
            percentile=asked["percentile"],
            progress=lambda: bar.advance(task),
        )
    work.encoder.cpu()
    balanced = Made(twin.model.cpu(), twin.name, kwargs | {"v_threshold": list(twin.thresholds.values())})
    tested, measured = measure_twin(work, balanced)
    results = results_of(work, balanced, tested, None) | measured | {"stages": dict(told)}
    work.save("balance", balanced, results)
    return balanced, results


def read_balanced(work: Work) -> tuple[Made, dict[str, Any]]:
    """An earlier run's balanced twin; its encoder must be the same, and hands on its thresholds."""
    from transpike.experiments.encoding import describe_encoder, read_encoder
    from transpike.models import read_description

    asked = work.asked
    given = given_folder(str(asked["balanced"]), "balance")
    if given is None:
        raise ModelError(f"{asked['balanced']}: no such folder; --balanced takes one of `transpike hybrid`.")
    about = read_description(given)
    if "encoder" not in about or about.get("steps") is None:
        raise ModelError(f"{given}: holds no network with balanced thresholds; `transpike hybrid` makes one.")
    _check_shape(given, about, work)
    theirs, ours = about["encoder"], describe_encoder(asked["encoder"], asked["settings"], work.encoder)
    if any(plain(theirs[key]) != plain(ours[key]) for key in ("name", "steps", "settings")):
        raise ConfigError(
            f"{given}: balanced for --encoder {theirs['name']} --steps {theirs['steps']} with "
            f"settings={theirs['settings']}; give the same, or begin with --ann."
        )
    work.encoder.load_state_dict(read_encoder(about).state_dict())
    return _load(given), _read(given)


def tune(work: Work, balanced: Made, told: dict[str, Any]) -> tuple[Made, dict[str, Any]]:
    """The twin trained over time."""
    if work.finished("tune"):
        return _load(work.place("tune")), _read(work.place("tune"))
    trained = _fit(work, "tune", balanced.model, tuning_options(work.asked), work.encoder)
    tested, measured = measure_twin(work, balanced)
    results = results_of(work, balanced, tested, trained) | measured | {"stages": told}
    work.save("tune", balanced, results)
    return balanced, results


def _fit(work: Work, stage: str, model: nn.Module, options: TrainOptions, encode: Encode) -> Fitted:
    from transpike.train import Loaders, fit

    if first_process():
        words = {"ann": "artificial network", "tune": f"spiking network, T = {options.steps}"}
        print(f"Training the {words[stage]}", file=sys.stderr)
    sets, place = work.sets, work.place(stage)
    loaders = Loaders(sets.train, sets.validation if len(sets.validation) else None)
    resume = work.resumed and (place / "last.ckpt").is_file()
    return fit(model, loaders, options, folder=place, encode=encode, resume=resume)


def pretraining_options(asked: dict[str, Any]) -> TrainOptions:
    """How the artificial network is trained."""
    chosen = asked["pretraining"]
    return _options(asked, chosen, epochs=chosen["epochs"] or EPOCHS.get(asked["data"], 100), steps=None)


def tuning_options(asked: dict[str, Any]) -> TrainOptions:
    """How the twin is trained over time."""
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


def given_folder(name: str, stage: str) -> Path | None:
    """The folder in which an earlier run left a stage's network; None where ``name`` is a network's."""
    from transpike.models import model_names

    folder = Path(name)
    if name in model_names() or not folder.is_dir():
        return None
    inner = folder / FOLDERS[stage]
    return inner if (inner / "model.json").is_file() else folder


def _check_shape(folder: Path, about: dict[str, Any], work: Work) -> None:
    """Images as this run's encoder lays them out, and normalised as it needs them."""
    facts = {**work.shape, "mean": work.sets.mean, "std": work.sets.std}
    wanted = {name: plain(value) for name, value in facts.items()}
    found = {name: plain(about.get(name)) for name in facts}
    wrong = [f"{name} {found[name]}, here {wanted[name]}" for name in wanted if found[name] != wanted[name]]
    if wrong:
        raise ModelError(
            f"{folder}: trained on other images than this run's: {'; '.join(wrong)}. Train it by `transpike hybrid "
            "--last ann` with this data set and encoder, or give --loading.mean and --loading.std."
        )


def _load(folder: Path) -> Made:
    from transpike.models import create_model, read_description

    about = read_description(folder)
    return Made(create_model(folder), about["name"], about.get("kwargs", {}))


def _read(folder: Path) -> dict[str, Any]:
    from transpike.report.results import read_result

    return {name: value for name, value in read_result(folder).items() if name not in ("folder", "run")}
