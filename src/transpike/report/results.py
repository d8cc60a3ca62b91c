"""What a result file says: reading it, refusing what is damaged or foreign, and finding the curves in its rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transpike.errors import DataError

__all__ = [
    "FAITHFUL",
    "Result",
    "Series",
    "check_result",
    "find_series",
    "label_schemes",
    "read_result",
    "representative",
]

Result = Mapping[str, Any]

FAITHFUL = 0.995
"""Share of predictions equal to the ANN's from which a conversion is called faithful."""

VERSION = 1
REQUIRED: dict[str, dict[str, type | tuple[type, ...]]] = {
    "conversion": {"model": str, "dataset": str, "images": int, "ann": Mapping, "rows": list},
    "training": {"model": str, "dataset": str, "epochs": list},
    "evaluation": {"model": str, "dataset": str},
    "analysis": {
        **{"model": str, "dataset": str, "part": str, "images": int, "networks": list, "features": list},
        **{"logits": Mapping, "filters": list, "neurons": list, "saliency": Mapping},
    },
}
ANALYSIS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "networks": {"label": str, "role": str, "model": str},
    "features": {"student": int, "tap": str, "size": list, "white_high": (int, float), "curves": list},
    "features.curves": {"network": int, "frequency": list, "power": list},
    "logits.curves": {"network": int, "mean": list, "high": list},
    "filters": {"network": int, "tap": str, "domain": str, "weights": list},
    "neurons": {
        **{"type": str, "networks": list, "decay": (int, float), "spikes": Mapping},
        **dict.fromkeys(("frequency", "expected", "measured_amplitude", "measured_power"), list),
    },
    "stages": {
        **{"student": int, "tap": str},
        **dict.fromkeys(("size", "bands", "white", "curves", "pictures"), list),
    },
    "stages.curves": {"network": int, "energy": list},
    "similarity": {"student": int, **dict.fromkeys(("taps", "teacher_taps", "cka"), list)},
    "saliency.images": {"png": str, "label": str},
    "saliency.panels": {"network": int, "image": int, "map": list, "prediction": str},
}
LISTED = (("logits", "curves"), ("saliency", "images"), ("saliency", "panels"))
ROW: dict[str, type | tuple[type, ...]] = {
    "scheme": Mapping,
    "steps": int,
    "latency": (int, float),
    "agreement": (int, float),
}
SPIKING: dict[str, type | tuple[type, ...]] = {
    "steps": int,
    "layers": list,
    **dict.fromkeys(("spikes_per_neuron", "rate", "synops", "macs", "ann_macs"), (int, float)),
    **dict.fromkeys(("energy_uj", "ann_energy_uj"), (int, float)),
}
ENCODING: dict[str, type | tuple[type, ...]] = {"scheme": Mapping, "steps": list, "error": list, "images": list}
OPERATIONS: dict[str, type | tuple[type, ...]] = {"image": list, "input": list, "rows": list}
EPOCH: dict[str, type | tuple[type, ...]] = {"epoch": int}
NUMBERS = {
    *("accuracy", "amplitude", "agreement", "clipped", "coupled", "delay", "energy_uj", "error"),
    *("error_share_clipping", "images_per_second", "interval", "latency", "latency_zero_delay", "logit_error", "loss"),
    *("loss_pp", "lr", "macs", "negative_per_neuron", "neurons", "peak", "positive_per_neuron", "seconds"),
    *("spikes_per_neuron", "steps", "synops", "train_accuracy", "validation_accuracy"),
}


@dataclass(frozen=True)
class Series:
    """Rows that differ only in their number of steps, hence one curve.

    Attributes:
        label: what sets it apart from the other series beside it.
        rows: by increasing steps.
        index: its place on the page, which fixes its colour and marker.
    """

    label: str
    rows: tuple[Result, ...]
    index: int

    @property
    def best(self) -> Result:
        """The row that stands for the series, see `representative`."""
        return representative(self.rows)


def representative(rows: Iterable[Result]) -> Result:
    """The faithful row of least latency, or, where none is faithful, the one with the most predictions kept.

    >>> rows = [{"latency": latency, "agreement": share} for latency, share in [(24, 0.98), (28, 0.997), (32, 1.0)]]
    >>> representative(rows)["latency"]
    28
    """
    return min(rows, key=lambda row: (-min(row["agreement"], FAITHFUL), row["latency"], -row["agreement"]))


def read_result(folder: Path) -> dict[str, Any]:
    """A run folder's results.json, with its run.json (where there is one) under "run" and its name under "folder".

    Raises:
        DataError: there is no results.json, or one of the two files is not a JSON object.
    """
    path = Path(folder) / "results.json"
    if not path.is_file():
        raise DataError(
            f"{folder}: no results.json here. Give the folder of a run: of `transpike train`, `convert`, `analyze`, ..."
        )
    result = _read_object(path) | {"folder": str(folder)}
    run = path.with_name("run.json")
    return result | {"run": _read_object(run)} if run.is_file() else result


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: damaged, not readable as JSON ({error}). Run the experiment again.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(content).__name__}. Run the experiment again.")
    return content


def check_result(result: Result, *, where: str, kinds: Iterable[str]) -> None:
    """Refuse a result of a kind or version that the page does not know, or that lacks what the page shows.

    Raises:
        DataError: naming the place, what was found and what to do.
    """
    kind, version = result.get("kind"), result.get("version")
    known = sorted(kinds)
    if kind not in known:
        raise DataError(f"{where}: unknown kind of result {kind!r}. Known: {', '.join(known)}.")
    if version != VERSION:
        newer = isinstance(version, (int, float)) and version > VERSION
        remedy = "Update transpike." if newer else "Run the experiment again."
        age = "a newer" if newer else "an older"
        raise DataError(
            f"{where}: written in {age} format (version {version!r}; this report reads {VERSION}). {remedy}"
        )
    _check_fields(result, REQUIRED.get(kind, {}), where)
    if kind == "conversion":
        _check_numbers(result["ann"], f"{where}: ann")
        _check_rows(result["rows"], ROW, f"{where}: rows")
        for number, row in enumerate(result["rows"]):
            place = f"{where}: rows[{number}]"
            _check_fields(row["scheme"], {"name": str}, f"{place}.scheme")
            if not isinstance(row.get("layers", []), list):
                raise DataError(f"{place}.layers should be a list. Run the experiment again.")
            if row.get("layers"):
                _check_rows(row["layers"], {"name": str}, f"{place}.layers")
            parts = row.get("energy_parts_uj") or {}
            if not isinstance(parts, Mapping) or not all(isinstance(part, (int, float)) for part in parts.values()):
                raise DataError(f"{place}.energy_parts_uj should be an object of numbers. Run the experiment again.")
    elif kind == "analysis":
        _check_analysis(result, where)
    else:
        _check_numbers(result, where)
        if kind == "training":
            _check_rows(result["epochs"], EPOCH, f"{where}: epochs")
        if "spiking" in result:
            _check_fields(result, {"spiking": Mapping, "by_steps": list}, where)
            _check_fields(result["spiking"], SPIKING, f"{where}: spiking")
            _check_rows(result["spiking"]["layers"], {"name": str}, f"{where}: spiking.layers")
            _check_rows(result["by_steps"], {"steps": int, "accuracy": (int, float)}, f"{where}: by_steps")
        _check_encoding(result, where)


def _check_analysis(result: Result, where: str) -> None:
    lists = {name: result[name] for name in ("networks", "features", "filters", "neurons")}
    lists |= {name: result.get(name, []) for name in ("stages", "similarity")}  # earlier analyses have neither
    lists |= {f"{name}.{part}": result[name].get(part) for name, part in LISTED}
    for name, rows in lists.items():
        if not isinstance(rows, list):
            raise DataError(f"{where}: {name} should be a list. Run the experiment again.")
        if rows or name == "networks":
            _check_rows(rows, ANALYSIS[name], f"{where}: {name}")
        for number, row in enumerate(rows):
            if not 0 <= row.get("network", 0) < len(result["networks"]):
                raise DataError(f"{where}: {name}[{number}] is of no network. Run the experiment again.")
    for number, stage in enumerate(result["features"]):
        _check_rows(stage["curves"], ANALYSIS["features.curves"], f"{where}: features[{number}].curves")
    for number, stage in enumerate(lists["stages"]):
        _check_rows(stage["curves"], ANALYSIS["stages.curves"], f"{where}: stages[{number}].curves")


def _check_encoding(result: Result, where: str) -> None:
    """What the experiments with an input encoder write besides."""
    if "operations" in result:
        _check_fields(result, {"operations": Mapping}, where)
        _check_fields(result["operations"], OPERATIONS, f"{where}: operations")
        _check_rows(result["operations"]["rows"], {"part": str, "energy_uj": (int, float)}, f"{where}: operations.rows")
    if "encoding" in result:
        _check_fields(result, {"encoding": Mapping, "accuracy_after": list, "spiking": Mapping}, where)
        _check_fields(result["encoding"], ENCODING, f"{where}: encoding")
        _check_fields(result["encoding"]["scheme"], {"name": str, "steps": int}, f"{where}: encoding.scheme")
        pictures = {"label": str, "png": str, "rebuilt": list}
        _check_rows(result["encoding"]["images"], pictures, f"{where}: encoding.images")


def _check_rows(rows: Sequence[Any], fields: Mapping[str, type | tuple[type, ...]], where: str) -> None:
    if not rows:
        raise DataError(f"{where} is empty: the run was broken off before its first result. Run the experiment again.")
    for number, row in enumerate(rows):
        _check_fields(row, fields, f"{where}[{number}]")
        _check_numbers(row, f"{where}[{number}]")


def _check_fields(found: Any, fields: Mapping[str, type | tuple[type, ...]], where: str) -> None:
    if not isinstance(found, Mapping):
        raise DataError(f"{where}: expected an object, found {type(found).__name__}. Run the experiment again.")
    for name, kind in fields.items():
        if name not in found or isinstance(found[name], bool) or not isinstance(found[name], kind):
            problem = f"has the wrong type ({found[name]!r:.40})" if name in found else "is missing"
            raise DataError(f"{where}: {name} {problem}. Run the experiment again.")


def _check_numbers(found: Any, where: str) -> None:
    if not isinstance(found, Mapping):
        raise DataError(f"{where}: expected an object, found {type(found).__name__}. Run the experiment again.")
    for name, value in found.items():
        if name in NUMBERS and not (value is None or (isinstance(value, (int, float)) and math.isfinite(value))):
            raise DataError(f"{where}: {name} should be a number, found {value!r:.40}. Run the experiment again.")


def find_series(results: Sequence[Result]) -> list[list[Series]]:
    """The series of each conversion, labelled by what differs between them; no label occurs twice.

    >>> def row(steps, silent):
    ...     return {"steps": steps, "scheme": {"name": "CSS", "steps": steps, "beta": 2.0, "silent": silent}}
    >>> result = {"model": "resnet20", "dataset": "digits", "images": 360, "rows": [row(4, 1), row(4, 0), row(8, 1)]}
    >>> [(series.label, len(series.rows)) for series in find_series([result])[0]]
    [('1 silent step', 2), ('no silent step', 1)]
    """
    groups: list[tuple[int, dict[str, Any], list[Result]]] = []
    for number, result in enumerate(results):
        found: dict[str, list[Result]] = {}
        for row in result["rows"]:
            scheme = {name: value for name, value in row["scheme"].items() if name != "steps"}
            found.setdefault(json.dumps(scheme, sort_keys=True), []).append(row)
        groups += [(number, json.loads(key), rows) for key, rows in found.items()]

    places = [f"{results[number]['model']} on {results[number]['dataset']}" for number, _, _ in groups]
    labels = label_schemes(places, [scheme for _, scheme, _ in groups])
    series: list[list[Series]] = [[] for _ in results]
    for index, (number, _, rows) in enumerate(groups):
        label = labels[index]
        if labels.count(label) > 1:
            label += f" ({results[number].get('folder', f'result {number + 1}')})"
        ordered = tuple(sorted(rows, key=lambda row: int(row["steps"])))
        series[number].append(Series(label, ordered, index))
    return series


def label_schemes(places: Sequence[str], schemes: Sequence[Result]) -> list[str]:
    """What tells codings apart, each of a network at a place; two that are the same have the same label.

    >>> label_schemes(["a", "a"], [{"name": "dct", "steps": 4}, {"name": "dct", "steps": 8}])
    ['T = 4', 'T = 8']
    """
    return [_label(place, scheme, set(places), schemes) for place, scheme in zip(places, schemes, strict=True)]


def _label(place: str, scheme: Result, places: set[str], schemes: Sequence[Result]) -> str:
    rivals = [other for other in schemes if other["name"] == scheme["name"]]
    differing = {name for name in scheme for other in rivals if other.get(name) != scheme[name]}
    if "signed" in differing and "levels" in scheme:  # one word tells both
        differing = differing - {"signed"} | {"levels"}
    parts = [_describe(name, value, scheme) for name, value in scheme.items() if name in differing]
    if len({other["name"] for other in schemes}) > 1 or not parts:
        parts.insert(0, scheme["name"])
    if len(places) > 1:
        parts.insert(0, place)
    return ", ".join(parts)


def _describe(name: str, value: Any, scheme: Result) -> str:
    match name, value:
        case "steps", int():
            return f"T = {value}"
        case "order", str():
            return value
        case "frequencies", None | int():
            return f"{value or 'all'} frequencies"
        case "stride", None:
            return "no overlap"
        case "tuned", bool():
            return "tuned" if value else "not tuned"
        case "beta", int() | float():
            return f"β {value:g}"
        case "silent", int():
            return f"{value or 'no'} silent step{'s' if value > 1 else ''}"
        case "signed", bool():
            return "signed" if value else "unsigned"
        case "percentile", int() | float():
            return "maximum" if value == 100 else f"percentile {value:g}"
        case "levels", [1]:
            return "ternary" if scheme.get("signed", True) else "binary"
        case "levels", [*levels]:
            return f"{'' if scheme.get('signed', True) else 'unsigned '}levels {_enumerate(levels)}"
        case _:
            return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"


def _enumerate(levels: Sequence[Any]) -> str:
    if len(levels) > 4:
        return f"{levels[0]}, {levels[1]} … {levels[-1]}"
    return ", ".join(map(str, levels))
