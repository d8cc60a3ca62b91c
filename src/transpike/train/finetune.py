"""Fine-tuning: the weights of a converted network train under its spikes, so that layers need fewer silent steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional

from transpike.checks import number, whole
from transpike.coding.scheme import followed
from transpike.conversion.calibrate import collect
from transpike.conversion.network import SpikingNetwork
from transpike.conversion.reopen import proposals, reopen
from transpike.conversion.silence import measured
from transpike.conversion.tuning import Tunable
from transpike.errors import ConfigError, ModelError
from transpike.results import Evaluation, Finetuning, RunFolder, Schedule, Timed, Training
from transpike.train.classify import Classifier
from transpike.train.fitted import Batches, Fitted, Loaders
from transpike.train.loop import fit_module
from transpike.train.options import Machine, Optim, TrainOptions
from transpike.train.processes import first_process
from transpike.train.record import after_training, network_name, python_run

__all__ = ["TUNING", "Finetuned", "Silencing", "Tuner", "check_tunable", "finetune"]

Weights = Literal["converted", "tuned"]

TUNING = TrainOptions(epochs=10, optim=Optim(name="adamw", lr=1e-3, weight_decay=0.0))
"""How a converted network is trained unless told otherwise."""

CHOSEN_ON = 48
"""Validation images on which proposals of silent steps are made: one half by the rule's simulations."""


@dataclass(frozen=True)
class Silencing:
    """What is asked of silent steps.

    Attributes:
        silent: The most silent steps of a layer that the bound allows for; layers that had fewer keep theirs.
        penalty: Weight of the squared excess over the bound; 0 trains for the labels alone.
        tolerance: Percentage points of validation accuracy that may be lost.
        judged: Judge on so many validation images, the first.
    """

    silent: int = 0
    penalty: float = 10.0
    tolerance: float = 0.0
    judged: int = 1000

    def __post_init__(self) -> None:
        whole("silent", self.silent, least=0)
        number("penalty", self.penalty, least=0)
        number("tolerance", self.tolerance, least=0, most=100)
        whole("judged", self.judged)


class Tuner(Classifier):
    """A `Classifier` whose loss is the task's and what violates the bound.

    Args:
        model: the network to train.
        options: how to train.
        penalty: weight of the violation.
    """

    model: Tunable

    def __init__(self, model: Tunable, options: TrainOptions, *, penalty: float) -> None:
        super().__init__(model, options)
        self.penalty = penalty

    def terms(self, outputs: Tensor, target: Tensor, images: Tensor) -> dict[str, Tensor]:
        return super().terms(outputs, target, images) | {"violation": self.penalty * self.model.violation}


@dataclass(frozen=True)
class Finetuned(Fitted):
    """What fine-tuning gave, beside what `fit` gives.

    Attributes:
        network: the network with the fewest steps of latency that is as accurate as the one that was converted.
        record: the silent steps before and after, and what was judged.
        test: of ``network``, on the test images; None without.
    """

    network: SpikingNetwork
    record: Finetuning
    test: Judged | None

    def results(self, model: str, dataset: str) -> Training:
        """What results.json says."""
        test = self.test or Judged(math.nan, math.nan, math.nan, 0)
        evaluation = Evaluation(
            model=model, dataset=dataset, images=test.images, accuracy=test.accuracy, loss=test.loss
        )
        return replace(after_training(evaluation, self), finetuning=self.record)


@dataclass(frozen=True)
class Judged:
    """A network on images: accuracy and equal predictions in [0, 1], mean cross-entropy, how many images."""

    accuracy: float
    agreement: float
    loss: float
    images: int


def check_tunable(snn: SpikingNetwork) -> SpikingNetwork:
    """``snn``, if its weights can be tuned so that it needs fewer silent steps.

    Raises:
        ModelError: if it is none of ours, or its scheme has no bound to keep to.
    """
    if not isinstance(snn, SpikingNetwork):
        raise ModelError(
            f"finetune takes a converted network, of transpike.convert or transpike.load, not a {type(snn).__name__}"
        )
    if followed(snn.scheme, 0) is None:
        raise ModelError(
            f"finetune: under {type(snn.scheme).__name__} no bound is known that would make silent steps needless; "
            "convert with signed CSS spikes, such as scheme=CSS(steps=8)"
        )
    return snn


def finetune(
    snn: SpikingNetwork,
    loaders: Loaders,
    options: TrainOptions | None = None,
    *,
    folder: str | Path | RunFolder,
    silencing: Silencing | None = None,
    resume: bool = False,
) -> Finetuned:
    """Train the weights of a converted network under its own spikes, and choose its silent steps anew.

    Forward, the network is simulated with the silent steps that it has. Backward, gradients pass each layer as they
    pass its function at the decoded values, and not where it clips. To the task's loss comes what exceeds the bound
    below which layers follow their input with at most ``silencing.silent`` silent steps (see
    `transpike.conversion.tuning`).

    Afterwards several choices of silent steps are judged on validation images, of the tuned weights and of the
    converted ones. The network with the least latency is handed on that is as accurate on them as the network was, with
    all its silent steps; the converted network itself if there is none.

    The folder receives what `fit` writes, the network in a folder of its own (``T8``; `transpike.load` reads it), and
    results.json.

    Args:
        snn: a network of `transpike.convert` with signed CSS spikes; it is not changed.
        loaders: training and validation batches, as for `fit`.
        options: how to train; by default `TUNING`, ten epochs of AdamW.
        folder: where the run is written, as for `fit`.
        silencing: what is asked of silent steps.
        resume: continue from the folder's `last.ckpt`.

    Raises:
        ModelError: for a network that is not converted, or whose scheme has no bound.
        ConfigError: without validation images, and as `fit`.
        TranspikeError: as `fit`.

    >>> import tempfile
    >>> import transpike
    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> images = torch.eye(4).repeat(16, 1)
    >>> loader = DataLoader(TensorDataset(images, images.argmax(1)), batch_size=16, shuffle=True)
    >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    >>> ann[0].weight.data, ann[2].weight.data = torch.eye(4).repeat(4, 1), torch.eye(4).repeat(1, 4)
    >>> options = replace(TUNING, epochs=2, machine=Machine(accelerator="cpu"))
    >>> snn = transpike.convert(ann, images)
    >>> with tempfile.TemporaryDirectory() as place:
    ...     tuned = finetune(snn, Loaders(loader, loader), options, folder=place)
    >>> tuned.record.before.latency, tuned.network.latency, tuned.record.schedules[0].accuracy
    (9, 8, 1.0)
    """
    options, silencing = options or TUNING, silencing or Silencing()
    check_tunable(snn)
    if loaders.validation is None:
        raise ConfigError("finetune judges silent steps by validation images, of which there are none: hold some back.")
    if options.steps is not None:
        raise ConfigError(f"steps={options.steps}: a converted network has its own, {snn.steps}; leave steps out.")
    tuner = Tuner(Tunable(snn, silent=silencing.silent), options, penalty=silencing.penalty)
    if isinstance(folder, RunFolder):
        return _finetune(snn, tuner, loaders, silencing, folder, resume)
    more: dict[str, object] = {"silencing": vars(silencing)}
    with python_run("finetune", snn, loaders, options, folder=Path(folder), resume=resume, more=more) as run:
        tuned = _finetune(snn, tuner, loaders, silencing, run, resume)
        if first_process():
            dataset = loaders.sets.name if loaders.sets else type(loaders.train).__name__
            run.write(tuned.results(network_name(snn), dataset))
    return tuned


def _finetune(
    snn: SpikingNetwork, tuner: Tuner, loaders: Loaders, silencing: Silencing, run: RunFolder, resume: bool
) -> Finetuned:
    """Train, choose, test, and save the network that is handed on."""
    fitted = fit_module(tuner, loaders, folder=run.folder, resume=resume)
    device = _device(tuner.options.machine)
    before = snn.timed(snn.timing.waits).to(device)
    judge = _Judge(before, tuner)
    assert loaders.validation is not None
    network, schedules = _choose(before, tuner, loaders.validation, silencing, judge)
    tests = {} if loaders.test is None else judge({"before": before, "after": network}, loaders.test)
    record = Finetuning(
        steps=snn.steps,
        label=snn.scheme.label,
        network=f"T{snn.steps}",
        images=judge.images,
        tolerance=silencing.tolerance,
        before=_timed(before, tests.get("before")),
        after=_timed(network, tests.get("after")),
        schedules=schedules,
    )
    network = network.cpu()
    if first_process():
        network.save(run.folder / record.network)
    return Finetuned(**vars(fitted), network=network, record=record, test=tests.get("after"))


def _choose(
    before: SpikingNetwork, tuner: Tuner, batches: Batches, silencing: Silencing, judge: _Judge
) -> tuple[SpikingNetwork, tuple[Schedule, ...]]:
    """The network with the least latency of those as accurate as ``before``, and what was judged."""
    tuned = tuner.model.timed(before.timing.waits).to(before.device)
    images = collect(batches, CHOSEN_ON).to(before.device)
    rows: list[Schedule] = []
    networks: list[SpikingNetwork] = []

    def add(weights: Weights, how: str, network: SpikingNetwork) -> float:
        found = judge({how: network}, batches, most=silencing.judged)[how]
        rows.append(_schedule(network, found, weights=weights, waits=how))
        networks.append(network)
        return found.accuracy

    sides: tuple[tuple[Weights, SpikingNetwork], ...] = (("tuned", tuned), ("converted", before))
    with Console(stderr=True).status("judging silent steps") as status:
        wanted = add("converted", "as converted", before) - silencing.tolerance / 100
        add("tuned", "as converted", tuned)
        for weights, network in sides:
            for how, one in _fewer(network, tuner.model.wanted, images):
                if one.latency < before.latency:
                    status.update(f"judging silent steps: {weights} weights, latency {one.latency}")
                    if add(weights, how, one) >= wanted:
                        break
    met = [place for place, row in enumerate(rows) if row.accuracy >= wanted]
    best = min(met, key=lambda place: (rows[place].latency, -rows[place].accuracy))
    network = networks[best]
    network.clipped, network.residuals = dict(reopen(network, images).clipped), measured(network, images).residuals
    return network, tuple(replace(row, chosen=place == best) for place, row in enumerate(rows))


def _fewer(network: SpikingNetwork, waits: Mapping[str, int], images: Tensor) -> list[tuple[str, SpikingNetwork]]:
    """The network with fewer silent steps, a choice a latency, the least latency first."""
    asked = network.timed(waits)
    found = {asked.latency: ("as asked", asked)}
    for price, one in proposals(network, images):
        found.setdefault(one.latency, (f"price {price:g}", one))
    return [found[latency] for latency in sorted(found)]


class _Judge:
    """Measures networks beside the artificial one that was converted."""

    def __init__(self, original: SpikingNetwork, tuner: Tuner) -> None:
        self.original, self.tuner, self.images = original, tuner, 0

    @torch.no_grad()
    def __call__(
        self, networks: Mapping[str, SpikingNetwork], batches: Batches, *, most: int | None = None
    ) -> dict[str, Judged]:
        sums = {name: torch.zeros(3, dtype=torch.float64) for name in networks}
        count = 0
        for batch in batches:
            images, labels = (x[: None if most is None else most - count] for x in self.tuner.read(batch))
            images, labels = images.to(self.original.device), labels.cpu()
            same = self.original.analog(images).argmax(1).cpu()
            for name, network in networks.items():
                found = network(images).float().cpu()
                predicted, loss = found.argmax(1), functional.cross_entropy(found, labels, reduction="sum")
                sums[name] += torch.stack([(predicted == labels).sum(), (predicted == same).sum(), loss]).double()
            count += len(labels)
            if count == most:
                break
        self.images = count if most else self.images
        return {name: _judged(each / count, count) for name, each in sums.items()}


def _judged(means: Tensor, images: int) -> Judged:
    accuracy, agreement, loss = means.tolist()
    return Judged(accuracy, agreement, loss, images)


def _schedule(network: SpikingNetwork, found: Judged, *, weights: Weights, waits: str) -> Schedule:
    return Schedule(
        weights=weights,
        waits=waits,
        latency=network.latency,
        silent=sum(network.timing.waits.values()),
        accuracy=found.accuracy,
        agreement=found.agreement,
    )


def _timed(network: SpikingNetwork, tested: Judged | None) -> Timed:
    return Timed(
        latency=network.latency,
        interval=network.interval,
        waits=network.timing.waits,
        accuracy=tested.accuracy if tested else None,
        agreement=tested.agreement if tested else None,
    )


def _device(machine: Machine) -> torch.device:
    """Where networks are judged once Lightning has brought them back to the processor."""
    return torch.device("cuda" if machine.accelerator != "cpu" and torch.cuda.is_available() else "cpu")
