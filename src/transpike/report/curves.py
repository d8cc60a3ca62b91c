"""The curves of `transpike analyze`, as CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transpike.results import Analysis

__all__ = ["Table", "curve_tables"]

Table = tuple[str, Sequence[str], Sequence[Sequence[object]]]
"""A file's name, its heading and its rows."""


def curve_tables(result: Analysis) -> Iterator[Table]:
    """Yield features.csv, stages.csv, similarity.csv, logits.csv and neurons.csv, those that have any rows."""
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
    tables: tuple[Table, ...] = (
        ("features.csv", ("student", "tap", "maps", "frequency", "power"), features),
        ("stages.csv", ("student", "tap", "maps", "band", "energy"), stages),
        ("similarity.csv", ("student", "maps", "tap", "teacher_tap", "cka"), similarity),
        ("logits.csv", ("network", "rank", "mean", "rms_high"), logits),
        ("neurons.csv", ("neuron", "frequency", "expected", "amplitude", "power", "spike_power"), responses),
    )
    return (table for table in tables if table[2])
