"""The options that `transpike train` and `distill` share, with derived values and their form in run.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from transpike.checks import listed
from transpike.data import Loading
from transpike.data.event_files import EVENT_SOURCES
from transpike.errors import ConfigError, ModelError
from transpike.experiments.options import Paths, record
from transpike.experiments.source import Data
from transpike.models import check_beside
from transpike.models.zoo import TWINS
from transpike.train.options import Arguments, Machine, Optim, Recipe, TrainOptions, checked_seed, epochs_for
from transpike.train.runs import checked_steps, student_steps

__all__ = ["Learning", "recorded", "settled"]

Options = TypeVar("Options", bound="Learning")


@dataclass(frozen=True, kw_only=True)
class Learning(Paths):
    """How a network is trained, on which images, and where the results are saved.

    Attributes:
        root: The folder of the data set's files.
        download: Download the data set into root if it is missing.
        loading: Batches, augmentation and validation split. The seed of the run replaces `loading.seed`.
        network: Arguments of the network.
        weights: Start from these weights instead of random ones: a .safetensors file, a state dict or the folder of a
            run.
        start: A trained artificial network with the same layers: the folder of its run, or its weights. The spiking
            network starts from the converted weights and thresholds of this network. Only for spiking_resnet18, 19 and
            20, and spiking_vgg5 to 16.
        steps: T, the number of time steps of a spiking network. The default is 4.
        split_by: How to split a recording of events into T frames: with equal numbers of events (number), or of equal
            duration (time).
        test_steps: Other numbers of steps at which a spiking network is tested. The default is 1, 2 and 2T.
        epochs: Passes over the training images. The default is 40 for digits, 10 for mnist, 100 for cifar10, ...
        seed: Seed of the initial weights, the order of images, the augmentation, dropout and the validation split.
        keep: Keep the weights of the last epoch, or of the epoch with the best validation accuracy.
        optim: The optimiser and its schedule.
        recipe: The loss and its regularisers.
        machine: Devices and precision.
        resume: Continue the run in this folder with its own options. A killed run continues after its last finished
            epoch. Other options on the command line must have the same values as in that run.
        out: The run's folder. The default is a new folder under runs/.
        json: Write a copy of results.json to this path.
    """

    root: Path = Path("data")
    download: bool = False
    loading: Loading = Loading()
    network: Arguments | None = None
    weights: Path | None = None
    start: Path | None = None
    steps: int | None = None
    split_by: Literal["number", "time"] = "number"
    test_steps: list[int] | int | None = None
    epochs: int | None = None
    seed: int = 0
    keep: Literal["last", "best"] = "last"
    optim: Optim = Optim()
    recipe: Recipe = Recipe()
    machine: Machine = Machine()
    resume: Path | None = None
    out: Path | None = None
    json: Path | None = None

    @property
    def data(self) -> str:
        """The data set's name."""
        raise NotImplementedError

    @property
    def learner(self) -> str:
        """The network to train: its name, or the folder of a run with a network like it."""
        raise NotImplementedError

    @property
    def frames(self) -> int | None:
        """For events: T, or a multiple of it."""
        return self.steps

    @property
    def images(self) -> Data:
        """The data for training and test."""
        return Data(self.data, self.root, self.download, self.loading, self.split_by)

    @property
    def training(self) -> TrainOptions:
        """The options of the training."""
        epochs = epochs_for(self.data, self.epochs)
        return TrainOptions(epochs, self.seed, self.keep, self.steps, self.optim, self.recipe, self.machine)


def settled(options: Options) -> Options:
    """Return the options with derived values: T, the seed of the images.

    Raises:
        ConfigError: Network and data, or network and T, do not fit together; or an option is out of range.
    """
    checked_seed(options.seed)
    check_beside(options.network)
    chosen = replace(
        options,
        loading=replace(options.loading, seed=options.seed),
        network=options.network or {},
        steps=student_steps(options.learner, options.data, options.steps),
        test_steps=checked_steps(options.test_steps),
    )
    _ = chosen.training
    if options.start is not None:
        _check_start(options)
    return chosen


def _check_start(options: Learning) -> None:
    if options.weights is not None:
        raise ConfigError("start: it sets the weights; omit --weights.")
    if options.learner not in TWINS:
        raise ModelError(
            f"start: {options.learner} does not have the same layers as an ANN here. Use {listed(TWINS)}. For a "
            "network whose layers have the same names, --weights takes the weights alone."
        )
    if options.data in EVENT_SOURCES:
        raise ConfigError(f"start: {options.data} gives frames of events, and an artificial network takes images.")


def recorded(options: Learning, **more: object) -> dict[str, object]:
    """Return the options in the form of run.json, in which the training options are an object of their own."""
    how = asdict(options.training)
    rest = {name: value for name, value in record(options).items() if name == "seed" or name not in how}
    return {**rest, "options": how, **more}
