"""The measurements of trained networks by `transpike train`, `distill`, `hybrid` and `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from transpike.results.encoding import Encoding, Operations
from transpike.results.finetuning import Finetuning
from transpike.results.records import Count, Mistake, Steps

__all__ = ["AtSteps", "Distillation", "Epoch", "Evaluation", "FiringLayer", "Spiking", "Stage", "Training"]


@dataclass(frozen=True, kw_only=True)
class FiringLayer:
    """A layer of neurons of a trained spiking network, with means over neurons and images.

    Attributes:
        name: the layer's name.
        neurons: the number of neurons.
        rate: spikes of a neuron in a step, of either sign.
        spikes_per_neuron: spikes in all steps.
        positive_per_neuron: positive spikes.
        negative_per_neuron: negative spikes.
    """

    name: str
    neurons: Count
    rate: float
    spikes_per_neuron: float
    positive_per_neuron: float
    negative_per_neuron: float


@dataclass(frozen=True, kw_only=True)
class Spiking:
    """Firing, operations and energy of a trained spiking network for one image over all steps.

    Attributes:
        steps: T.
        neurons: the number of neurons in all layers.
        rate: spikes of a neuron in a step.
        spikes_per_neuron: spikes in all steps.
        synops: synaptic operations.
        macs: multiply-accumulates of layers with analog input.
        neuron_accumulates: additions of the neurons themselves.
        neuron_multiplications: products of the neurons themselves.
        energy_uj: the energy in microjoules.
        energy_parts_uj: the energy of each kind of operation.
        ann_macs: multiply-accumulates of an artificial network with the same layers.
        ann_energy_uj: their energy.
        layers: every layer of neurons.
    """

    steps: Steps
    neurons: Count
    rate: float
    spikes_per_neuron: float
    synops: float
    macs: float
    neuron_accumulates: float
    neuron_multiplications: float
    energy_uj: float
    energy_parts_uj: Mapping[str, float]
    ann_macs: float
    ann_energy_uj: float
    layers: tuple[FiringLayer, ...]


@dataclass(frozen=True, kw_only=True)
class AtSteps:
    """Test figures of a spiking network that runs for so many steps."""

    steps: Steps
    accuracy: float
    loss: float


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The facts about an earlier stage in the results of the last stage of `transpike hybrid`: see `Training`."""

    model: str
    accuracy: float
    loss: float
    validation_accuracy: float | None = None
    weights_of_epoch: Count | None = None

    @classmethod
    def of(cls, results: Evaluation) -> Stage:
        """Return the stage of these results."""
        trained = results if isinstance(results, Training) else None
        return cls(
            model=results.model,
            accuracy=results.accuracy,
            loss=results.loss,
            validation_accuracy=trained.validation_accuracy if trained else None,
            weights_of_epoch=trained.weights_of_epoch if trained else None,
        )


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The results of a network on test images.

    Attributes:
        model: the network's name, or its run's folder.
        dataset: the name of the data set.
        images: the number of images.
        accuracy: the share of them whose label is predicted.
        loss: the mean cross-entropy.
        by_steps: for a spiking network, its figures at several numbers of steps.
        spiking: for a spiking network, its firing and operations.
        thresholds: with an input encoder, the balanced thresholds by layer.
        accuracy_after: with an input encoder, the accuracy if the network is read after 1, 2, ..., T steps.
        encoding: the input encoder.
        operations: with an input encoder, the operations of the artificial and of the spiking network.
        stages: for `transpike hybrid`, the earlier stages: ``ann`` and ``balanced``.
    """

    model: str
    dataset: str
    images: Count
    accuracy: float
    loss: float
    by_steps: tuple[AtSteps, ...] = ()
    spiking: Spiking | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    accuracy_after: tuple[float, ...] = ()
    encoding: Encoding | None = None
    operations: Operations | None = None
    stages: Mapping[str, Stage] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.spiking is not None and not self.by_steps:
            raise Mistake("by_steps", ": expected figures of a spiking network, found none.")
        if self.encoding is not None:
            if self.spiking is None:
                raise Mistake("spiking", " is missing, where encoding stands.")
            if not self.accuracy_after:
                raise Mistake("accuracy_after", ": expected an accuracy for each step of the encoder, found none.")


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """A pass over the training images.

    Attributes:
        epoch: its number, from 1.
        loss: the mean over its batches, all terms together.
        train_accuracy: the share of training images, as they were shown, whose label is predicted.
        validation_loss: the loss after it. None without validation images.
        validation_accuracy: the accuracy after it. None without validation images.
        lr: the learning rate at its end.
        seconds: its time.
        terms: the weighted terms of the loss, by name. Empty if there is only one.
    """

    epoch: Count
    loss: float
    train_accuracy: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    lr: float
    seconds: float
    terms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """What a student learned from.

    Attributes:
        teacher: the network's name.
        method: the method's name.
        settings: the settings of the method, without defaults.
        taps: modules of the student whose features were compared, with the teacher's.
        adapter_parameters: the number of parameters that were trained beside the student and are not part of it.
        first_terms: the weighted terms of the loss in the first step.
    """

    teacher: str
    method: str
    settings: Mapping[str, object]
    taps: Mapping[str, str]
    adapter_parameters: Count
    first_terms: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Training(Evaluation):
    """A network that a run trained, on test images.

    Attributes:
        weights_of_epoch: the epoch whose weights were tested.
        validation_accuracy: the accuracy of these weights. None without validation images.
        epochs: the epochs, in order.
        distillation: what it learned from. None without a teacher.
        finetuning: for `transpike finetune`, the silent steps before and after.
    """

    weights_of_epoch: Count
    validation_accuracy: float | None
    epochs: tuple[Epoch, ...]
    distillation: Distillation | None = None
    finetuning: Finetuning | None = None
