"""The measurements of converted networks by `transpike convert` and `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from transpike.results.limits import Limits
from transpike.results.records import Count, Mistake, Steps, check_named

__all__ = ["Ann", "Calibration", "Conversion", "Early", "Layer", "Pictured", "Row", "Spikes", "Try"]

Spikes = Literal["needed", "blocks", "operators"]
"""Where a converted network has neurons: only where needed, also after every residual block, or at every operator."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer of neurons of a converted network. Counts and energies are means over images; theta is its amplitude.

    Attributes:
        name: the layer's name.
        function: the function that its neurons compute.
        neurons: the number of neurons.
        amplitude: theta, the value of a unit spike in the last step. None for a layer that passes analog values on.
        peak: the largest value that a train of unit spikes represents.
        clipped: the share of values that no train can represent. None if a scheme has no such limit.
        coupled: the share of the other values with a residual above theta.
        error: the root mean square of decoded minus original value, in theta.
        own_error: the part of it that the layer's own neurons cause, for their actual input.
        error_share_clipping: the share of the squared own error from clipped values.
        error_share_coupling: the share from coupled values.
        binding: the largest part of the own error.
        spikes_per_neuron: spikes of either sign.
        positive_per_neuron: positive spikes.
        negative_per_neuron: negative spikes.
        fan_out: synapses from a neuron, on average.
        synops: synaptic operations that its spikes cause.
        energy_uj: the energy of these and of its own updates, in microjoules.
        delay: steps from the image's arrival until it may fire.
        evaluations: evaluations of its function by a neuron in a step. 0 if comparisons with bounds suffice, as for
            ReLU.
        evaluation_operations: additions, comparisons and multiplications of one evaluation, for a neuron.
        state: values that a neuron keeps from step to step.
        group: the number of values that one result needs together: the group of a norm or a softmax, otherwise 1.
        products: multi-bit operations that its spikes cause in products of two trains.
        output_resolution: the squared relative error at the network's output that its own error causes by resolution,
            to first order. None if not measured.
        output_clipping: the same by clipping.
        output_coupling: the same by coupling.
    """

    name: str
    function: str
    neurons: Count
    amplitude: float | None
    peak: float | None
    clipped: float | None
    coupled: float | None
    error: float | None
    own_error: float | None
    error_share_clipping: float | None
    error_share_coupling: float | None
    binding: Literal["clipping", "coupling", "resolution"] | None
    spikes_per_neuron: float
    positive_per_neuron: float
    negative_per_neuron: float
    fan_out: float
    synops: float
    energy_uj: float
    delay: Count
    evaluations: Count = 0
    evaluation_operations: float = 0.0
    state: float = 0.0
    group: Count = 1
    products: float = 0.0
    output_resolution: float | None = None
    output_clipping: float | None = None
    output_coupling: float | None = None


@dataclass(frozen=True, kw_only=True)
class Early:
    """Answers before the last step: means over images, each of which stopped when its answer was sure.

    Attributes:
        agreement: the required share of answers equal to those of full runs. None if all images stop at one step.
        images: the number of images.
        changed: the share of answers that differ from those of full runs.
        changed_error: its standard error.
        accuracy: the share of images whose label is predicted. None without labels.
        steps: steps of the output.
        latency: steps from an image's arrival, including the waits of the layers.
        energy_uj: the energy of an image, in microjoules. None if not measured.
        stopped: the number of images that stopped after each of the T steps.
    """

    agreement: float | None
    images: Count
    changed: float
    changed_error: float
    accuracy: float | None
    steps: float
    latency: float
    energy_uj: float | None
    stopped: tuple[Count, ...]


@dataclass(frozen=True, kw_only=True)
class Pictured:
    """An image whose answer was taken as soon as it was sure.

    Attributes:
        png: the image, a PNG in base64.
        label: its class.
        steps: the number of the output's steps that it ran.
    """

    png: str
    label: str
    steps: Steps


@dataclass(frozen=True, kw_only=True)
class Row:
    """A converted network under one scheme, compared with the original network.

    Counts and energies are means over the first ``layer_images`` images. All other figures are over all images.

    Attributes:
        scheme: its ``name``, and all of its settings.
        label: a short name that distinguishes it from others in a narrow table, without T.
        words: the words of tables and plots for each setting, by name. A setting without words is shown by name and
            value.
        steps: T, the number of steps that encode an image.
        latency: steps from the image's arrival until the output is complete.
        latency_zero_delay: the same for hardware whose encoder sends its first spike when the image arrives.
        interval: steps after which the next image may enter.
        depth: the number of firing layers on the longest path, plus one for the classifier.
        accuracy: the share of images whose label is predicted. None without labels.
        loss_pp: the original network's accuracy minus this, in percentage points. None without labels.
        agreement: the share of images for which both networks predict the same class.
        logit_error: the norm of the difference of centred logits, relative to the original's. None if that is 0.
        spikes_per_neuron: spikes for one image, over all layers except the input's encoder.
        positive_per_neuron: positive spikes.
        negative_per_neuron: negative spikes.
        synops: synaptic operations: an addition for each spike and outgoing synapse.
        shifts: those among them with a power of two.
        multiplications: those among them with another factor.
        payload_bits: the bits sent as spikes.
        spike_bits: the bits that one spike carries beside its address.
        train_bits: the bits that a train may carry: T times the bits of a digit, including zero.
        products: multi-bit operations of products of two trains.
        function_operations: operations that evaluate functions beyond comparisons, in all steps.
        neuron_updates: other operations of the neurons themselves.
        energy_uj: the energy of all operations, in microjoules.
        energy_parts_uj: the energy of each kind of operation.
        seconds: the time of the simulation for all images.
        images_per_second: the speed of the simulation.
        layer_images: the number of images for counts, energies and layers.
        layers: the layers, the input's encoder first.
        network: the folder in the run's folder that holds the network. None if none was saved.
        spikes: where it has neurons.
        measures: measures of the outputs against the original network's, by name. 1 means equal.
        label_measures: measures of the outputs against labels.
        output_errors: for each output, the norm of the difference relative to that of the original's minus its mean
            over images; also for decoded values before further operations, such as a softmax.
        output_error: the relative error of the decoded outputs on the images of the diagnosis.
        advice: the setting of the scheme, by name, that would reduce the error most. Empty if there is none.
        diagnosis: the main cause, its layer and a remedy, in a sentence or two.
        early: answers that stop when they are sure, then those of one step for all. Empty if not measured.
        unstreamed: the reason why the network cannot have any.
        pictured: images of early answers: the easiest, then as many of the hardest.
    """

    scheme: Mapping[str, object]
    label: str = ""
    words: Mapping[str, str] = field(default_factory=dict)
    steps: Steps
    latency: Count
    latency_zero_delay: Count
    interval: Count
    depth: Count
    accuracy: float | None
    loss_pp: float | None
    agreement: float
    logit_error: float | None
    spikes_per_neuron: float
    positive_per_neuron: float
    negative_per_neuron: float
    synops: float
    shifts: float
    multiplications: float
    payload_bits: float
    neuron_updates: float
    energy_uj: float
    energy_parts_uj: Mapping[str, float]
    seconds: float
    images_per_second: float
    layer_images: Count
    layers: tuple[Layer, ...]
    spike_bits: Count = 0
    train_bits: float = 0.0
    products: float = 0.0
    function_operations: float = 0.0
    network: str | None = None
    spikes: Spikes = "needed"
    measures: Mapping[str, float] = field(default_factory=dict)
    label_measures: Mapping[str, float] = field(default_factory=dict)
    output_errors: Mapping[str, float] = field(default_factory=dict)
    output_error: float | None = None
    advice: Mapping[str, object] = field(default_factory=dict)
    diagnosis: str = ""
    early: tuple[Early, ...] = ()
    unstreamed: str = ""
    pictured: tuple[Pictured, ...] = ()

    def __post_init__(self) -> None:
        check_named(self.scheme)


@dataclass(frozen=True, kw_only=True)
class Ann:
    """The network that was converted.

    Attributes:
        accuracy: the share of images whose label is predicted. None without labels.
        macs: multiply-accumulates for one image.
        energy_uj: the energy of these and of one evaluation of each function beyond comparisons, in microjoules.
        images_per_second: the speed on this machine.
        measures: measures of its outputs against labels, by name.
    """

    accuracy: float | None
    macs: float
    energy_uj: float
    images_per_second: float
    measures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The number of training images that set the amplitudes."""

    images: Count


@dataclass(frozen=True, kw_only=True)
class Try:
    """A network that a search tried, judged on calibration images that were not used for its amplitudes.

    Attributes:
        code: a short name that distinguishes it from others in a narrow table, without T and silent steps.
        scheme: its ``name``, and all of its settings.
        steps: T, the number of steps that encode an image.
        latency: steps from the image's arrival until the output is complete.
        payload_bits: the bits that a spike carries beside its address.
        images: the number of images that judged it. It is smaller if the goal was out of reach, and 0 if a limit was.
        same: the share of them for which both networks predict the same class.
        kept: the same with every deviation of the outputs multiplied by the goal's margin. The goal requires this
            share.
        error: the norm of the difference of centred outputs, relative to the original's.
        loss_pp: percentage points of accuracy lost, with multiplied deviations. None without labels.
        measure: the measure of the outputs against the original's, if the goal has one.
        mean_steps: the mean number of the output's steps if each image stops when its answer is sure. Only for networks
            that meet the goal, if a mean latency was a limit.
        mean_latency: the same in steps from an image's arrival.
        energy_uj: the energy of an image, in microjoules. Only for networks that meet the goal.
        spikes_per_neuron: spikes for an image. Only for networks that meet the goal.
        met: whether it meets the goal.
        fits: whether it keeps the limits.
        chosen: whether the search chose it.
    """

    code: str
    scheme: Mapping[str, object]
    steps: Steps
    latency: Count
    payload_bits: Count
    images: Count = 0
    same: float | None = None
    kept: float | None = None
    error: float | None = None
    loss_pp: float | None = None
    measure: float | None = None
    mean_steps: float | None = None
    mean_latency: float | None = None
    energy_uj: float | None = None
    spikes_per_neuron: float | None = None
    met: bool = False
    fits: bool = True
    chosen: bool = False

    def __post_init__(self) -> None:
        check_named(self.scheme)


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A network converted under one or several schemes, measured on test images.

    Attributes:
        model: the network's name.
        dataset: the name of the data set.
        images: the number of test images.
        ann: the network that was converted.
        rows: a row for each converted network, at least one.
        calibration: the calibration. None if networks were loaded, not converted.
        glossary: the meanings of the terms of the rows' schemes.
        goal: the goal of the search, in words. None if the scheme was given.
        tries: the networks that the search tried, in order.
        technology: the technology of the energies.
        target_loss: percentage points of accuracy. For each code, the least T that loses no more was searched.
        limits: the limits for the best row. None if there are none.
        refused: the codes without neurons for the network, by their short names, and the reasons.
    """

    model: str
    dataset: str
    images: Count
    ann: Ann
    rows: tuple[Row, ...]
    calibration: Calibration | None = None
    glossary: Mapping[str, str] = field(default_factory=dict)
    goal: str | None = None
    tries: tuple[Try, ...] = ()
    technology: str = "45 nm"
    target_loss: float | None = None
    limits: Limits | None = None
    refused: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.rows:
            raise Mistake("rows", ": expected at least one row. The run was interrupted before its first result.")
