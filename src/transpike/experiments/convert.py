"""``transpike convert``: a trained network becomes spiking networks, one for every number of steps."""

from __future__ import annotations

import json as json_format
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from transpike.coding.css import CSS
from transpike.data import Loading
from transpike.errors import ConfigError
from transpike.experiments.inputs import checked_device, load_inputs, network_name, read_options
from transpike.experiments.runs import Run, resumable, resume_run, start_run, write_json
from transpike.experiments.tables import conversion_table, levels_name
from transpike.files import plain

__all__ = ["convert", "sweep"]


def convert(
    model: str,
    data: str | None = None,
    *,
    weights: Path | None = None,
    network: dict[str, Any] | None = None,
    root: Path = Path("data"),
    download: bool = False,
    loading: Loading = Loading(),
    steps: list[int] | int = 8,
    scheme: CSS = CSS(),
    calibration: int = 512,
    device: str = "cpu",
    seed: int = 0,
    resume: Path | None = None,
    out: Path | None = None,
    json: Path | None = None,
) -> None:
    """Convert a trained network into a spiking one (CSS), at one or several numbers of steps, and measure each.

    Nothing is trained: amplitudes come from training images, accuracy from test images. The run's folder receives one
    network a number of steps (T8/, ...; transpike.load reads it), results.json with every figure, layer by layer, and
    report.html.

    Examples:
      transpike convert runs/train-20261121-110000 --steps 4,6,8,10,12
      transpike convert resnet20 --data cifar10 --weights resnet20.safetensors --steps 8 --scheme.silent 1
      transpike convert resnet20 --data cifar10 --weights resnet20.pt --scheme.levels 1,2,4,8 --scheme.silent 0
      transpike convert timm/resnet18 --data folder --root imagenet --weights r18.safetensors --loading.outputs 1000

    Args:
        model: The folder of a `transpike train` run, or a network's name (resnet20, timm/<name>, torchvision/<name>).
        data: The images: digits, mnist, fashion_mnist, cifar10, cifar100 or folder; by default the training run's.
        weights: The network's weights: .safetensors, a state dict, a Lightning checkpoint, or a training run's folder.
        network: What else the network takes, such as {"pool": "max"} for a VGG.
        root: Where the data set's files lie.
        download: Download the data set into root where it is missing.
        loading: Image size, normalisation, batches; with loading.test_images a part of the test images.
        steps: T, or several to compare: 4,6,8,10,12. Takes the place of scheme.steps.
        scheme: The code and its neurons: beta, silent steps, levels of spikes, percentile, and so on.
        calibration: How many training images set the amplitudes.
        device: Where to simulate: cpu, cuda, cuda:1, ...
        seed: Chooses the calibration images.
        resume: Continue this run's folder: steps that are in its results are kept. Other options must be as before.
        out: The run's folder; by default a new one under runs/.
        json: Write results.json here too.

    Raises:
        TranspikeError: The network has no spiking form, or an option, the weights or the images are wrong.
    """
    counts = sorted({steps} if isinstance(steps, int) else set(steps))
    schemes = [replace(scheme, steps=count) for count in counts]
    asked: dict[str, Any] = {
        "model": model, "data": data, "weights": weights, "network": network or {}, "root": root, "download": download,
        "loading": asdict(loading), "steps": counts, "scheme": asdict(scheme), "calibration": calibration,
        "device": device, "seed": seed,
    }  # fmt: skip
    if not counts:
        raise ConfigError("steps: give at least one number of steps")
    checked_device(device)
    ann, sets = load_inputs(
        model,
        data=data,
        root=root,
        download=download,
        loading=replace(loading, seed=seed),
        weights=weights,
        network=network,
    )
    # What the data set's name and the network's own preprocessing came to, so that `evaluate` does the same.
    asked |= {"data": sets.name, "loading": asdict(sets.loading)}
    kept = _finished(resume, asked) if resume else []
    with resume_run(resume) if resume else start_run("convert", asked, out=out) as run, resumable(run):
        title = {"model": network_name(model), "dataset": sets.name}
        results = sweep(ann, sets, schemes, run=run, calibration=calibration, device=device, kept=kept, title=title)
    if json is not None:
        write_json(json, results)


def sweep(
    ann: Any,
    sets: Any,
    schemes: list[CSS],
    *,
    run: Run,
    calibration: int,
    title: dict[str, str],
    device: str = "cpu",
    kept: list[dict[str, Any]] | None = None,
    beside: Sequence[Path] = (),
) -> dict[str, Any]:
    """Convert ``ann`` under every scheme, measure each on the test images, save networks and results in ``run``.

    The page shows the results of the folders ``beside``, too.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from transpike.conversion import prepare
    from transpike.experiments.compare import compare
    from transpike.report import write_report

    rows = {_key(row["scheme"]): row for row in kept or []}
    console = Console(stderr=True)
    with console.status("tracing and calibrating"):
        prepared = prepare(ann.to(device), sets.calibration(calibration), images=calibration)
    results: dict[str, Any] = {
        "kind": "conversion",
        "version": 1,
        **title,
        "calibration": {"images": len(prepared.images)},
    }
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        for scheme in schemes:
            if _key(asdict(scheme)) in rows:
                continue
            snn = prepared.convert(scheme).to(device)
            task = progress.add_task(_label(scheme), total=len(sets.test.dataset))
            measured = compare(snn, sets.test, progress=partial(progress.advance, task))
            snn.save(run.folder / _label(scheme))
            rows[_key(asdict(scheme))] = {**measured["row"], "network": _label(scheme)}
            results |= {"images": measured["images"], "ann": measured["ann"], "rows": _ordered(rows.values())}
            run.write("results.json", results)
    if "rows" not in results:  # every scheme was there already
        results = json_format.loads((run.folder / "results.json").read_text())
    Console().print(conversion_table(results))
    page = write_report([run.folder, *beside], run.folder / "report.html")
    print(f"Networks and results: {run.folder}\nReport: {page}")
    return results


def _label(scheme: CSS) -> str:
    """A folder's name for a scheme: what differs from the default, steps first."""
    default = asdict(CSS())
    parts = [f"T{scheme.steps}"]
    for key, value in asdict(scheme).items():
        if key != "steps" and value != default[key]:
            parts.append(f"{key}-{levels_name(value).replace(',', '-') if key == 'levels' else value}")
    return "_".join(parts)


def _key(fields: dict[str, Any]) -> str:
    return json_format.dumps({k: v for k, v in fields.items() if k != "name"}, sort_keys=True)


def _ordered(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one code together, by steps."""
    codes: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        codes.setdefault(_key({k: v for k, v in row["scheme"].items() if k != "steps"}), []).append(row)
    return [row for code in codes.values() for row in sorted(code, key=lambda row: int(row["steps"]))]


def _finished(folder: Path, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a run that was broken off, if it was begun with the same options."""
    from transpike.report.results import read_result

    began = read_options(folder)
    if not began or "scheme" not in began:
        raise ConfigError(f"{folder}: no run of `transpike convert` to resume")
    now = json_format.loads(json_format.dumps(plain(asked)))
    for options in (began, now):
        options["scheme"].pop("steps")
    free = ("steps", "device", "root")  # where images lie and where one computes may differ
    changed = [key for key in now if key not in free and not _same(now[key], began.get(key))]
    if changed:
        raise ConfigError(
            f"{folder}: begun with other options ({', '.join(changed)}); resume with the same, or start anew"
        )
    return list(read_result(folder)["rows"]) if (folder / "results.json").is_file() else []


def _same(now: Any, began: Any) -> bool:
    return bool(now == began) or (
        isinstance(now, str) and isinstance(began, str) and Path(now).exists() and Path(began).exists()
        and Path(now).samefile(began)
    )  # fmt: skip
