"""The measurements of networks with an input encoder by `transpike hybrid`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from transpike.results.records import Mistake, Steps, check_lengths, check_named

__all__ = ["Encoding", "Operations", "Part", "Rebuilt"]

MOST_POOLINGS = 32


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """A test image, and what can be rebuilt from the encoder's spikes.

    Attributes:
        label: its class.
        png: the image, a PNG in base64.
        rebuilt: a PNG for each number of steps.
    """

    label: str
    png: str
    rebuilt: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """An input encoder, and the images rebuilt from its spikes.

    Attributes:
        scheme: its ``name``, ``steps``, and all of its settings.
        words: the words of tables and plots for each setting, by name. A setting without words is shown by name and
            value.
        spikes: the mean number of spikes for one image over all steps.
        steps: the steps after which images are rebuilt. The last is T.
        error: the root mean square of the error after each, in pixels of [0, 1].
        images: some of the images.
    """

    scheme: Mapping[str, object]
    words: Mapping[str, str] = field(default_factory=dict)
    spikes: float
    steps: tuple[Steps, ...]
    error: tuple[float, ...]
    images: tuple[Rebuilt, ...]

    def __post_init__(self) -> None:
        check_named(self.scheme)
        check_lengths(steps=self.steps, error=self.error)
        if not self.steps:
            raise Mistake("steps", ": expected at least one T, found none.")
        if not self.images:
            raise Mistake("images", ": expected at least one image, found none.")
        for place, image in enumerate(self.images):
            check_lengths(f"images[{place}]", steps=self.steps, rebuilt=image.rebuilt)


@dataclass(frozen=True, kw_only=True)
class Part:
    """The operations of one network, or of one part of it, for one image.

    Attributes:
        part: ``ann``, the artificial network for the image as the encoder lays it out; ``ann_image``, the same for the
            original image; ``synapses``, ``neurons`` and ``encoder`` of the spiking network, and all three together,
            ``spiking``.
        macs: multiply-accumulates.
        accumulates: additions and comparisons.
        multiplications: products.
        shifts: products with a power of two.
        energy_uj: the energy in microjoules.
    """

    part: Literal["ann_image", "ann", "synapses", "neurons", "encoder", "spiking"]
    macs: float
    accumulates: float
    multiplications: float
    shifts: float
    energy_uj: float


@dataclass(frozen=True, kw_only=True)
class Operations:
    """The operations of the networks of `transpike hybrid` for one image.

    Attributes:
        image: the image's size, [C, H, W].
        input: its size as the encoder lays it out.
        poolings: how often the network halves it.
        rows: each network, and the parts of the spiking one.
        steps: T of the spiking network. None without one.
        input_rate: the factor that, with T, turns Eq. 13 of the artificial network into the synapses' additions.
    """

    image: tuple[Steps, Steps, Steps]
    input: tuple[Steps, Steps, Steps]
    poolings: int
    rows: tuple[Part, ...]
    steps: Steps | None = None
    input_rate: float | None = None

    def __post_init__(self) -> None:
        parts = {row.part for row in self.rows}
        spiking = {"synapses", "neurons", "encoder", "spiking"}
        if "ann" not in parts or parts & spiking not in (set(), spiking):
            raise Mistake("rows", ": expected the artificial network, and all parts of the spiking one or none.")
        if "spiking" in parts and self.steps is None:
            raise Mistake("steps", ": expected T of the spiking network, found none.")
        if not 0 <= self.poolings <= MOST_POOLINGS:
            raise Mistake("poolings", f"={self.poolings}: expected a number from 0 to {MOST_POOLINGS}.")

    @property
    def by_part(self) -> dict[str, Part]:
        """The rows by their part."""
        return {row.part: row for row in self.rows}
