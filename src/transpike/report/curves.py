"""The curves that `transpike analyze` found, as CSV."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from transpike.files import write_csv
from transpike.results import Analysis

__all__ = ["write_curves"]


def write_curves(result: Analysis, folder: Path) -> None:
    """Write features.csv, stages.csv, similarity.csv, logits.csv and neurons.csv; those that have any rows."""
    names = [network.label for network in result.networks]
    features = [
        (names[stage.student], stage.tap, names[curve.network] + " adapted" * curve.adapted, *point)
        for stage in result.features
        for curve in stage.curves
        for point in zip(curve.frequency, curve.power, strict=True)
    ]
    stages = [
        (names[stage.student], stage.tap, names[curve.network] + " adapted" * curve.adapted, band, energy)
        for stage in result.stages
        for curve in stage.curves
        for band, energy in zip(stage.bands, curve.energy, strict=True)
    ]
    similarity = [
        (names[one.student], "adapted" if one.adapted else "", tap, other, value)
        for one in result.similarity
        for tap, values in zip(one.taps, one.cka, strict=True)
        for other, value in zip(one.teacher_taps, values, strict=True)
    ]
    logits = [
        (names[curve.network], rank, *point)
        for curve in result.logits.curves
        for rank, point in enumerate(zip(curve.mean, curve.high, strict=True), 1)
    ]
    responses = [
        (neuron.type, *point)
        for neuron in result.neurons
        for point in zip(
            neuron.frequency, neuron.expected, neuron.measured_amplitude, neuron.measured_power, neuron.spikes.power,
            strict=True,
        )
    ]  # fmt: skip
    tables: Iterable[tuple[str, Sequence[str], Sequence[Sequence[object]]]] = (
        ("features", ("student", "tap", "maps", "frequency", "power"), features),
        ("stages", ("student", "tap", "maps", "band", "energy"), stages),
        ("similarity", ("student", "maps", "tap", "teacher_tap", "cka"), similarity),
        ("logits", ("network", "rank", "mean", "rms_high"), logits),
        ("neurons", ("neuron", "frequency", "expected", "amplitude", "power", "spike_power"), responses),
    )
    for name, heading, rows in tables:
        if rows:
            write_csv(folder / f"{name}.csv", heading, rows)
