"""The measurements of `transpike analyze` at pairs of stages: spectra, wavelet sub-bands, and similarity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from transpike.distill.adapter import on_grid
from transpike.distill.bsd import SpectralResidualDistillation
from transpike.distill.map_losses import gaussian_frequency_loss
from transpike.distill.refinement import WaveletRefinement
from transpike.distill.sfkd import SpatialFrequencyDistillation, powers_of_two
from transpike.distill.taps import Stage
from transpike.measure.subjects import Subject
from transpike.metrics.bands import BandEnergy, band_names, sub_bands
from transpike.metrics.similarity import LinearCKA
from transpike.metrics.spectrum import RadialSpectrum
from transpike.results import Bands, Energies, Features, Left, Picture, Similarity, Spectrum
from transpike.results.records import Curve, Matrix

__all__ = ["CUTOFF", "PairedStages", "StageSpectra", "curve", "matrix"]

CUTOFF = 0.25
"""Cycles per pixel or per class above which a frequency counts as high: half of the range."""

LEVELS = 2
"""Levels of the wavelet transform, if a method has none and the grid allows so many."""

Maps = Mapping[str, Tensor]
Adapted = SpectralResidualDistillation | SpatialFrequencyDistillation


class StageSpectra:
    """The spectra at one stage of a student: its own, its teacher's, and those after SRD or SFKD.

    Args:
        tap: the student's tap.
        stage: the stage with the teacher's tap. None without a teacher.
        adapter: the adapter of SRD or SFKD. The maps are then compared on its grid.
    """

    def __init__(self, tap: str, stage: Stage | None, adapter: Adapted | None) -> None:
        self.tap, self.stage, self.adapter = tap, stage, adapter
        self.spectra: dict[str, RadialSpectrum] = {}

    def update(self, own: Maps, theirs: Maps) -> None:
        maps = own[self.tap]
        if self.stage is None:
            self._add(student=maps)
            return
        other, size = theirs[self.stage.teacher], self.stage.size
        if self.adapter is not None:
            adapted, target = self.adapter.pair(maps, other)
            size = (target.shape[-2], target.shape[-1])
            projected, _ = self.adapter.adapter(maps, other, size=size)
            self._add(adapted=adapted, target=target, before=target - projected, after=target - adapted)
        self._add(student=on_grid(maps, size), teacher=on_grid(other, size))

    def _add(self, **maps: Tensor) -> None:
        for name, values in maps.items():
            self.spectra.setdefault(name, RadialSpectrum()).update(values)

    def found(self, student: int) -> Features:
        """Return curves by the network's number (0 is the teacher), and the teacher's power that stays different."""
        curves = tuple(
            Spectrum(
                network=0 if name == "teacher" else student,
                adapted=name == "adapted",
                frequency=curve(spectrum.frequency),
                power=curve(spectrum.power),
                variance=spectrum.variance,
                high=spectrum.share_above(CUTOFF),
            )
            for name in ("teacher", "student", "adapted")
            if (spectrum := self.spectra.get(name))
        )
        height, width = self.spectra["student"].plane.shape
        impulse, white = torch.zeros(1, height, width), RadialSpectrum()
        impulse[0, 0, 0] = 1.0
        white.update(impulse)
        return Features(
            student=student,
            tap=self.tap,
            teacher_tap=self.stage.teacher if self.stage else None,
            size=(height, width),
            white_high=white.share_above(CUTOFF),
            curves=curves,
            left=None if self.adapter is None else Left(before=self._left("before"), after=self._left("after")),
            sigma=_sigma(self.adapter),
        )

    def _left(self, name: str) -> tuple[float | None, float | None]:
        """Return the difference's share of the teacher's power, at low and at high frequencies."""
        whole, error = _low_and_high(self.spectra["target"]), _low_and_high(self.spectra[name])
        low, high = (part / power if power else None for part, power in zip(error, whole, strict=True))
        return low, high


def _low_and_high(spectrum: RadialSpectrum) -> tuple[float, float]:
    """Return the power at low and at high frequencies."""
    high = spectrum.variance * spectrum.share_above(CUTOFF)
    return spectrum.variance - high, high


def _sigma(adapter: Adapted | None) -> float | None:
    """Return sigma of the Gaussian with which the maps are compared, in cycles per pixel. None if there is none."""
    loss = getattr(adapter, "loss", None)
    if isinstance(loss, partial) and loss.func is gaussian_frequency_loss:
        sigma = float(loss.keywords["sigma"])
        return sigma if math.isfinite(sigma) else None
    return None


class PairedStages:
    """Compares a student's stages with its teacher's: energy of sub-bands, sub-bands of some images, and similarity.

    Args:
        student: the student with its stages and, if distillation trained one, its method.
    """

    def __init__(self, student: Subject) -> None:
        self.student = student
        self.teacher_taps = list(dict.fromkeys(stage.teacher for stage in student.stages))
        self.adapted_taps: list[str] = []
        self.transforms = {stage: found for stage in student.stages if (found := self._transform(stage))[2]}
        self.alike = {False: LinearCKA(), True: LinearCKA()}
        self.energy: dict[Stage, dict[str, BandEnergy]] = {}
        self.pictures: dict[Stage, list[Picture]] = {}

    def update(self, own: Maps, theirs: Maps, *, pictured: Mapping[int, str]) -> None:
        """Add a batch of maps [N, C, H, W] by tap, and keep the sub-bands of the ``pictured`` images, labelled."""
        pairs = self.student.pairs(own, theirs)
        others = [theirs[tap] for tap in self.teacher_taps]
        self.alike[False].update([own[stage.student] for stage in self.student.stages], others)
        if pairs:
            self.adapted_taps = [stage.student for stage in pairs]
            self.alike[True].update([adapted for adapted, _ in pairs.values()], others)
        for stage, (size, wavelet, levels) in self.transforms.items():
            maps = {
                name: on_grid(maps, size)
                for name, maps in self._maps(stage, own[stage.student], theirs[stage.teacher], pairs.get(stage)).items()
            }
            energies = self.energy.setdefault(stage, {})
            for name, values in maps.items():
                energies.setdefault(name, BandEnergy(wavelet=wavelet, levels=levels)).update(values)
            if self._refinement(stage) is not None:
                self.pictures.setdefault(stage, []).extend(_pictures(maps, pictured, wavelet=wavelet, levels=levels))

    def _maps(self, stage: Stage, own: Tensor, other: Tensor, pair: tuple[Tensor, Tensor] | None) -> dict[str, Tensor]:
        """Return the teacher's maps as the method compares them, and the student's before and after refinement."""
        if pair is None:
            return {"teacher": other, "student": own}
        adapted, target = pair
        adapter = self.student.adapters.get(stage)
        if adapter is not None:
            own, _ = adapter.adapter(own, other, size=(target.shape[-2], target.shape[-1]))
        return {"teacher": target, "student": own, "adapted": adapted}

    def _refinement(self, stage: Stage) -> WaveletRefinement | None:
        refine = getattr(self.student.adapters.get(stage), "refine", None)
        return refine if isinstance(refine, WaveletRefinement) and refine.levels else None

    def _transform(self, stage: Stage) -> tuple[tuple[int, int], str, int]:
        """Return grid, wavelet and levels: those of SFKD, or others that fit the stage."""
        refinement, adapter = self._refinement(stage), self.student.adapters.get(stage)
        if refinement is not None:
            return refinement.size, refinement.wavelet, refinement.levels
        size = getattr(adapter, "size", powers_of_two(stage.size, max(stage.size)))
        return size, "haar", min(LEVELS, min(size).bit_length() - 1)

    def found(self, student: int) -> tuple[Bands, ...]:
        """Return each stage's energies of its bands, by the network's number (0 is the teacher), and pictured bands."""
        return tuple(
            Bands(
                student=student,
                tap=stage.student,
                teacher_tap=stage.teacher,
                size=size,
                wavelet=wavelet,
                bands=tuple(f"{band}{level}" for band, level in band_names(levels)),
                white=curve(self.energy[stage]["teacher"].white),
                curves=tuple(
                    Energies(network=student * (name != "teacher"), adapted=name == "adapted", energy=curve(one.energy))
                    for name, one in self.energy[stage].items()
                ),
                pictures=tuple(replace(one, network=student * one.network) for one in self.pictures.get(stage, ())),
            )
            for stage, (size, wavelet, levels) in self.transforms.items()
        )

    def similarity(self, student: int) -> tuple[Similarity, ...]:
        """CKA of the student's stages with the teacher's, for its unchanged maps and as its method compares them."""
        taps = {False: [stage.student for stage in self.student.stages], True: self.adapted_taps}
        return tuple(
            Similarity(
                student=student,
                adapted=adapted,
                taps=tuple(taps[adapted]),
                teacher_taps=tuple(self.teacher_taps),
                cka=matrix(alike.matrix),
            )
            for adapted, alike in self.alike.items()
            if alike.images
        )


def _pictures(maps: Maps, pictured: Mapping[int, str], *, wavelet: str, levels: int) -> list[Picture]:
    """Return all networks' sub-bands of the channel in which the teacher's map of an image varies most.

    Network 0 is the teacher, and network 1 is its student.
    """
    pictures = []
    for image, (place, label) in enumerate(pictured.items()):
        channel = int(maps["teacher"][place].var((-2, -1)).argmax())
        for name, values in maps.items():
            bands = tuple(map(matrix, sub_bands(values[place, channel], wavelet=wavelet, levels=levels)))
            network, adapted = int(name != "teacher"), name == "adapted"
            pictures.append(
                Picture(network=network, adapted=adapted, image=image, label=label, channel=channel, bands=bands)
            )
    return pictures


def curve(values: Tensor) -> Curve:
    """Return a vector as results store it."""
    return tuple(values.tolist())


def matrix(values: Tensor) -> Matrix:
    """Return a matrix as results store it."""
    return tuple(map(tuple, values.tolist()))
