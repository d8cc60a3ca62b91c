"""Fine-tuning: the weights of a converted network train under its spikes, so that layers need fewer silent steps."""

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
"""How a converted network is trained by default."""


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


def check_tunable(snn: SpikingNetwork) -> SpikingNetwork:
    """``snn``, if its weights can be tuned so that it needs fewer silent steps.

    Raises:
        ModelError: if it is none of ours, or its scheme has no bound to keep to.
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
        silencing: the limit of silent steps, and how they are judged.
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
    """Train, choose, test, and save the network that is handed on."""
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
    """Where networks are judged once Lightning has brought them back to the processor."""
    return torch.device("cuda" if machine.accelerator != "cpu" and torch.cuda.is_available() else "cpu")
