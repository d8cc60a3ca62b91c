"""The options of ``transpike hybrid``, and what can be wrong with them before images are read or a folder is made."""

from __future__ import annotations

import warnings
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Literal

from transpike.checks import number, whole
from transpike.coding import create_encoder
from transpike.data import Loading
from transpike.errors import ConfigError
from transpike.experiments.options import Paths
from transpike.models import check_beside
from transpike.train.options import Arguments, Machine, Optim, Recipe, TrainOptions, checked_seed, epochs_for
from transpike.train.runs import checked_steps
from transpike.train.stages import check_networks

__all__ = ["Hybrid", "Pretraining", "settled"]

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
    network: Arguments = field(default_factory=dict)
    optim: Optim = field(default_factory=lambda: Optim(lr=0.05, weight_decay=1e-4))
    recipe: Recipe = field(default_factory=Recipe)


@dataclass(frozen=True)
class Hybrid(Paths):
    """Train an artificial network, give its weights and balanced thresholds to its spiking twin, and train that.

    DCT-SNN's route to few steps. The last stage's network lies in the run's folder, which is as that of `transpike
    train`: `transpike evaluate` and `report` read it. Those of the stages before lie in ann/ and balanced/, for
    `evaluate`. Each stage can begin with what an earlier run has saved: --ann FOLDER takes a trained artificial
    network, --balanced FOLDER a run's balanced twin. --last ends with an earlier stage.

    Networks have no biases and no normalisation, and pool by averages: mlp, vgg5, vgg9, vgg11, vgg13.

    Examples:
      transpike hybrid
      transpike hybrid --config configs/dct/mnist.yaml --root data
      transpike hybrid --ann vgg9 --data cifar10 --steps 48 --settings '{"stride": 2, "color": "ycbcr"}' --last ann
      transpike hybrid --ann runs/hybrid-20261121-110000 --data mnist --steps 5
      transpike hybrid --balanced runs/hybrid-20261121-110000 --data mnist --steps 5 --optim.lr 1e-4
      transpike hybrid --resume runs/hybrid-20261121-110000

    Attributes:
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
        resume: Continue this run's folder with the options it began with; others beside it must be the same.
        out: The run's folder; by default a new one under runs/.
        json: Write results.json here too.
    """

    ann: str = "mlp"
    data: str = "digits"
    _: KW_ONLY
    steps: int = 16
    encoder: str = "dct"
    settings: Arguments | None = None
    network: Arguments | None = None
    neuron: Arguments | None = None
    root: Path = Path("data")
    download: bool = False
    loading: Loading = Loading()
    pretraining: Pretraining = Pretraining()
    balanced: Path | None = None
    last: Literal["ann", "balance", "tune"] = "tune"
    percentile: float = 99.9
    calibration: int = 512
    test_steps: list[int] | int | None = None
    epochs: int = 20
    seed: int = 0
    keep: Literal["last", "best"] = "last"
    optim: Optim = TUNING
    recipe: Recipe = Recipe()
    machine: Machine = Machine()
    resume: Path | None = None
    out: Path | None = None
    json: Path | None = None

    @property
    def first_training(self) -> TrainOptions:
        """How the artificial network is trained."""
        how = self.pretraining
        epochs = epochs_for(self.data, how.epochs)
        return TrainOptions(epochs, self.seed, self.keep, None, how.optim, how.recipe, self.machine)

    @property
    def last_training(self) -> TrainOptions:
        """How its twin is trained over time."""
        return TrainOptions(self.epochs, self.seed, self.keep, self.steps, self.optim, self.recipe, self.machine)


def settled(options: Hybrid) -> Hybrid:
    """The options with the seed of the images, if a run can begin with them.

    Raises:
        ConfigError: an option is of the wrong type, out of range, or not the encoder's, the networks' or the neuron's.
        ModelError: there is no such network, it has no spiking twin, or a layer has no place in one.
    """
    checked_seed(options.seed)
    for given in (options.network, options.neuron, options.pretraining.network):
        check_beside(given)
    chosen = replace(
        options,
        loading=replace(options.loading, seed=options.seed),
        test_steps=checked_steps(options.test_steps),
        settings=options.settings or {},
        network=options.network or {},
        neuron=options.neuron or {},
    )
    _check(chosen)
    return chosen


def _check(chosen: Hybrid) -> None:
    """Refuse options before images are read or a folder is made."""
    _ = chosen.first_training, chosen.last_training
    if chosen.balanced is not None and chosen.last != "tune":
        raise ConfigError(f"--balanced begins with the last stage: leave out --last {chosen.last}.")
    number("percentile", chosen.percentile, above=0, most=100)
    whole("calibration", chosen.calibration)
    with warnings.catch_warnings(action="ignore"):  # the run's own encoder warns
        create_encoder(chosen.encoder, steps=chosen.steps, settings=chosen.settings or {}, mean=(0.0,), std=(1.0,))
    if chosen.balanced is None:
        check_networks(
            chosen.ann,
            network=chosen.network or {},
            alone=chosen.pretraining.network,
            neuron=chosen.neuron or {},
        )
