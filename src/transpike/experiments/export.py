"""``transpike export``: writes a converted network for other simulators, runtimes and chips."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import torch
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader

from transpike import files
from transpike.checks import choice, whole
from transpike.data import Loading, load_images
from transpike.errors import ConfigError
from transpike.experiments.options import Paths
from transpike.experiments.places import check_exported
from transpike.train.recorded import filled_loading, read_options, recorded_loading

if TYPE_CHECKING:
    from transpike.export import Run

__all__ = ["Export", "export"]

TARGETS = ("onnx", "torch", "nir", "integers", "events")
OWN = {
    "opset": ("onnx",),
    "bits": ("onnx", "torch", "integers", "events"),
    **dict.fromkeys(("images", "agreement", "data", "root", "loading"), ("events",)),
}
"""The options that apply only to some targets."""

EVENTS = files.json_kind("what the runner counted (events.json)", latency=int, queued=int)


@dataclass(frozen=True)
class Export(Paths):
    """Write a converted network for other simulators, runtimes and chips.

    - onnx: step.onnx holds one step of the network in standard operators. schedule.json lists what each layer does in
      each step. docs/deploy.md shows how to run them.
    - torch: step.pt2 holds the same step for torch.export.load.
    - nir: network.nir, only for chains of layers with ReLU, in rate coding (rate, or qcfs without pre-steps).
    - integers: integers.json and integers.safetensors hold the network as whole numbers. The command also prints a
      table of the memory of each layer.
    - events: the spikes of a run on test images. Each image enters while the network still computes the one before it.
      spikes.npz lists every spike (step, layer, neuron, digit), and events.json holds the counts.

    Examples:
      transpike export runs/convert-20261121-110000/T8 --to onnx
      transpike export runs/convert-20261121-110000/T8 --to events --images 10 --out events
      transpike export runs/convert-20261121-110000/T8 --to events --images 10 --agreement 0.99

    Attributes:
        network: A folder with network.json. `transpike convert` writes one for every number of steps.
        to: The target: onnx, torch, nir, integers or events.
        out: The folder to write to. The default is a folder with the target's name inside the network's folder.
        bits: Bits of a weight. For integers the default is 8. For onnx, torch and events: round the weights to this
            many bits first.
        opset: For onnx: the version of its operators.
        images: For events: the number of test images.
        agreement: For events: each image stops as soon as its answer is sure. This share of the answers must equal
            those of full runs. The network must have a stop rule. `transpike convert` writes one only with
            max_mean_latency. Otherwise, load the network in Python, call snn.calibrate_stop(images), and save it again.
        data: For events: the data set. The default is that of the run.
        root: For events: the folder of the data set's files. The default is that of the run. If the run has none, it is
            the folder `data`.
        loading: For events: image size, normalisation and batches. The default is the options of the run. If you set
            any of these options, only image size and normalisation still come from the run. Every other option
            that you do not set has the default that --loading.help shows.
    """

    network: Path
    _: KW_ONLY
    to: Literal["onnx", "torch", "nir", "integers", "events"] = "onnx"
    out: Path | None = None
    bits: int | None = None
    opset: int = 18
    images: int = 1
    agreement: float | None = None
    data: str | None = None
    root: Path | None = None
    loading: Loading | None = None


def export(options: Export) -> Path:
    """Write the files of a target.

    Returns:
        Their folder.

    Raises:
        TranspikeError: The network or the images cannot be read, or the target cannot represent the network.
    """
    from transpike.conversion import load
    from transpike.export import footprint, integers, nir, onnx, torch_program

    choice("to", options.to, TARGETS)
    whole("images", options.images)
    for name, targets in OWN.items():
        if getattr(options, name) != getattr(Export, name) and options.to not in targets:
            raise ConfigError(f"{name}: --to {options.to} does not take this option; it is for {', '.join(targets)}")
    if options.agreement is not None and options.bits is not None:
        raise ConfigError("agreement: the stop rule is that of the weights as they are; omit bits, or the agreement.")
    check_exported(options.network)
    folder = options.out or options.network / options.to
    if options.to == "events":
        return _events(options, folder)
    snn = load(options.network)
    if options.bits is not None or options.to == "integers":
        snn = snn.quantise(8 if options.bits is None else options.bits)
    if options.to == "integers":
        integers(snn, folder)
        Console().print(footprint(snn))
        print(f"Whole numbers: {folder}")
        return folder
    if options.to == "nir":
        print(f"NIR: {nir(snn, folder / 'network.nir')}")
        return folder
    onnx(snn, folder, opset=options.opset) if options.to == "onnx" else torch_program(snn, folder)
    print(f"One step of the network, and its clock: {folder}")
    return folder


def _events(options: Export, folder: Path) -> Path:
    from transpike.conversion import load
    from transpike.export import run
    from transpike.export.runner import SPIKES

    begun = read_options(options.network.parent)
    name = options.data or begun.get("data")
    if name is None:
        raise ConfigError(f"{options.network}: give --data, the images; no run.json beside the folder names them.")
    root = options.root or Path(begun.get("root", "data"))
    known = recorded_loading(begun, options.network)
    loading = known if options.loading is None else filled_loading(options.loading, known)
    files.check_target(folder / "spikes.npz", SPIKES)
    files.check_target(folder / "events.json", EVENTS)
    images = _images(load_images(name, root=root, loading=loading).test, options.images)
    if options.bits is None:
        result = run(options.network, images, record=True, agreement=options.agreement)
    else:
        with TemporaryDirectory() as rounded:
            load(options.network).quantise(options.bits).save(rounded)
            result = run(rounded, images, record=True)
    with files.Change(folder) as change:
        change.write("spikes.npz", result.write_spikes, kind=SPIKES)
        change.write("events.json", files.dumps(_counted(result)), kind=EVENTS)
    print(_summary(result, early=options.agreement is not None))
    print(f"Spikes and counts: {folder}")
    return folder


def _images(batches: DataLoader[Any], count: int) -> Tensor:
    """Return the first test images."""
    parts: list[Tensor] = []
    for images, _ in batches:
        parts.append(images)
        if sum(map(len, parts)) >= count:
            break
    return torch.cat(parts)[:count]


def _counted(found: Run) -> dict[str, object]:
    return {
        "images": len(found.close),
        "latency": found.latency,
        "interval": found.interval,
        "events": dict(found.events),
        "synaptic_updates": found.synaptic_updates,
        "neuron_updates": found.neuron_updates,
        "queued": found.queued,
        "steps": found.steps,
        "close": found.close,
        "nearest": found.nearest,
    }


def _summary(found: Run, *, early: bool) -> str:
    count, events = len(found.close), sum(found.events.values())
    each = (events, found.synaptic_updates, found.neuron_updates)
    spikes, additions, updates = (f"{number / count:,.0f}" for number in each)
    stops = f" On average, images stop after {found.steps.mean():.3g} steps of the output." if early else ""
    return (
        f"{count} images. The output is complete {found.latency} steps after an image enters; a new image enters every "
        f"{found.interval} steps.{stops}\n"
        f"An image takes {spikes} spikes, {additions} additions at synapses and {updates} updates of neurons. "
        f"At most {found.queued:,} events wait in delays."
    )
