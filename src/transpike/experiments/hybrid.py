"""``transpike hybrid``: an artificial network; its spiking twin, thresholds balanced; the twin trained over time."""

from __future__ import annotations

import json as json_format
import sys
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from transpike.coding import DCTEncoder
from transpike.data import ImageSets, Loading, load_images
from transpike.errors import ConfigError
from transpike.experiments.hybrid_checks import check_asked
from transpike.experiments.hybrid_results import summary
from transpike.experiments.hybrid_stages import (
    Work,
    balance,
    pretraining_options,
    read_balanced,
    train_ann,
    tune,
    tuning_options,
)
from transpike.experiments.runs import Run, located, resume_run, start_run, write_json
from transpike.experiments.training import first_process
from transpike.train.options import Machine, Optim, Recipe

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Pretraining", "hybrid"]

ASKED = (
    *("ann", "data", "steps", "encoder", "settings", "network", "neuron", "root", "download", "loading"),
    *("pretraining", "balanced", "last", "percentile", "calibration", "test_steps", "epochs", "seed", "keep"),
    *("optim", "recipe", "machine"),
)
"""What run.json keeps of the command, and a resumed run needs."""

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
    results = _begin(asked, out) if resume is None else _resume(resume)
    if first_process() and json is not None:
        write_json(json, results)


def _resume(folder: Path) -> dict[str, Any]:
    asked = _recorded(folder)
    with resume_run(folder) if first_process() else nullcontext(Run(folder)) as run:
        return _stages(asked, run, resumed=True)


def _begin(asked: dict[str, Any], out: Path | None) -> dict[str, Any]:
    check_asked(asked)
    if not first_process():
        return _stages(asked, Run(out or Path("runs")), resumed=False)
    with start_run("hybrid", asked, out=out) as run:
        return _stages(asked, run, resumed=False)


def _stages(asked: dict[str, Any], run: Run, *, resumed: bool) -> dict[str, Any]:
    sets = _load_sets(asked)
    work = Work(asked, sets, _fitted_encoder(asked, sets), run, resumed)
    told: dict[str, Any] = {}
    try:
        if asked["balanced"] is None:
            network, results = train_ann(work)
            if asked["last"] != "ann":
                told["ann"] = summary(results)
                network, results = balance(work, network, told)
        else:
            network, results = read_balanced(work)
            told |= results.get("stages", {})
        if asked["last"] == "tune":
            told["balanced"] = summary(results)
            network, results = tune(work, network, told)
    except KeyboardInterrupt:
        if first_process() and any(run.folder.glob("**/last.ckpt")):
            print(f"Stopped. Continue: transpike hybrid --resume {run.folder}", file=sys.stderr)
        raise
    if first_process():
        _tell(results, told, run.folder)
    return results


def _load_sets(asked: dict[str, Any]) -> ImageSets:
    """The images, as pixels where the encoder's spikes tell of pixels."""
    from transpike.experiments.encoding import takes_pixels

    loading = Loading(**asked["loading"])
    sets = load_images(asked["data"], root=asked["root"], download=asked["download"], loading=loading)
    if takes_pixels(asked["encoder"]) and loading.mean is None and loading.std is None:
        # A network without biases cannot take up a shift: it learns from the pixels that its twin will see.
        loading = replace(loading, mean=(0.0,) * sets.channels, std=(1.0,) * sets.channels)
        sets = load_images(asked["data"], root=asked["root"], download=asked["download"], loading=loading)
    return sets


def _fitted_encoder(asked: dict[str, Any], sets: ImageSets) -> nn.Module:
    """The encoder with its thresholds."""
    from transpike.experiments.encoding import make_encoder

    encoder = make_encoder(
        asked["encoder"], steps=asked["steps"], settings=asked["settings"], mean=sets.mean, std=sets.std
    )
    if isinstance(encoder, DCTEncoder):
        encoder.fit(sets.calibration(asked["calibration"]))
    return encoder


def _tell(results: dict[str, Any], told: dict[str, Any], folder: Path) -> None:
    from rich.console import Console

    from transpike.experiments.operations import operations_table
    from transpike.experiments.spiking import spiking_tables

    console = Console(highlight=False)
    if "spiking" in results:
        # The words between the tables tell an energy that leaves out the encoder's.
        firing, _, by_steps = spiking_tables(results)
        console.print(firing, by_steps, sep="\n")
    if "operations" in results:
        console.print(operations_table(results["operations"]))
    before = "".join(f"; {stage} {row['accuracy']:.2%}" for stage, row in told.items())
    at = f" at T = {results['spiking']['steps']}" if "spiking" in results else ""
    print(
        f"{results['model']} on {results['dataset']}: {results['accuracy']:.2%} of {results['images']} test images "
        f"right{at}{before}. Written to {folder}"
    )


def _recorded(folder: Path) -> dict[str, Any]:
    """The options a run began with."""
    path = folder / "run.json"
    try:
        recorded = json_format.loads(path.read_text())
        if recorded["verb"] != "hybrid":
            raise ConfigError(f"{folder}: a run of `transpike {recorded['verb']}`, not of `transpike hybrid`.")
        options = located(recorded)
        asked: dict[str, Any] = {name: options[name] for name in ASKED}
        Loading(**asked["loading"]), pretraining_options(asked), tuning_options(asked)
    except FileNotFoundError:
        raise ConfigError(f"{folder}: no run to resume, for it has no run.json.") from None
    except (KeyError, TypeError, UnicodeDecodeError, json_format.JSONDecodeError) as error:
        raise ConfigError(f"{path}: damaged, or of another version ({error!r}). Start the training anew.") from error
    return asked
