"""Result files as the commands write them, with numbers that behave as real ones do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transpike.results import Finished, Run
from transpike.results.folder import KINDS
from transpike.results.records import from_json

PNG = (  # 2 x 2 pixels, black and white
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAAAAABX3VL4AAAADklEQVR4nGNg+M/wnwEABgAB/4/x/JoAAAAASUVORK5CYII="
)
BLOCKS = [f"layers.{stage}.{block}.relu{half}" for stage in range(3) for block in range(3) for half in (1, 2)]
LAYERS = ["relu", *BLOCKS]


def make_row(*, steps: int, beta: float = 2.0, silent: int = 1, signed: bool = True, levels: tuple[int, ...] = (1,),
             floor: float = 0.0) -> dict[str, Any]:  # fmt: skip
    """A row whose logit error falls as beta^-T until it meets a floor, and whose predictions follow the error."""
    error = 3.0 * beta**-steps + (0.012 if max(levels) > 1 else 0.015) + floor
    agreement = max(0.1, 1 - round(360 * max(0.0, 2.2 * (error - 0.03))) / 360)
    accuracy = round(0.986 * agreement + 0.1 * (1 - agreement), 6)
    rate = (2.64 if max(levels) > 1 else 2.0) * (1 - 2.0**-steps)
    energy = 0.9e-6 * 4.9e6 * rate
    layers = [
        {
            "name": name, "function": "relu", "neurons": 16384 >> (depth // 7), "amplitude": 3.1 / 2**steps,
            "peak": 3.1, "clipped": 1e-4, "coupled": 0.002 * depth, "error": 0.27 + 0.02 * depth**1.6,
            "own_error": 0.25, "error_share_clipping": min(0.95, 0.05 + 0.05 * depth), "error_share_coupling": 0.0,
            "binding": "clipping" if depth > 9 else "resolution", "fan_out": 36.0,
            "spikes_per_neuron": rate, "positive_per_neuron": 0.6 * rate * (1 + depth / 40),
            "negative_per_neuron": 0.4 * rate * signed * (1 - depth / 40), "synops": 1.2e5 * rate,
            "energy_uj": energy / 19, "delay": silent,
        }
        for depth, name in enumerate(LAYERS)
    ]  # fmt: skip
    scheme = {
        "name": "CSS", "steps": steps, "beta": beta, "silent": silent, "signed": signed, "levels": list(levels),
        "percentile": 99.99,
    }  # fmt: skip
    many = "levels " + (", ".join(map(str, levels)) if len(levels) < 5 else f"1, 2 … {levels[-1]}")
    spikes = many if len(levels) > 1 else "ternary" if signed else "binary"
    words = {
        "beta": f"β {beta:g}", "silent": f"{silent or 'no'} silent step{'s' * (silent > 1)}", "levels": spikes,
        "signed": spikes,
    }  # fmt: skip
    latency = steps + 20 * silent
    return {
        "scheme": scheme, "words": words, "steps": steps, "latency": latency, "depth": 20, "layer_images": 64,
        "latency_zero_delay": latency - silent, "interval": steps + silent, "accuracy": accuracy,
        "loss_pp": round(100 * (0.986 - accuracy), 6), "agreement": agreement, "logit_error": error,
        "spikes_per_neuron": rate, "positive_per_neuron": 0.6 * rate, "negative_per_neuron": 0.4 * rate * signed,
        "synops": 4.9e6 * rate, "shifts": 2e6 * (max(levels) > 1), "multiplications": 0.0, "payload_bits": 1.5e6,
        "neuron_updates": 4e5, "energy_uj": energy, "energy_parts_uj": {}, "seconds": 1.9,
        "images_per_second": 1440 / steps, "layers": layers,
    }  # fmt: skip


def make_rate(*, steps: int) -> dict[str, Any]:
    """A row of a scheme that shares no setting with CSS, takes the input as it is, and limits no value."""
    row = make_row(steps=steps, signed=False)
    unlimited = dict.fromkeys(("clipped", "coupled", "error_share_clipping", "error_share_coupling", "binding"))
    layers = [layer | unlimited | {"delay": 0} for layer in row["layers"]]
    silent = dict.fromkeys(("spikes_per_neuron", "positive_per_neuron", "negative_per_neuron", "synops"), 0.0)
    analog = dict.fromkeys(("amplitude", "peak", "error", "own_error"))
    layers[0] |= {"name": "input", "function": "analog"} | silent | analog
    scheme = {"name": "Rate", "steps": steps, "start": 0.5, "percentile": 99.9}
    return row | {"scheme": scheme, "words": {}, "latency": steps, "interval": steps, "layers": layers}


def make_conversion(*codings: dict[str, Any], model: str = "resnet20", dataset: str = "digits") -> dict[str, Any]:
    """A conversion swept over T for each of the codings, by default the ablations of the paper and the levels."""
    codings = codings or (
        {"silent": 0, "floor": 0.3},
        {"silent": 1},
        {"silent": 2, "floor": -0.004},
        {"silent": 1, "signed": False, "floor": 0.12},
        {"silent": 0, "levels": (1, 2, 4, 8)},
    )
    return {
        "kind": "conversion", "version": 2, "model": model, "dataset": dataset, "images": 360,
        "ann": {"accuracy": 0.986, "macs": 2_550_000, "energy_uj": 11.73, "images_per_second": 900.0},
        "calibration": {"images": 512},
        "rows": [make_row(steps=steps, **coding) for coding in codings for steps in (4, 6, 8, 10, 12)],
    }  # fmt: skip


def make_training() -> dict[str, Any]:
    """Thirty epochs that converge."""
    epochs = [
        {
            "epoch": epoch, "loss": 2.1 * 0.8**epoch + 0.01, "train_accuracy": 1 - 0.8 * 0.75**epoch,
            "validation_accuracy": 0.985 - 0.8 * 0.7**epoch, "lr": 0.1, "seconds": 2.5,
        }
        for epoch in range(1, 31)
    ]  # fmt: skip
    return {
        "kind": "training", "version": 2, "model": "resnet20", "dataset": "digits", "images": 360, "accuracy": 0.986,
        "loss": 0.05, "weights_of_epoch": 30, "validation_accuracy": 0.985, "epochs": epochs,
    }  # fmt: skip


def make_spiking() -> dict[str, Any]:
    """A training that ends in a spiking network of two layers of neurons."""
    layers = [
        {"name": name, "neurons": 50, "rate": rate, "spikes_per_neuron": 4 * rate, "positive_per_neuron": 4 * rate,
         "negative_per_neuron": 0.0}
        for name, rate in (("act", 0.25), ("layers.0.act1", 0.125))
    ]  # fmt: skip
    spiking = {
        "steps": 4, "neurons": 100, "rate": 0.1875, "spikes_per_neuron": 0.75, "synops": 52000.0, "macs": 8000.0,
        "neuron_accumulates": 400.0, "neuron_multiplications": 400.0, "energy_parts_uj": {}, "energy_uj": 0.0836,
        "ann_macs": 40000.0, "ann_energy_uj": 0.184, "layers": layers,
    }  # fmt: skip
    by_steps = [
        {"steps": steps, "accuracy": accuracy, "loss": 0.1} for steps, accuracy in ((1, 0.91), (4, 0.986), (8, 0.99))
    ]
    return make_training() | {"model": "sew_resnet19", "spiking": spiking, "by_steps": by_steps}


def make_analysis(*, students: int = 2) -> dict[str, Any]:
    """A teacher and students of which the last has no spectral residual, two stages, ten classes, two images."""
    networks = [{"label": "teacher", "role": "teacher", "model": "resnet20", "steps": None, "accuracy": 0.99}]
    networks += [
        {"label": f"run{number}", "role": "student", "model": "sew_resnet19", "steps": 4, "accuracy": 0.9,
         "method": "bsd" if number < students else "kd",
         "adapts": "BSD adds its residual." if number < students else None}
        for number in range(1, students + 1)
    ]  # fmt: skip
    features, filters, stages, similarity = [], [], [], []
    for number in range(1, students + 1):
        for tap, side in (("layers.2", 8), ("layers.5", 4)):
            distilled = number < students
            curves = [
                {"network": network, "adapted": adapted, "frequency": [k / side for k in range(1, side // 2 + 1)],
                 "power": [2.0 / k**2 for k in range(1, side // 2 + 1)], "variance": 0.5, "high": high}
                for network, adapted, high in ((0, False, 0.4), (number, False, 0.25), (number, True, 0.375))
                if distilled or not adapted
            ]  # fmt: skip
            features.append(
                {"student": number, "tap": tap, "teacher_tap": tap, "size": [side, side], "white_high": 0.8125,
                 "curves": curves, "left": {"before": [0.9, 0.95], "after": [0.5, 0.75]} if distilled else None,
                 "sigma": 0.25 if distilled else None}
            )  # fmt: skip
            maps = [{"network": curve["network"], "adapted": curve["adapted"]} for curve in curves]
            bands = [[[0.5]], [[-1.0]], [[0.25]], [[0.0]]] if side == 4 else [[[0.5, 1.0]] * 2] * 4
            stages.append(
                {"student": number, "tap": tap, "teacher_tap": tap, "size": [side, side], "wavelet": "haar",
                 "bands": ["A1", "H1", "V1", "D1"], "white": [0.2, 0.8 / 3, 0.8 / 3, 0.8 / 3],
                 "curves": [whose | {"energy": [4.0, 2.0, 1.0, 1.0]} for whose in maps],
                 "pictures": [whose | {"image": image, "label": ("seven", "six")[image], "channel": 7, "bands": bands}
                              for image in range(2) for whose in maps if distilled]}
            )  # fmt: skip
            if distilled:
                weights = [[abs(x - side // 2) / side for x in range(side)]] * side
                filters.append(
                    {"network": number, "tap": tap, "domain": "frequency", "size": [side, side], "weights": weights,
                     "high_over_low": 3.5}
                )  # fmt: skip
        similarity += [
            {"student": number, "adapted": adapted, "taps": ["layers.2", "layers.5"], "teacher_taps": ["layers.2"],
             "cka": [[0.75], [None]]}
            for adapted in ((False, True) if number < students else (False,))
        ]  # fmt: skip
    logits = [4.0 - rank for rank in range(10)]
    high = [0.5 * (-1) ** rank for rank in range(10)]
    every = range(len(networks))
    frequency = [k / 16 for k in range(1, 9)]
    neuron = {
        "networks": list(range(1, students + 1)), "type": "LIFNode", "decay": 0.5, "gain": 0.5, "layers": 20,
        "other_layers": 0, "frequency": frequency, "expected": [1 - f for f in frequency],
        "measured_amplitude": [1 - f for f in frequency], "measured_power": [(1 - f) ** 2 for f in frequency],
        "spikes": {"frequency": frequency, "power": [0.5 + f for f in frequency], "rate": 0.25},
    }  # fmt: skip
    return {
        "kind": "analysis", "version": 2, "model": "sew_resnet19", "dataset": "digits", "part": "test", "images": 256,
        "networks": networks, "features": features, "filters": filters, "neurons": [neuron],
        "stages": stages, "similarity": similarity,
        "logits": {
            "curves": [
                {"network": network, "mean": logits, "high": high, "rms": 3.0, "rms_high": 0.5, "distance_high": 0.125}
                for network in every
            ],
            "single": [[{"network": network, "logits": logits, "high": high} for network in every]] * 2,
        },
        "saliency": {
            "images": [{"png": PNG, "label": label} for label in ("seven", "six")],
            "panels": [
                {"network": network, "image": image, "map": [[0.0, 1.0], [0.5, 0.0]], "prediction": "six"}
                for network in every for image in range(2)
            ],
            "taps": ["layers.8"] + ["layers.7"] * students,
        },
    }  # fmt: skip


RUN = {
    "version": 2,
    "verb": "convert",
    "command": ["transpike", "convert", "--steps", "4,6,8,10,12"],
    "directory": "work",
    "options": {"steps": [4, 6, 8, 10, 12], "data": {"name": "digits", "root": None}},
    "seed": 0,
    "started": "2025-01-01T12:00:00+00:00",
    "versions": {"python": "3.11.2", "torch": "2.8.0"},
    "commit": "0123456789abcdef",
    "hardware": {"cpu": "a processor", "cores": 2, "threads": 1, "gpus": []},
}


def parsed(result: dict[str, Any], *, folder: str = "", run: dict[str, Any] | None = None) -> Finished:
    """A run with this result, as it is read from its folder."""
    fields = {name: value for name, value in json.loads(json.dumps(result)).items() if name not in ("kind", "version")}
    started = {name: value for name, value in (run or {}).items() if name != "version"}
    return Finished(from_json(KINDS[result["kind"]], fields), from_json(Run, started) if started else None, folder)


def write_run(folder: Path, result: dict[str, Any]) -> Path:
    """A run's folder as the experiments leave it."""
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(result), encoding="utf-8")
    (folder / "run.json").write_text(json.dumps(RUN), encoding="utf-8")
    return folder
