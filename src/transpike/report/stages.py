"""The page's section of pairs of stages: sub-bands and their energy, and similarity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
from markupsafe import Markup

from transpike.report import plots, stage_panels
from transpike.report.parts import Group, Plot, line_legend, network_line
from transpike.report.wording import fixed, known, percent
from transpike.results import Analysis, Bands, Picture, Similarity

__all__ = ["describe_stages"]


def describe_stages(result: Analysis, key: str) -> list[Group]:
    """Return the groups of an analysis about pairs of stages; none without a teacher."""
    groups = [
        _sub_bands([stage for stage in result.stages if stage.pictures], result, f"{key}-bands"),
        _energy(result.stages, result, f"{key}-energy"),
        _similarity(result.similarity, result, f"{key}-cka"),
    ]
    return [group for group in groups if group is not None]


class _OfStudent(Protocol):
    @property
    def student(self) -> int: ...


Row = TypeVar("Row", bound=_OfStudent)


def _by_student(rows: Sequence[Row], result: Analysis) -> list[tuple[int, str, list[Row]]]:
    """Return number and label of each student that has rows, with these rows."""
    rows_by_student: dict[int, list[Row]] = {}
    for row in rows:
        rows_by_student.setdefault(row.student, []).append(row)
    return [(number, result.networks[number].label, own) for number, own in rows_by_student.items()]


def _sub_bands(stages: Sequence[Bands], result: Analysis, key: str) -> Group | None:
    if not stages:
        return None
    drawn = []
    for number, label, own in _by_student(stages, result):
        rows = []
        labels = {picture.image: picture.label for stage in own for picture in stage.pictures}
        for stage in own:
            images: dict[int, list[stage_panels.Mapped]] = {}
            for picture in stage.pictures:
                title = f"{picture.label}: {_kind(picture, stage)}"
                bands = [np.asarray(band, float) for band in picture.bands]
                images.setdefault(picture.image, []).append((title, f"channel {picture.channel}", bands))
            rows.append((stage.tap, [images[image] for image in sorted(images)]))
        shown = ", ".join(labels[image] for image in sorted(labels))
        alt = f"Sub-bands of {shown} after {', '.join(tap for tap, _ in rows)}: teacher, before DS2S, after DS2S."
        svg = Markup(stage_panels.draw_sub_bands(rows, f"{key}-{number}", alt))
        drawn.append(Plot(svg, f"Sub-bands, {label}"))
    return Group(
        "Sub-bands before and after DS2S",
        "One channel is shown: the one in which the teacher’s map of the image varies most. The low-pass rest is top "
        "left. The details of each level surround it, the finest outside: high-pass along the height (right), along "
        "the width (below), along both (diagonal). Each sub-band has its own colour scale, the same in all three "
        "panels: white is zero, red is positive, blue is negative. The teacher’s maps are those that the loss sees. "
        "The student’s maps are projected to the teacher’s channels.",
        wide=drawn,
    )


def _kind(picture: Picture, stage: Bands) -> str:
    if picture.network != stage.student:
        return "teacher"
    return "after DS2S" if picture.adapted else "before DS2S"


def _energy(stages: Sequence[Bands], result: Analysis, key: str) -> Group | None:
    if not stages:
        return None
    depth = max(len(stage.bands) for stage in stages) // 3
    drawn, rows, every = [], [], []
    students = _by_student(stages, result)
    for number, label, own in students:
        shown, whose = [], f"{label}: " if len(students) > 1 else ""
        for stage in own:
            height, width = stage.size
            place = f"{stage.tap} ({height} × {width})"
            lines = [plots.curve("white noise", stage_panels.WHITE, enumerate(stage.white))]
            for curve in stage.curves:
                shares = _shares(curve.energy)
                points = ((band, share) for band, share in enumerate(shares) if share)
                line = network_line(result.networks, curve.network, points, adapted=curve.adapted)
                lines.append(line)
                rows.append((whose + place, line.label, *_levels(shares, depth)))
            rows.append((whose + place, "white noise", *_levels(stage.white, depth)))
            every += lines[1:]
            shown.append((place, stage.bands, lines))
        alt = f"Share of each wavelet sub-band in the energy of the maps of {label} and its teacher; see the table."
        svg = Markup(stage_panels.draw_bands(shown, f"{key}-{number}", alt))
        drawn.append(Plot(svg, f"Energy by sub-band, {label}"))
    unique = list({line.index: line for line in every}.values())
    adapted = any(curve.adapted for stage in stages for curve in stage.curves)
    return Group(
        "Energy by sub-band and level",
        "Wavelet sub-bands of the maps on a common grid; each map has its mean removed. A is the low-pass rest. H, V "
        "and D are the details along the height, the width and both. Level 1 is the finest. The values are shares of "
        "the whole. Grey: white noise."
        + " Adapted: as the student’s method compares its maps with the teacher’s; not adapted, the student’s stand "
        "here as they are, or projected to the teacher’s channels where its method projects them." * adapted,
        legend=line_legend(unique, key),
        wide=drawn,
        columns=("stage", "maps", "low-pass rest", *(f"details, level {level}" for level in range(depth, 0, -1))),
        rows=rows,
    )


def _shares(energies: Sequence[float]) -> list[float]:
    whole = sum(energy for energy in energies if known(energy))
    return [energy / whole if whole and known(energy) else 0.0 for energy in energies]


def _levels(shares: Sequence[float], depth: int) -> list[str]:
    """Return the rest's share and, from level `depth` to level 1, that of the three details together."""
    levels = [percent(sum(shares[place : place + 3])) for place in range(1, len(shares), 3)]
    return [percent(shares[0]), *[""] * (depth - len(levels)), *levels]


def _similarity(rows: Sequence[Similarity], result: Analysis, key: str) -> Group | None:
    if not rows:
        return None
    drawn = []
    for number, label, own in _by_student(rows, result):
        matrices = [
            ("adapted" if row.adapted else "as it is", row.taps, row.teacher_taps, np.asarray(row.cka, float))
            for row in own
        ]
        alt = f"CKA of the stages of {label} with its teacher’s. " + " ".join(
            f"{title}, {tap}: "
            + ", ".join(f"{other} {fixed(value)}" for other, value in zip(others, values, strict=True))
            for title, taps, others, matrix in matrices
            for tap, values in zip(taps, matrix, strict=True)
        )
        drawn.append(Plot(Markup(stage_panels.draw_similarity(matrices, f"{key}-{number}", alt)), f"CKA, {label}"))
    return Group(
        "How alike the stages are",
        "Linear centred kernel alignment (CKA), over images, between all maps after each of the student’s stages "
        "(rows) and after each of the teacher’s stages (columns). 1 means that they are equal up to a rotation and a "
        "scale; about 0 means that they have nothing in common. Left: the student’s own maps. Right, if its method "
        "adapts them: the maps that the method compares. The teacher’s maps are the same in both.",
        wide=drawn,
    )
