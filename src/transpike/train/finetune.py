"""Fine-tuning: trains a converted network's weights under its own spikes, so that it needs fewer silent steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from transpike.coding.scheme import followed
from transpike.coding.tracking import TrackingNeuron
from transpike.conversion.network import SpikingNetwork
from transpike.conversion.tuning import Tunable
from transpike.errors import ConfigError, ModelError
from transpike.results import Evaluation, Finetuning, RunFolder, Timed, Training
from transpike.train.classify import Classifier
from transpike.train.fitted import Fitted, Loaders
from transpike.train.loop import fit_module
from transpike.train.options import Machine, Optim, TrainOptions
from transpike.train.processes import first_process
from transpike.train.rechoose import Judge, Judged, Silencing, rechoose
from transpike.train.record import after_training, network_name, python_run

__all__ = ["TUNING", "Finetuned", "Silencing", "Tuner", "check_tunable", "finetune"]

TUNING = TrainOptions(epochs=10, optim=Optim(name="adamw", lr=1e-3, weight_decay=0.0))
"""The default options for training a converted network."""


class Tuner(Classifier):
    """A `Classifier` whose loss is the task's loss plus the violation of the bound.

    Args:
        model: the network to train.
        options: how to train.
        penalty: the weight of the violation.
    """

    model: Tunable

    def __init__(self, model: Tunable, options: TrainOptions, *, penalty: float) -> None:
        super().__init__(model, options)
        self.penalty = penalty

    def terms(self, outputs: Tensor, target: Tensor, images: Tensor) -> dict[str, Tensor]:
        return super().terms(outputs, target, images) | {"violation": self.penalty * self.model.violation}


@dataclass(frozen=True)
class Finetuned(Fitted):
    """The results of fine-tuning, in addition to those of `fit`.

    Attributes:
        network: the network with the least latency that is as accurate as the converted network.
        record: the silent steps before and after, and the judged choices.
        test: the test of ``network`` on the test images. None without test images.
    """

    network: SpikingNetwork
    record: Finetuning
    test: Judged | None

    def results(self, model: str, dataset: str) -> Training:
        """Return the content of results.json."""
        test = self.test or Judged(math.nan, math.nan, math.nan, 0)
        evaluation = Evaluation(
            model=model, dataset=dataset, images=test.images, accuracy=test.accuracy, loss=test.loss
        )
        return replace(after_training(evaluation, self), finetuning=self.record)


def check_tunable(snn: SpikingNetwork) -> SpikingNetwork:
    """Return ``snn`` if its weights can be tuned so that it needs fewer silent steps.

    Raises:
        ModelError: It is not a network of ours, or its scheme has no bound.
    """
    if not isinstance(snn, SpikingNetwork):
        raise ModelError(
            f"finetune takes a converted network, of transpike.convert or transpike.load, not a {type(snn).__name__}"
        )
    tracks = all(isinstance(neuron, TrackingNeuron) for neuron in snn.neurons.values())
    if followed(snn.scheme, 0) is None or not tracks:
        raise ModelError(
            f"finetune: {type(snn.scheme).__name__} has no known bound below which silent steps are unnecessary; "
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

    The forward pass simulates the network with its present silent steps. In the backward pass, gradients pass each
    layer as they pass its function at the decoded values, and stop where it clips. The loss is the task's loss plus the
    excess over a bound. Below this bound, layers follow their input with at most ``silencing.silent`` silent steps (see
    `transpike.conversion.tuning`).

    Afterwards several choices of silent steps are judged on validation images, with the tuned weights and with the
    converted ones. The result is the network with the least latency that is as accurate on these images as the original
    with all its silent steps. If there is none, it is the converted network itself.

    The folder receives the files of `fit`, the network in its own folder (``T8``; `transpike.load` reads it), and
    results.json.

    Args:
        snn: a network of `transpike.convert` with signed CSS spikes. It is not changed.
        loaders: training and validation batches, as for `fit`.
        options: how to train. The default is `TUNING`, ten epochs of AdamW.
        folder: the folder of the run, as for `fit`.
        silencing: the limit of silent steps, and how choices are judged.
        resume: continue from the folder's `last.ckpt`.

    Raises:
        ModelError: The network is not converted, or its scheme has no bound.
        ConfigError: There are no validation images; and as `fit`.
        TranspikeError: As for `fit`.

    Example:
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
        raise ConfigError(
            "finetune judges silent steps on validation images, and there are none: set "
            "loading.validation, the share of training images that is held back, such as 0.1."
        )
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
    """Train, choose silent steps, test, and save the resulting network."""
    fitted = fit_module(tuner, loaders, folder=run.folder, resume=resume)
    device = _device(tuner.options.machine)
    before = snn.timed(snn.timing.waits).to(device)
    tuned = tuner.model.timed(snn.timing.waits).to(device)
    judge = Judge(before, tuner.read)
    assert loaders.validation is not None
    network, schedules = rechoose(before, tuned, tuner.model.wanted, loaders.validation, silencing, judge)
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


def _timed(network: SpikingNetwork, tested: Judged | None) -> Timed:
    return Timed(
        latency=network.latency,
        interval=network.interval,
        waits=network.timing.waits,
        accuracy=tested.accuracy if tested else None,
        agreement=tested.agreement if tested else None,
    )


def _device(machine: Machine) -> torch.device:
    """Return the device for judging networks, after Lightning has moved them back to the CPU."""
    return torch.device("cuda" if machine.accelerator != "cpu" and torch.cuda.is_available() else "cpu")
