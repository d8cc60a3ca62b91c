"""The curves that `transpike analyze` found, as CSV."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transpike.files import write_csv

__all__ = ["write_curves"]


def write_curves(results: Mapping[str, Any], folder: Path) -> None:
    """The curves as CSV: features.csv, stages.csv, similarity.csv, logits.csv, neurons.csv."""
    names = [network["label"] for network in results["networks"]]
    features = [
        [names[stage["student"]], stage["tap"], names[curve["network"]] + " adapted" * curve["adapted"], *point]
        for stage in results["features"]
        for curve in stage["curves"]
        for point in _points(curve, "frequency", "power")
    ]
    stages = [
        [names[stage["student"]], stage["tap"], names[curve["network"]] + " adapted" * curve["adapted"], band, energy]
        for stage in results["stages"]
        for curve in stage["curves"]
        for band, energy in zip(stage["bands"], curve["energy"].tolist(), strict=True)
    ]
    similarity = [
        [names[one["student"]], "adapted" if one["adapted"] else "", tap, other, value]
        for one in results["similarity"]
        for tap, values in zip(one["taps"], one["cka"].tolist(), strict=True)
        for other, value in zip(one["teacher_taps"], values, strict=True)
    ]
    logits = [
        [names[curve["network"]], rank, *point]
        for curve in results["logits"]["curves"]
        for rank, point in enumerate(_points(curve, "mean", "high"), 1)
    ]
    responses = [
        [neuron["type"], *point, spikes]
        for neuron in results["neurons"]
        for point, spikes in zip(
            _points(neuron, "frequency", "expected", "measured_amplitude", "measured_power"),
            neuron["spikes"]["power"].tolist(),
            strict=True,
        )
    ]
    for name, heading, rows in (
        ("features", ("student", "tap", "maps", "frequency", "power"), features),
        ("stages", ("student", "tap", "maps", "band", "energy"), stages),
        ("similarity", ("student", "maps", "tap", "teacher_tap", "cka"), similarity),
        ("logits", ("network", "rank", "mean", "rms_high"), logits),
        ("neurons", ("neuron", "frequency", "expected", "amplitude", "power", "spike_power"), responses),
    ):
        if rows:
            write_csv(folder / f"{name}.csv", heading, rows)


def _points(curve: Mapping[str, Any], *names: str) -> list[tuple[float, ...]]:
    return list(zip(*(curve[name].tolist() for name in names), strict=True))
