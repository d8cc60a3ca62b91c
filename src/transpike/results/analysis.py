"""The results of `transpike analyze`: frequencies of features and logits, and the networks' focus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from itertools import product
from typing import Literal

from transpike.results.records import Count, Curve, Matrix, Mistake, Steps, check_lengths, check_matrix
from transpike.results.stages import Bands, Features, Similarity, Size

__all__ = [
    "Analysis",
    "Filter",
    "HeatMap",
    "LogitCurve",
    "LogitRow",
    "Logits",
    "Network",
    "Neuron",
    "Saliency",
    "Shown",
    "SpikeSpectrum",
]


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network under analysis. Other records name it by its position in the list, from 0.

    Attributes:
        label: its name in tables and figures.
        role: teacher or student.
        model: the network's name.
        steps: T. None for a network without time.
        accuracy: the accuracy on the analysed images.
        method: the method of its distillation. None without one.
        adapts: what this method does to the maps before it compares them, as a sentence. None if it does nothing.
    """

    label: str
    role: Literal["teacher", "student"]
    model: str
    steps: Steps | None
    accuracy: float
    method: str | None = None
    adapts: str | None = None


@dataclass(frozen=True, kw_only=True)
class LogitCurve:
    """A network's logits in the first network's order, averaged over images.

    Attributes:
        network: the network's number.
        mean: the mean by rank, minus each image's mean.
        high: the root mean square of their high frequencies, by rank.
        rms: the root mean square of all logits.
        rms_high: the root mean square of all high frequencies.
        distance_high: their distance from the first network's.
    """

    network: Count
    mean: Curve
    high: Curve
    rms: float
    rms_high: float
    distance_high: float


@dataclass(frozen=True, kw_only=True)
class LogitRow:
    """A network's logits for one image in the first network's order, and their high frequencies."""

    network: Count
    logits: Curve
    high: Curve


@dataclass(frozen=True, kw_only=True)
class Logits:
    """Means over images, and some single images."""

    curves: tuple[LogitCurve, ...]
    single: tuple[tuple[LogitRow, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Magnitudes of a learned filter: over all frequencies with zero in the middle, or over places.

    Attributes:
        network: the student with which it was learned.
        tap: the student's module.
        domain: frequency or spatial.
        size: the size of the maps.
        weights: [H, W].
        high_over_low: the mean weight above 1/4 cycle per pixel over the mean below. None in the spatial domain.
    """

    network: Count
    tap: str
    domain: str
    size: Size
    weights: Matrix
    high_over_low: float | None

    def __post_init__(self) -> None:
        check_matrix(self.weights, "weights")


@dataclass(frozen=True, kw_only=True)
class SpikeSpectrum:
    """Power of a neuron's spikes, relative to white noise, and spikes per step."""

    frequency: Curve
    power: Curve
    rate: float

    def __post_init__(self) -> None:
        check_lengths(frequency=self.frequency, power=self.power)


@dataclass(frozen=True, kw_only=True)
class Neuron:
    """A kind of spiking neuron as a filter over time.

    Attributes:
        networks: the networks that have it.
        type: its class.
        decay: the share of the membrane that remains after a step. 1 without a leak.
        gain: the share of the input that reaches the membrane.
        layers: the number of layers of this kind in the first network.
        other_layers: the number of its layers of another kind.
        frequency: in cycles per step.
        expected: |H| at each frequency.
        measured_amplitude: the amplitude measured with sinusoids, below threshold.
        measured_power: the power measured with white noise, below threshold.
        spikes: the spectrum of the spikes, above threshold.
    """

    networks: tuple[Count, ...]
    type: str
    decay: float
    gain: float
    layers: Count
    other_layers: Count
    frequency: Curve
    expected: Curve
    measured_amplitude: Curve
    measured_power: Curve
    spikes: SpikeSpectrum

    def __post_init__(self) -> None:
        check_lengths(
            frequency=self.frequency,
            expected=self.expected,
            measured_amplitude=self.measured_amplitude,
            measured_power=self.measured_power,
        )


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An image as a PNG in base64, and its class."""

    png: str
    label: str


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """The places of an image on which a network relies: Grad-CAM [H, W] for its class, from 0 to 1; the prediction."""

    network: Count
    image: Count
    map: Matrix
    prediction: str

    def __post_init__(self) -> None:
        check_matrix(self.map, "map")


@dataclass(frozen=True, kw_only=True)
class Saliency:
    """Images, a heat map of each network for each image, and the module of each network that gave it."""

    images: tuple[Shown, ...]
    panels: tuple[HeatMap, ...]
    taps: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """A teacher, if there is one, and students, on the same images.

    Attributes:
        model: the first student's name.
        dataset: the name of the data set.
        part: the part of the data set.
        images: the number of images.
        networks: the networks, the teacher first if there is one.
        features: the spectra of each student's stages.
        stages: the wavelet sub-bands of these stages. Empty without a teacher.
        similarity: the similarity of each student to the teacher. Empty without a teacher, or with too few images.
        logits: the logits in the first network's order.
        filters: the filters that distillation learned.
        neurons: each kind of spiking neuron.
        saliency: the networks' focus.
    """

    model: str
    dataset: str
    part: Literal["test", "validation"]
    images: Count
    networks: tuple[Network, ...]
    features: tuple[Features, ...]
    stages: tuple[Bands, ...]
    similarity: tuple[Similarity, ...]
    logits: Logits
    filters: tuple[Filter, ...]
    neurons: tuple[Neuron, ...]
    saliency: Saliency

    def __post_init__(self) -> None:
        if not self.networks:
            raise Mistake("networks", ": expected at least one network, found none.")
        count = len(self.networks)
        for path, network in _places(self, ""):
            if not 0 <= network < count:
                raise Mistake(path, f"={network}: expected the place of one of {count} networks, from 0.")
        mapped = {(panel.image, panel.network) for panel in self.saliency.panels}
        for image, network in product(range(len(self.saliency.images)), range(count)):
            if (image, network) not in mapped:
                raise Mistake(
                    "saliency.panels", f": expected a map of image {image} for network {network}, found none."
                )


def _places(value: object, path: str) -> Iterator[tuple[str, int]]:
    """Yield every path in a record that names a network by its number, and this number."""
    if isinstance(value, tuple):
        for place, item in enumerate(value):
            if isinstance(item, int) and path.endswith(".networks"):
                yield f"{path}[{place}]", item
            elif not isinstance(item, float):
                yield from _places(item, f"{path}[{place}]")
    elif is_dataclass(value):
        for field in fields(value):
            item, inside = getattr(value, field.name), f"{path}.{field.name}".removeprefix(".")
            if field.name in ("network", "student"):
                yield inside, item
            else:
                yield from _places(item, inside)
