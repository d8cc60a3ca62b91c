"""``transpike train``: a network, a data set, and in the end a folder that the other commands read."""

from __future__ import annotations

import json as json_format
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from transpike.data import Loading
from transpike.errors import ConfigError
from transpike.experiments.runs import Run, start_run, write_json
from transpike.train.options import Machine, Optim, Recipe, TrainOptions

__all__ = ["train"]

EPOCHS = {"digits": 40, "mnist": 10, "fashion_mnist": 30, "cifar10": 100, "cifar100": 200, "folder": 100}
"""Epochs by data set where none are asked for: enough for the default network and optimiser."""

ASKED = ("model", "network", "weights", "data", "root", "download", "loading", "options", "seed")
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

    Examples:
      transpike train
      transpike train --config configs/resnet18-cifar10.yaml --root ~/data --out runs/resnet18
      transpike train --model timm/resnet18 --data folder --root imagenet --machine.precision bf16-mixed
      transpike train --resume runs/resnet18
      torchrun --nproc-per-node 4 --no-python transpike train --config configs/resnet18-cifar10.yaml

    Args:
        model: resnet18, resnet19, resnet20, vgg5, vgg9, vgg11, vgg13, vgg16, timm/<name> or torchvision/<name>.
        data: digits, mnist, fashion_mnist, cifar10, cifar100, or folder (root/train/<class>, root/val/<class>).
        root: Where the data set's files lie.
        download: Download the data set into root where it is missing.
        loading: Batches, augmentation, validation split. Its seed is replaced by `seed`.
        network: What else the network takes, such as {"width": 8} for a narrow ResNet, {"pool": "max"} for a VGG.
        weights: Start from these weights instead of random ones: a .safetensors file, a state dict or a run's folder.
        epochs: Passes over the training images; by default 40 for digits, 10 for mnist, 100 for cifar10, ...
        seed: Of the first weights, the order of images, augmentation, dropout and the validation split.
        keep: The weights to hand on: those of the last epoch, or of the best one on the validation images.
        optim: The optimiser and its schedule.
        recipe: The loss and its regularisers.
        machine: Devices and precision.
        resume: Continue this run's folder where its last finished epoch ended, with the options it began with; all
            other options are ignored.
        out: The run's folder; by default a new one under runs/.
        json: Write results.json here too.

    Raises:
        TranspikeError: An option, the data set, the weights or the folder is not as it must be; the loss is not finite.
    """
    options = TrainOptions(
        epochs=EPOCHS.get(data, 100) if epochs is None else epochs,
        seed=seed,
        keep=keep,
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

    from transpike.data import load_images
    from transpike.models import create_model, save_weights
    from transpike.train import Loaders, evaluate, fit

    options = _options(asked["options"])
    sets = load_images(
        asked["data"], root=asked["root"], download=asked["download"], loading=Loading(**asked["loading"])
    )
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
    tested = evaluate(model, sets.test, machine=options.machine)
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
    }
    if _first_process():
        facts = {"data": sets.name, "mean": sets.mean, "std": sets.std, "class_names": sets.class_names}
        run.write("model.json", {"name": asked["model"], "kwargs": asked["network"], **described, **facts})
        save_weights(model, run.folder / "weights.safetensors")
        run.write("results.json", results)
        print(
            f"{asked['model']} on {asked['data']}: {tested.accuracy:.2%} of {tested.images} test images right after "
            f"epoch {fitted.epoch} of {options.epochs}. Written to {run.folder}"
        )
    return results


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
