"""What `transpike convert` and `evaluate` measure of converted networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from transpike.results.limits import Limits
from transpike.results.records import Count, Mistake, Steps, check_named

__all__ = ["Ann", "Calibration", "Conversion", "Early", "Layer", "Pictured", "Row", "Spikes", "Try"]

Spikes = Literal["needed", "blocks", "operators"]
"""Where a converted network has neurons: where they are needed, behind every residual block too, at every operator."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer of neurons of a converted network. Counts and energies are means over images; theta is its amplitude.

    Attributes:
        name: the layer's name.
        function: what its neurons compute.
        neurons: how many.
        amplitude: theta, the value of a unit spike in the last step; None for a layer that passes analog values on.
        peak: the largest value that a train of unit spikes encodes.
        clipped: share of the values that no train can write; None where a scheme has no such limit.
        coupled: share of the other values whose residual exceeds theta.
        error: root mean square of decoded less original value, in theta.
        own_error: of it what the layer's own neurons make, whatever their input says.
        error_share_clipping: of the squared own error, what the clipped values make.
        error_share_coupling: what the coupled values make.
        binding: the largest part of the own error.
        spikes_per_neuron: of either sign.
        positive_per_neuron: positive spikes.
        negative_per_neuron: negative spikes.
        fan_out: synapses of a neuron, a mean.
        synops: synaptic operations that its spikes cause.
        energy_uj: of these and of its own updates, in microjoules.
        delay: steps after the image's arrival until it may fire.
        evaluations: of its function by a neuron in a step; 0 where comparisons with bounds do, as for ReLU.
        evaluation_operations: additions, comparisons and multiplications of one evaluation, for a neuron.
        state: values that a neuron keeps from step to step.
        group: values that one result needs together: 1, or those of a norm's or a softmax's group.
        products: multi-bit operations that its spikes cause in products of two trains.
        output_resolution: the squared relative error at the network's output that its own error causes by resolution,
            to first order; None where it was not measured.
        output_clipping: by clipping.
        output_coupling: by coupling.
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
    """Answers taken before the last step: means over images, each of which stopped when its answer was sure.

    Attributes:
        agreement: the share of answers that were to be as those of full runs; None where all images stop at one step.
        images: how many.
        changed: the share of answers that differ from those of full runs.
        changed_error: its standard error.
        accuracy: share of images whose label is predicted; None without labels.
        steps: of the output.
        latency: steps from an image's arrival, waits of the layers included.
        energy_uj: for an image, in microjoules; None where it was not measured.
        stopped: how many images stopped after each of the T steps.
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
        steps: of the output that it ran.
    """

    png: str
    label: str
    steps: Steps


@dataclass(frozen=True, kw_only=True)
class Row:
    """A converted network under one scheme, beside the network it was made from.

    Counts and energies are means over the first ``layer_images`` images, all other figures over all of them.

    Attributes:
        scheme: its ``name``, and all of its settings.
        label: what tells it from others in a narrow table, T aside.
        words: what tables and plots call a setting, by its name; a setting without is called by name and value.
        steps: T, for which an image is encoded.
        latency: steps from the image's arrival until the output stands.
        latency_zero_delay: the same for hardware whose encoder sends its first spike as the image arrives.
        interval: steps after which the next image may enter.
        depth: layers that fire on the longest path, and the classifier.
        accuracy: share of images whose label is predicted; None without labels.
        loss_pp: percentage points of accuracy that the original network has more; None without labels.
        agreement: share of images for which both networks predict the same class.
        logit_error: norm of the difference of centred logits, relative to the original's; None where that is 0.
        spikes_per_neuron: for one image, over all layers but the input's encoder.
        positive_per_neuron: positive spikes.
        negative_per_neuron: negative spikes.
        synops: synaptic operations: an addition for each spike and outgoing synapse.
        shifts: of them those by a power of two.
        multiplications: of them those by another factor.
        payload_bits: sent as spikes.
        spike_bits: that one spike carries beside its address.
        train_bits: that a train may carry: T times the bits of a digit, zero being one.
        products: multi-bit operations of products of two trains.
        function_operations: of evaluating functions that are more than comparisons, in all steps.
        neuron_updates: other operations of the neurons themselves.
        energy_uj: of all operations, in microjoules.
        energy_parts_uj: of each kind of operation.
        seconds: that the simulation took for all images.
        images_per_second: of the simulation.
        layer_images: how many images counts, energies and layers are measured on.
        layers: the input's encoder first.
        network: the folder in the run's folder that holds the network; None where none was saved.
        spikes: where it has neurons.
        measures: of the outputs beside the original network's, by name: 1 where they are alike.
        label_measures: of the outputs beside labels.
        output_errors: of each output the norm of the difference, relative to that of the original's less its mean over
            images; and of what is decoded before more is done to it, as by a softmax.
        output_error: relative error of the decoded outputs on the images on which its layers were diagnosed.
        advice: the setting of the scheme, by name, that would reduce the error most; empty if there is none.
        diagnosis: what binds, where, and what to do, in a sentence or two.
        early: answers taken as soon as they are sure, then those of one step for all; empty where not measured.
        unstreamed: why the network cannot have any.
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
        accuracy: share of images whose label is predicted; None without labels.
        macs: multiply-accumulates for one image.
        energy_uj: of these and of one evaluation of each function that is more than comparisons, in microjoules.
        images_per_second: on this machine.
        measures: of its outputs beside labels, by name.
    """

    accuracy: float | None
    macs: float
    energy_uj: float
    images_per_second: float
    measures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How many training images set the amplitudes."""

    images: Count


@dataclass(frozen=True, kw_only=True)
class Try:
    """A network that a search tried, judged on calibration images that its amplitudes have not seen.

    Attributes:
        code: what tells it from others in a narrow table, T and silent steps aside.
        scheme: its ``name``, and all of its settings.
        steps: T, for which an image is encoded.
        latency: steps from the image's arrival until the output stands.
        payload_bits: that a spike carries beside its address.
        images: it was judged on so many, fewer than there are where the goal was out of reach, 0 where a limit was.
        same: share of them for which both networks predict the same class.
        kept: the same with every deviation of the outputs enlarged by the goal's margin, which is what the goal asks.
        error: norm of the difference of centred outputs, relative to the original's.
        loss_pp: percentage points of accuracy lost, with deviations enlarged likewise; None without labels.
        measure: of the outputs beside the original's, where the goal asks for one.
        mean_steps: of the output, where each image stops when its answer is sure; of those alone that meet the goal,
            where a mean latency was a limit.
        mean_latency: the same in steps from an image's arrival.
        energy_uj: for an image, in microjoules; of those alone that meet the goal.
        spikes_per_neuron: for an image; of those alone that meet the goal.
        met: whether it meets the goal.
        fits: whether it keeps the limits.
        chosen: whether the search took it.
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
        dataset: the images' name.
        images: how many test images.
        ann: the network that was converted.
        rows: a converted network each; at least one.
        calibration: None where networks were loaded, not made.
        glossary: what terms of the rows' schemes mean.
        goal: what was searched for, in words; None where the scheme was given.
        tries: the networks that the search tried, in its order.
        technology: what energies are of.
        target_loss: percentage points of accuracy; of each code the least T that loses no more was looked for.
        limits: what the best row must keep; None where none were given.
        refused: codes that have no neurons for the network, by what tells them from others, and why.
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
