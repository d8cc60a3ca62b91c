"""``transpike train``: a network, a data set, and in the end a folder that the other commands read."""

from __future__ import annotations

import json as json_format
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from transpike.data import EventSets, ImageSets, Loading, load_events, load_images
from transpike.data.event_files import EVENT_SOURCES
from transpike.errors import ConfigError
from transpike.experiments.runs import Run, start_run, write_json
from transpike.train.options import Machine, Optim, Recipe, TrainOptions

__all__ = ["train"]

EPOCHS = {
    **{"digits": 40, "mnist": 10, "fashion_mnist": 30, "cifar10": 100, "cifar100": 200, "folder": 100},
    **{"nmnist": 20, "cifar10_dvs": 100, "dvs128_gesture": 100},
}
"""Epochs by data set where none are asked for: enough for the default network and optimiser."""

STEPS = 4
"""T of a spiking network where none is asked for."""

ASKED = (
    *("model", "network", "weights", "data", "root", "download", "loading"),
    *("split_by", "test_steps", "options", "seed"),
)
"""What run.json keeps of a command, and a resumed run needs."""


def train(
    model: str = "resnet20",
    data: str = "digits",
    *,
    root: Path = Path("data"),
    download: bool = False,
    loading: Loading = Loading(),
    network: dict[str, Any] | None = None,
    weights: Path | None = None,
    steps: int | None = None,
    split_by: Literal["number", "time"] = "number",
    test_steps: list[int] | int | None = None,
    epochs: int | None = None,
    seed: int = 0,
    keep: Literal["last", "best"] = "last",
    optim: Optim = Optim(),
    recipe: Recipe = Recipe(),
    machine: Machine = Machine(),
    resume: Path | None = None,
    out: Path | None = None,
    json: Path | None = None,
) -> None:
    """Train a network on a data set; without any option, a ResNet-20 on scikit-learn's digits.

    The run's folder receives the weights (weights.safetensors) and what they are of (model.json), results.json,
    curves.csv, TensorBoard events, and checkpoints of the last and of the best epoch. Hand the folder to `transpike
    convert`. The test images are looked at once, at the end.

    A spiking network sees every image T times, or T frames of events; its logits are the mean over time. Its firing
    rates, operations and energy are told at the end, and its accuracy at other T.

    Examples:
      transpike train
      transpike train --model sew_resnet19 --network '{"width": 16}' --steps 4 --recipe.loss tet
      transpike train --model spikingformer_2_256 --data cifar10_dvs --steps 10 --split-by time
      transpike train --config configs/resnet18-cifar10.yaml --root ~/data --out runs/resnet18
      transpike train --model timm/resnet18 --data folder --root imagenet --machine.precision bf16-mixed
      transpike train --resume runs/resnet18
      torchrun --nproc-per-node 4 --no-python transpike train --config configs/resnet18-cifar10.yaml

    Args:
        model: resnet18, resnet19, resnet20, vgg5, vgg9, vgg11, vgg13, vgg16, timm/<name>, torchvision/<name>; spiking:
            sew_resnet18, sew_resnet19, spiking_resnet19, spiking_vgg16, spikingformer_4_384, qkformer_4_384, ...
        data: digits, mnist, fashion_mnist, cifar10, cifar100, or folder (root/train/<class>, root/val/<class>); events,
            for spiking networks: nmnist, cifar10_dvs, dvs128_gesture.
        root: Where the data set's files lie.
        download: Download the data set into root where it is missing.
        loading: Batches, augmentation, validation split. Its seed is replaced by `seed`.
        network: What else the network takes, such as {"width": 8} for a narrow ResNet, {"pool": "max"} for a VGG,
            {"spiking_neuron": "LIFNode", "tau": 2.0} for a spiking one.
        weights: Start from these weights instead of random ones: a .safetensors file, a state dict or a run's folder.
        steps: T of a spiking network, 4 by default.
        split_by: How a recording of events is split into T frames: by number of events, or by time.
        test_steps: Other numbers of steps to test a spiking network at; by default 1, 2 and 2T.
        epochs: Passes over the training images; by default 40 for digits, 10 for mnist, 100 for cifar10, ...
        seed: Of the first weights, the order of images, augmentation, dropout and the validation split.
        keep: The weights to hand on: those of the last epoch, or of the best one on the validation images.
        optim: The optimiser and its schedule.
        recipe: The loss and its regularisers.
        machine: Devices and precision.
        resume: Continue this run's folder where it stopped, or, if it was killed, where its last finished epoch ended,
            with the options it began with; all other options are ignored.
        out: The run's folder; by default a new one under runs/.
        json: Write results.json here too.

    Raises:
        TranspikeError: An option, the data set, the weights or the folder is not as it must be; the loss is not finite.
    """
    options = TrainOptions(
        epochs=EPOCHS.get(data, 100) if epochs is None else epochs,
        seed=seed,
        keep=keep,
        steps=steps if resume else _steps(model, data, steps),
        optim=optim,
        recipe=recipe,
        machine=machine,
    )
    asked: dict[str, Any] = {
        "model": model,
        "network": network or {},
        "weights": weights,
        "data": data,
        "root": root,
        "download": download,
        "loading": asdict(loading) | {"seed": seed},
        "split_by": split_by,
        "test_steps": [test_steps] if isinstance(test_steps, int) else test_steps,
        "options": asdict(options),
        "seed": seed,
    }
    if resume is not None:
        results = _train(_recorded(resume), Run(resume), resumed=True)
    elif _first_process():
        with start_run("train", asked, out=out) as run:
            results = _train(asked, run, resumed=False)
    else:
        results = _train(asked, Run(out or Path("runs")), resumed=False)
    if _first_process() and json is not None:
        write_json(json, results)


def _train(asked: dict[str, Any], run: Run, *, resumed: bool) -> dict[str, Any]:
    import torch

    from transpike.experiments.spiking import measure_spiking
    from transpike.models import create_model, save_weights
    from transpike.train import Loaders, evaluate, fit

    options = _options(asked["options"])
    sets = _sets(asked, options.steps)
    described = {"num_classes": sets.classes, "in_channels": sets.channels, "image_size": sets.size}
    torch.manual_seed(options.seed)
    model = create_model(asked["model"], **described, weights=asked["weights"], **asked["network"])
    loaders = Loaders(sets.train, sets.validation if len(sets.validation) else None)
    try:
        fitted = fit(model, loaders, options, folder=run.folder, resume=resumed)
    except KeyboardInterrupt:
        if _first_process() and (run.folder / "last.ckpt").exists():
            print(f"Stopped. Continue: transpike train --resume {run.folder}", file=sys.stderr)
        raise
    if _first_process():
        facts = {"data": sets.name, "class_names": sets.class_names, "steps": options.steps}
        facts |= {name: getattr(sets, name) for name in ("mean", "std", "split_by") if hasattr(sets, name)}
        run.write("model.json", {"name": asked["model"], "kwargs": asked["network"], **described, **facts})
        save_weights(model, run.folder / "weights.safetensors")
    measured: dict[str, Any] = {}
    if options.steps is None:
        tested = evaluate(model, sets.test, machine=options.machine)
    else:
        steps, others = options.steps, asked["test_steps"]
        tested, measured = measure_spiking(
            model,
            lambda count: sets.test if count == steps or isinstance(sets, ImageSets) else _sets(asked, count).test,
            steps=steps,
            others=[1, 2, 2 * steps] if others is None else others,
            machine=options.machine,
        )
    results = {
        "kind": "training",
        "version": 1,
        "model": asked["model"],
        "dataset": asked["data"],
        "images": tested.images,
        "accuracy": tested.accuracy,
        "loss": tested.loss,
        "weights_of_epoch": fitted.epoch,
        "validation_accuracy": fitted.validation_accuracy,
        "epochs": fitted.curves,
        **measured,
    }
    if _first_process():
        run.write("results.json", results)
        _tell(results, run.folder, options)
    return results


def _tell(results: dict[str, Any], folder: Path, options: TrainOptions) -> None:
    from rich.console import Console

    from transpike.experiments.spiking import spiking_tables

    if "spiking" in results:
        Console(highlight=False).print(*spiking_tables(results), sep="\n")
    at = f" at T = {options.steps}" if options.steps else ""
    print(
        f"{results['model']} on {results['dataset']}: {results['accuracy']:.2%} of {results['images']} test images "
        f"right{at} after epoch {results['weights_of_epoch']} of {options.epochs}. Written to {folder}"
    )


def _sets(asked: dict[str, Any], steps: int | None) -> ImageSets | EventSets:
    data, root, loading = asked["data"], asked["root"], Loading(**asked["loading"])
    if data in EVENT_SOURCES:
        return load_events(data, steps=steps or STEPS, split_by=asked["split_by"], root=root, loading=loading)
    return load_images(data, root=root, download=asked["download"], loading=loading)


def _steps(model: str, data: str, steps: int | None) -> int | None:
    """T, or None for an artificial network.

    Raises:
        ConfigError: Network and data, or T, do not go together.
    """
    from transpike.models import read_description
    from transpike.models.zoo import SPIKING

    name = read_description(model)["name"] if Path(model).is_dir() else model
    if name in SPIKING:
        return STEPS if steps is None else steps
    for fact, holds in ((f"{data} gives frames of events", data in EVENT_SOURCES), (f"steps={steps}", steps)):
        if holds:
            raise ConfigError(f"{fact}, which is for spiking networks; {name} is none. Take {', '.join(SPIKING)}.")
    return None


def _options(recorded: dict[str, Any]) -> TrainOptions:
    nested = {"optim": Optim, "recipe": Recipe, "machine": Machine}
    return TrainOptions(
        **{name: nested[name](**value) if name in nested else value for name, value in recorded.items()}
    )


def _recorded(folder: Path) -> dict[str, Any]:
    """The options a run began with."""
    path = folder / "run.json"
    try:
        recorded = json_format.loads(path.read_text())
        if recorded["verb"] != "train":
            raise ConfigError(f"{folder}: a run of `transpike {recorded['verb']}`, not of `transpike train`.")
        asked: dict[str, Any] = {name: recorded["options"][name] for name in ASKED}
        Loading(**asked["loading"]), _options(asked["options"])
    except FileNotFoundError:
        raise ConfigError(f"{folder}: no run to resume, for it has no run.json.") from None
    except (KeyError, TypeError, UnicodeDecodeError, json_format.JSONDecodeError) as error:
        raise ConfigError(f"{path}: damaged, or of another version ({error!r}). Start the training anew.") from error
    return asked


def _first_process() -> bool:
    from lightning.pytorch.utilities import rank_zero_only

    return bool(getattr(rank_zero_only, "rank", 0) == 0)
