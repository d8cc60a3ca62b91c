"""The results of `transpike analyze` at pairs of stages: spectra, wavelet sub-bands, and similarity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transpike.results.records import Count, Curve, Matrix, Mistake, Steps, check_lengths, check_matrix

__all__ = ["Bands", "Energies", "Features", "Left", "Picture", "Similarity", "Size", "Spectrum"]

Size = tuple[Steps, Steps]


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """The mean power of a network's maps by distance from zero frequency.

    Attributes:
        network: the network's number.
        adapted: whether the maps are those that its method compares.
        frequency: in cycles per pixel.
        power: the power at each frequency.
        variance: the variance of the maps.
        high: the share of the variance above 1/4 cycle per pixel.
    """

    network: Count
    adapted: bool
    frequency: Curve
    power: Curve
    variance: float
    high: float

    def __post_init__(self) -> None:
        check_lengths(frequency=self.frequency, power=self.power)


@dataclass(frozen=True, kw_only=True)
class Left:
    """The difference between student and teacher as a share of the teacher's power, at low and at high frequencies.

    It is None if the teacher has no power there.

    Attributes:
        before: with the student's maps only projected.
        after: with the student's maps as its method compares them.
    """

    before: tuple[float | None, float | None]
    after: tuple[float | None, float | None]


@dataclass(frozen=True, kw_only=True)
class Features:
    """Spectra of the maps after a stage of a student, and of its teacher's.

    Attributes:
        student: the student's number.
        tap: the student's module.
        teacher_tap: the teacher's module. None without a teacher.
        size: the size of the maps, on a common grid.
        white_high: `Spectrum.high` of white noise.
        curves: the teacher's, the student's, and the student's adapted spectrum.
        left: the remaining difference. None if the student's method adapts no maps.
        sigma: the width of the Gaussian with which its method compares maps, in cycles per pixel. None without one.
    """

    student: Count
    tap: str
    teacher_tap: str | None
    size: Size
    white_high: float
    curves: tuple[Spectrum, ...]
    left: Left | None
    sigma: float | None


@dataclass(frozen=True, kw_only=True)
class Energies:
    """The mean energy of a network's maps in each sub-band."""

    network: Count
    adapted: bool
    energy: Curve


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Sub-bands of one channel of a network's map of an image.

    Attributes:
        network: the network's number.
        adapted: whether the map is the one that its method compares.
        image: the image's number.
        label: its class.
        channel: the channel in which the teacher's map varies most.
        bands: the sub-bands in the order of `Bands.bands`.
    """

    network: Count
    adapted: bool
    image: Count
    label: str
    channel: Count
    bands: tuple[Matrix, ...]


@dataclass(frozen=True, kw_only=True)
class Bands:
    """Wavelet sub-bands of the maps after a stage of a student, and of its teacher's.

    Attributes:
        student: the student's number.
        tap: the student's module.
        teacher_tap: the teacher's module.
        size: the size of the maps, on a common grid.
        wavelet: the wavelet's name.
        bands: their names: the low-pass rest, then three details for each level, the coarsest first.
        white: the share of each in the energy of white noise.
        curves: the teacher's, the student's, and the student's adapted energies.
        pictures: sub-bands of some images, if the student's method refines sub-bands.
    """

    student: Count
    tap: str
    teacher_tap: str
    size: Size
    wavelet: str
    bands: tuple[str, ...]
    white: Curve
    curves: tuple[Energies, ...]
    pictures: tuple[Picture, ...]

    def __post_init__(self) -> None:
        if len(self.bands) % 3 != 1:
            raise Mistake("bands", f": expected a rest and three details a level, found {len(self.bands)}.")
        check_lengths(bands=self.bands, white=self.white)
        for place, curve in enumerate(self.curves):
            check_lengths(f"curves[{place}]", bands=self.bands, energy=curve.energy)
        for place, picture in enumerate(self.pictures):
            check_lengths(f"pictures[{place}]", names=self.bands, bands=picture.bands)
            _check_mosaic(picture.bands, f"pictures[{place}].bands")


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """Linear CKA of a student's stages with its teacher's.

    Attributes:
        student: the student's number.
        adapted: whether its maps are those that its method compares.
        taps: the student's modules.
        teacher_taps: the teacher's modules.
        cka: a row for each of the student's modules. NaN if one never varies.
    """

    student: Count
    adapted: bool
    taps: tuple[str, ...]
    teacher_taps: tuple[str, ...]
    cka: Matrix

    def __post_init__(self) -> None:
        check_lengths(taps=self.taps, cka=self.cka)
        for place, row in enumerate(self.cka):
            check_lengths(f"cka[{place}]", teacher_taps=self.teacher_taps, values=row)


def _check_mosaic(bands: Sequence[Matrix], path: str) -> None:
    """Check that three details are as large as the rest, and twice as large at each finer level."""
    height, width = 0, 0
    for place, band in enumerate(bands):
        check_matrix(band, f"{path}[{place}]")
        if place == 0:
            height, width = len(band), len(band[0])
        elif place % 3 == 1 and place > 1:
            height, width = 2 * height, 2 * width
        if (len(band), len(band[0])) != (height, width):
            found = f"{len(band)} x {len(band[0])}"
            raise Mistake(f"{path}[{place}]", f": expected {height} x {width}, found {found}.")
