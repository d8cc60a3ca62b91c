"""Spectra of stages."""

from __future__ import annotations

import torch

from transpike.distill.sfkd import SFKDDistillation
from transpike.distill.taps import Stage
from transpike.measure.stages import StageSpectra


def test_without_a_gaussian_there_is_none_to_draw() -> None:
    [distance] = SFKDDistillation([Stage("a", "b", 2, 2, (4, 4), (4, 4))], sigma=None).distances
    spectra = StageSpectra("a", Stage("a", "b", 2, 2, (4, 4), (4, 4)), distance)  # type: ignore[arg-type]
    spectra.update({"a": torch.rand(4, 2, 4, 4)}, {"b": torch.rand(4, 2, 4, 4)})
    assert spectra.found(1).sigma is None


def test_a_student_alone_beside_white_noise() -> None:
    """All power of a checkerboard lies at the highest frequency, above 1/4 cycle per pixel; a third network is 2."""
    board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(4, 4)[None, None]
    spectra = StageSpectra("a", None, None)
    spectra.update({"a": board}, {})
    found = spectra.found(2)
    assert (found.student, found.tap, found.teacher_tap, found.size, found.left) == (2, "a", None, (8, 8), None)
    (curve,) = found.curves
    assert (curve.network, curve.adapted) == (2, False)
    assert curve.high == 1.0 and curve.variance == 1.0
    # Of the 63 frequencies of an 8 x 8 grid that are not zero, 20 lie within 2 bins of zero.
    above = sum((y * y + x * x) > 4 for y in range(-4, 4) for x in range(-4, 4))
    assert abs(found.white_high - above / 63) < 1e-6
