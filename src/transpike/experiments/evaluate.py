"""``transpike evaluate``: what a converted or a trained network does on test images."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transpike.data import EventSets, ImageSets, Loading, load_events
from transpike.data.event_files import EVENT_SOURCES
from transpike.errors import ConfigError, ModelError
from transpike.experiments.runs import start_run, write_json
from transpike.experiments.source import checked_device, load_inputs, network_name, read_options

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["evaluate"]


def evaluate(
    network: Path,
    data: str | None = None,
    *,
    root: Path | None = None,
    download: bool = False,
    loading: Loading | None = None,
    device: str = "cpu",
    out: Path | None = None,
    json: Path | None = None,
) -> None:
    """Measure a converted network (a folder of `transpike convert`) or a trained one (a run of `transpike train`,
    `distill` or `hybrid`, whose images pass through the run's own encoder).

    For a converted network everything is measured beside the network it was made from: accuracy, same predictions,
    spikes, operations, energy, speed, errors layer by layer. Images come from the data set it was made with, or any
    other.

    Examples:
      transpike evaluate runs/convert-20261121-110000/T8
      transpike evaluate runs/train-20261121-100000
      transpike evaluate runs/convert-20261121-110000/T8 --data folder --root my-images
      torchrun --nproc-per-node 4 --no-python transpike evaluate runs/convert-20261121-110000/T8 --out runs/check

    Args:
        network: A folder with network.json, or a training run's folder.
        data: The images; by default those of the run.
        root: Where the data set's files lie; by default as in the run, else data.
        download: Download the data set into root where it is missing.
        loading: Image size, normalisation, batches; by default as in the run.
        device: Where to compute: cpu, cuda, cuda:1, ...
        out: The folder for results; by default a new one under runs/.
        json: Write results.json here too.

    Raises:
        TranspikeError: The network or the images cannot be read.
    """
    checked_device(device)
    if not network.is_dir():
        raise ModelError(f"{network}: no such folder; give one that `transpike convert` or `transpike train` wrote")
    converted = (network / "network.json").is_file()
    recorded = ({} if converted else read_options(network)) or read_options(network.parent)
    asked: dict[str, Any] = {
        "network": network,
        "data": data or recorded.get("data"),
        "root": root or Path(recorded.get("root", "data")),
        "loading": loading or Loading(**recorded.get("loading", {})),
        "download": download,
        "device": device,
    }
    measure = _converted if converted else _trained
    if int(os.environ.get("RANK", 0)):  # one of several processes, of which the first writes
        measure(**asked, recorded=recorded)
        return
    with start_run("evaluate", asked, out=out) as run:
        results = measure(**asked, recorded=recorded)
        run.write("results.json", results)
    print(f"Results: {run.folder / 'results.json'}")
    if json is not None:
        write_json(json, results)


def _converted(network: Path, data: str | None, root: Path, loading: Loading, **options: Any) -> dict[str, Any]:
    from rich.console import Console
    from rich.progress import track

    from transpike.conversion import load
    from transpike.data import load_images
    from transpike.measure.conversion import compare
    from transpike.report.terminal import conversion_table

    total = _processes(options["device"])
    snn = load(network).to(options["device"])
    recorded = options["recorded"]
    if data is None:
        raise ConfigError(f"{network}: give --data, the images to test with; no run.json beside it tells")
    sets = load_images(data, root=root, download=options["download"], loading=loading)
    console = Console(stderr=True, quiet=bool(total and int(os.environ["RANK"])))
    measured = compare(snn, track(sets.test, description="evaluating", console=console), total=total)
    results = {
        "kind": "conversion",
        "version": 1,
        "model": network_name(recorded["model"]) if "model" in recorded else network.name,
        "dataset": sets.name,
        "images": measured["images"],
        "ann": measured["ann"],
        "rows": [measured["row"]],
    }
    if not console.quiet:
        Console().print(conversion_table(results))
    return results


def _processes(device: str) -> Callable[[Tensor], Tensor] | None:
    """Join the processes of torchrun, if it started this one; gives what sums a tensor over them."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world == 1:
        return None
    import lightning as L

    here = int(os.environ["LOCAL_WORLD_SIZE"])
    accelerator = "cuda" if device.startswith("cuda") else "cpu"
    fabric = L.Fabric(accelerator=accelerator, devices=here, num_nodes=world // here, strategy="ddp")
    fabric.launch()
    return lambda tensor: fabric.all_reduce(tensor, reduce_op="sum")  # type: ignore[return-value]


def _trained(network: Path, data: str | None, root: Path, loading: Loading, **options: Any) -> dict[str, Any]:
    from transpike.models import create_model, read_description
    from transpike.train import Machine
    from transpike.train import evaluate as tested

    about = read_description(network)
    steps, name = about.get("steps"), data or about["data"]
    sets: ImageSets | EventSets
    encode: Callable[[Tensor], Tensor] | None = None
    if name in EVENT_SOURCES:
        sets = load_events(name, steps=steps or 4, split_by=about.get("split_by", "number"), root=root, loading=loading)
        model = create_model(network)
    elif "encoder" in about:
        model, sets, encode = _encoded(network, about, name, root, loading, download=options["download"])
    else:
        model, sets = load_inputs(str(network), data=name, root=root, download=options["download"], loading=loading)
    machine = Machine(
        accelerator="gpu" if options["device"].startswith("cuda") else "cpu", precision=_precision(options["recorded"])
    )
    figures = tested(model, sets.test, machine=machine, steps=steps, encode=encode)
    if not int(os.environ.get("RANK", 0)):
        print(f"{figures.accuracy:.2%} of {figures.images} test samples of {sets.name} right")
    return {
        "kind": "evaluation",
        "version": 1,
        "model": str(network),
        "dataset": sets.name,
        "images": figures.images,
        "accuracy": figures.accuracy,
        "loss": figures.loss,
    }


def _precision(recorded: dict[str, Any]) -> Any:
    """What the network was trained and tested in."""
    machine: dict[str, Any] = recorded.get("options", recorded).get("machine", {})
    return machine.get("precision", "32-true")


def _encoded(
    network: Path, about: dict[str, Any], data: str, root: Path, loading: Loading, *, download: bool
) -> tuple[nn.Module, ImageSets, Callable[[Tensor], Tensor]]:
    """A network of `transpike hybrid`, images as its encoder takes them, and the encoder; for the artificial network
    what it saw in the encoder's place."""
    from transpike.coding import read_encoder
    from transpike.data import load_images
    from transpike.models import create_model

    if data == about["data"]:
        loading = replace(loading, mean=tuple(about["mean"]), std=tuple(about["std"]))
    sets = load_images(data, root=root, download=download, loading=loading)
    encoder = read_encoder(about)
    return create_model(network), sets, encoder.layout if about.get("steps") is None else encoder
