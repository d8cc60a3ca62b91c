"""Training options as values: every field is a flag of `transpike train` and a key of the files in `configs/`."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from transpike.checks import choice, is_whole, number, refuse, whole
from transpike.errors import ConfigError

__all__ = ["EPOCHS", "Arguments", "Machine", "Optim", "Recipe", "TrainOptions", "checked_seed", "epochs_for"]

Arguments = dict[str, Any]
"""Keyword arguments of a network, a neuron, an encoder or a method, as YAML or JSON write them."""

EPOCHS = {
    **{"digits": 40, "mnist": 10, "fashion_mnist": 30, "cifar10": 100, "cifar100": 200, "folder": 100},
    **{"nmnist": 20, "cifar10_dvs": 100, "dvs128_gesture": 100},
}
"""Default epochs for each data set: enough for the default network and optimiser."""


def checked_seed(seed: object) -> int:
    """Return ``seed`` if it is valid.

    Raises:
        ConfigError: It is not valid.
    """
    return whole("seed", seed, least=0, most=2**32 - 1)


def epochs_for(data: str, epochs: int | None) -> int:
    """Return ``epochs``, or if it is None the default in `EPOCHS`.

    Example:
        >>> epochs_for("digits", None), epochs_for("digits", 3)
        (40, 3)
    """
    return EPOCHS.get(data, 100) if epochs is None else epochs


@dataclass(frozen=True)
class Optim:
    """The optimiser. Its learning rate has a linear warm-up, then half a cosine or steps, and changes with every batch.

    Attributes:
        name: "sgd" (with momentum) or "adamw".
        lr: The highest learning rate.
        lr_min: The learning rate at the end of the cosine.
        milestones: After each of these epochs, the learning rate is multiplied by `decay`. With milestones there
            is no cosine.
        decay: The factor by which the learning rate changes after each epoch of `milestones`.
        warmup: Length of the warm-up in epochs. It may be a fraction.
        weight_decay: L2 penalty (sgd) or decoupled decay (adamw).
        decay_all: Apply the weight decay also to norm weights and biases.
        momentum: The momentum of sgd.
        nesterov: Use Nesterov's momentum in sgd.
        clip: The largest norm of the gradient. None means no limit.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    lr_min: float = 0.0
    milestones: tuple[int, ...] = ()
    decay: float = 0.1
    warmup: float = 1.0
    weight_decay: float = 5e-4
    decay_all: bool = False
    momentum: float = 0.9
    nesterov: bool = True
    clip: float | None = None

    def __post_init__(self) -> None:
        choice("optim.name", self.name, ("sgd", "adamw"))
        number("optim.lr", self.lr, above=0)
        number("optim.lr_min", self.lr_min, least=0, most=self.lr)
        number("optim.decay", self.decay, above=0, most=1)
        number("optim.warmup", self.warmup, least=0)
        number("optim.weight_decay", self.weight_decay, least=0)
        number("optim.momentum", self.momentum, least=0, below=1)
        if self.clip is not None:
            number("optim.clip", self.clip, above=0)
        stairs = list(self.milestones) if isinstance(self.milestones, list | tuple) else [None]
        if not all(map(is_whole, stairs)) or any(a >= b for a, b in pairwise((0, *stairs))):
            raise refuse("optim.milestones", self.milestones, "ascending epochs from 1 on")
        if self.lr_min and self.milestones:
            raise refuse("optim.lr_min", self.lr_min, "0 where milestones are given")
        if self.nesterov and not self.momentum:
            raise refuse("optim.nesterov", self.nesterov, "false where momentum is 0")


@dataclass(frozen=True)
class Recipe:
    """The loss, and how images and labels are mixed for it.

    Attributes:
        label_smoothing: The share of the target that is spread over all classes.
        mixup: Alpha of the Beta distribution that mixes pairs of images. 0 means no mixing.
        cutmix: Alpha of the Beta distribution of the pasted area. 0 means no pasting. If mixup is set too, each batch
            uses one of the two, at random.
        mix_share: The share of the batches that are mixed.
        mix_epochs: The number of epochs with mixed images, at the start of the training. None means all epochs.
        ema: Decay per step of a moving average of the weights. The average is then validated, tested and exported. None
            means no average.
        loss: "ce", cross-entropy of the mean over time; or "tet", cross-entropy of every step (spiking networks).
        tet_lambda: Weight of TET's regulariser, the squared distance of every logit from 1.
    """

    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_share: float = 1.0
    mix_epochs: int | None = None
    ema: float | None = None
    loss: Literal["ce", "tet"] = "ce"
    tet_lambda: float = 0.05

    def __post_init__(self) -> None:
        number("recipe.label_smoothing", self.label_smoothing, least=0, below=1)
        number("recipe.mixup", self.mixup, least=0)
        number("recipe.cutmix", self.cutmix, least=0)
        number("recipe.mix_share", self.mix_share, least=0, most=1)
        if self.mix_epochs is not None:
            whole("recipe.mix_epochs", self.mix_epochs)
        if self.ema is not None:
            number("recipe.ema", self.ema, above=0, below=1)
        number("recipe.tet_lambda", self.tet_lambda, least=0, below=1)
        choice("recipe.loss", self.loss, ("ce", "tet"))


@dataclass(frozen=True)
class Machine:
    """The devices that compute, and the precision.

    Attributes:
        precision: "32-true" or "bf16-mixed".
        accelerator: "auto", "cpu" or "gpu".
        devices: The number of devices. "auto" means all GPUs, or one CPU process. Under torchrun, the number of its
            processes is used instead.
    """

    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        choice("machine.precision", self.precision, ("32-true", "bf16-mixed"))
        choice("machine.accelerator", self.accelerator, ("auto", "cpu", "gpu"))
        if self.devices != "auto" and not (is_whole(self.devices) and self.devices >= 1):
            raise refuse("machine.devices", self.devices, "a whole number of at least 1, or 'auto'")


@dataclass(frozen=True)
class TrainOptions:
    """Everything that `fit` needs to know beside the network and the images.

    Attributes:
        epochs: Passes over the training images.
        seed: Seed of the order of images, the augmentation and dropout. The network's initial weights are set by
            the function that makes it.
        keep: Return the weights of the "last" epoch, or of the epoch "best" on the validation images.
        steps: Time steps T of a spiking network, which then sees every image T times. None for an ANN.
        optim: The optimiser.
        recipe: The loss and its regularisers.
        machine: Devices and precision.

    Raises:
        ConfigError: A value is out of range. The message names the option.

    Example:
        >>> TrainOptions(epochs=0)
        Traceback (most recent call last):
        ...
        transpike.errors.ConfigError: epochs=0: expected a whole number of at least 1.
    """

    epochs: int = 100
    seed: int = 0
    keep: Literal["last", "best"] = "last"
    steps: int | None = None
    optim: Optim = field(default_factory=Optim)
    recipe: Recipe = field(default_factory=Recipe)
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        whole("epochs", self.epochs)
        checked_seed(self.seed)
        if self.steps is not None:
            whole("steps", self.steps)
        choice("keep", self.keep, ("last", "best"))
        if max(self.optim.milestones, default=0) >= self.epochs:
            raise refuse("optim.milestones", self.optim.milestones, f"epochs before the last, {self.epochs}")
        if self.recipe.loss == "tet" and self.steps is None:
            raise ConfigError("recipe.loss='tet' is the loss of every time step: give steps.")
