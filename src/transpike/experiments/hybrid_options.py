"""The options of ``transpike hybrid``, and their checks before images are read or a folder is created."""

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
    """How the artificial network is trained, before the spiking twin.

    Attributes:
        epochs: Passes over the training images. The default is that of `transpike train`.
        batch_size: Images in a batch. The default is that of the twin.
        network: Arguments of the artificial network alone, such as {"dropout": 0.5}.
        optim: The optimiser and its schedule.
        recipe: The loss and its regularisers.
    """

    epochs: int | None = None
    batch_size: int | None = None
    network: Arguments = field(default_factory=dict)
    optim: Optim = field(default_factory=lambda: Optim(lr=0.05, weight_decay=1e-4))
    recipe: Recipe = field(default_factory=Recipe)


@dataclass(frozen=True)
class Hybrid(Paths):
    """Train an artificial network, copy its weights into a spiking network (its twin), set the thresholds of the twin,
    and train the twin over time.

    This is the method of DCT-SNN, which reaches a good accuracy in few steps. It has three phases:

    - ann: train the artificial network.
    - balance: make the twin and set its thresholds.
    - tune: train the twin over time.

    The run's folder holds the network of the last phase and has the same files as a folder of `transpike train`.
    `transpike evaluate` and `transpike report` read it. The subfolders ann/ and balanced/ hold the networks of the
    earlier phases. `transpike evaluate` reads them too.

    A run can use the networks of an earlier run: --ann FOLDER takes its trained artificial network, and --balanced
    FOLDER takes its balanced twin. With --last the run stops after the phase that you name.

    The networks are mlp, vgg5, vgg9, vgg11 and vgg13. They have no biases and no normalisation, and use average
    pooling.

    Examples:
      transpike hybrid
      transpike hybrid --config configs/dct/mnist.yaml --root data
      transpike hybrid --ann vgg9 --data cifar10 --steps 48 --settings '{"stride": 2, "color": "ycbcr"}' --last ann
      transpike hybrid --ann runs/hybrid-20261121-110000 --data mnist --steps 5
      transpike hybrid --balanced runs/hybrid-20261121-110000 --data mnist --steps 5 --optim.lr 1e-4
      transpike hybrid --resume runs/hybrid-20261121-110000

    Attributes:
        ann: The artificial network. If it is mlp, vgg5, vgg9, vgg11 or vgg13, the command trains it first. If it is the
            folder of a `transpike train` or `hybrid` run, the command takes the trained network of this run.
        data: The data set: digits, mnist, fashion_mnist, cifar10, cifar100 or folder.
        steps: T, the number of time steps.
        encoder: The input encoder: dct, direct, poisson, latency, phase or burst.
        settings: Settings of the encoder, such as {"stride": 2, "order": "interleaved", "frequencies": 8}.
        network: Arguments of the artificial and the spiking network, such as {"hidden": 100, "dropout": 0.2}. An
            artificial network from a folder keeps the arguments of its run.
        neuron: Arguments of the neurons, such as {"leak_when": "silent"}.
        root: The folder of the data set's files.
        download: Download the data set into root if it is missing.
        loading: Batches, augmentation and validation split. The seed of the run replaces `loading.seed`.
        pretraining: How the artificial network is trained.
        balanced: The folder of an earlier run. Start from its balanced twin.
        last: The last phase to run.
        percentile: A layer's threshold is this percentile of its input.
        calibration: The number of training images that set the thresholds of the encoder and the layers.
        test_steps: Other numbers of steps at which the network is tested. The default is T/2 and 2T.
        epochs: Passes over the training images in the last phase.
        seed: Seed of the initial weights, the order of images, the augmentation, dropout and the validation split.
        keep: Keep the weights of the last epoch, or of the epoch with the best validation accuracy. This applies to the
            first and the last phase.
        optim: The optimiser of the last phase and its schedule.
        recipe: The loss of the last phase and its regularisers.
        machine: Devices and precision.
        resume: Continue the run in this folder with its own options. Other options on the command line must have the
            same values as in that run.
        out: The run's folder. The default is a new folder under runs/.
        json: Write a copy of results.json to this path.
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
        """The options for training the artificial network."""
        how = self.pretraining
        epochs = epochs_for(self.data, how.epochs)
        return TrainOptions(epochs, self.seed, self.keep, None, how.optim, how.recipe, self.machine)

    @property
    def last_training(self) -> TrainOptions:
        """The options for training its twin over time."""
        return TrainOptions(self.epochs, self.seed, self.keep, self.steps, self.optim, self.recipe, self.machine)


def settled(options: Hybrid) -> Hybrid:
    """Return the options with the seed of the images, if a run can start with them.

    Raises:
        ConfigError: An option has a wrong type, is out of range, or does not belong to the encoder, networks or neuron.
        ModelError: There is no such network, it has no spiking twin, or a layer is not allowed in one.
    """
    checked_seed(options.seed)
    for arguments in (options.network, options.neuron, options.pretraining.network):
        check_beside(arguments)
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
    """Check options before images are read or a folder is created."""
    _ = chosen.first_training, chosen.last_training
    if chosen.pretraining.batch_size is not None:
        whole("pretraining.batch_size", chosen.pretraining.batch_size)
    if chosen.balanced is not None and chosen.last != "tune":
        raise ConfigError(f"--balanced begins with the last phase: leave out --last {chosen.last}.")
    number("percentile", chosen.percentile, above=0, most=100)
    whole("calibration", chosen.calibration)
    with warnings.catch_warnings(action="ignore"):  # the run's own encoder will warn
        create_encoder(chosen.encoder, steps=chosen.steps, settings=chosen.settings or {}, mean=(0.0,), std=(1.0,))
    if chosen.balanced is None:
        check_networks(
            chosen.ann,
            network=chosen.network or {},
            alone=chosen.pretraining.network,
            neuron=chosen.neuron or {},
        )
