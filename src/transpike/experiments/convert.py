"""``transpike convert``: converts a trained network to spiking networks, one for every number of steps."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from transpike.checks import number, refuse, whole
from transpike.coding import Scheme, create_scheme
from transpike.data import ImageSets, Loading
from transpike.data.event_files import EVENT_SOURCES
from transpike.errors import ConfigError, DataError, ModelError
from transpike.experiments.options import Paths, begun_otherwise, record, same
from transpike.experiments.source import Data, Source, load_data, load_model
from transpike.files import plain
from transpike.models.zoo import SPIKING
from transpike.report import check_outputs, write_report, write_rows
from transpike.report.terminal import conversion_table
from transpike.results import (
    Conversion,
    Limits,
    Row,
    RunFolder,
    Spikes,
    copy_results,
    read_result,
    read_run,
    resumable,
    resume_run,
    start_run,
)
from transpike.train.options import Arguments
from transpike.train.processes import checked_device
from transpike.train.recorded import read_options

if TYPE_CHECKING:
    from torch import nn

    from transpike.measure.goals import Goal
    from transpike.measure.sweep import Sweep

__all__ = ["Convert", "convert", "limits_of", "load_inputs", "measured_rows", "read_conversion", "run_sweep"]

_SEARCHED = ("goal", "max_latency", "payload_bits", "max_energy", "max_mean_latency", "agreement")


@dataclass(frozen=True)
class Convert(Paths):
    """Convert a trained network into spiking networks with one or several numbers of steps, and measure each of them.

    The conversion trains nothing. Training images set the amplitudes, and test images give the accuracy. The run's
    folder receives one network for each number of steps (T8/ and so on; transpike.load reads them), results.json with
    measurements of the network and of every layer, and report.html.

    Examples:
      transpike convert runs/train-20261121-110000 --steps 4,6,8,10,12
      transpike convert resnet20 --data cifar10 --weights resnet20.safetensors --settings '{"silent": 1}'
      transpike convert resnet20 --data cifar10 --weights resnet20.pt --settings '{"levels": [1, 2, 4, 8]}'
      transpike convert runs/train-20261121-110000 --scheme rate --steps 32,64,128
      transpike convert runs/train-20261121-110000 --scheme auto --goal same=99.5 --max-latency 32 --payload-bits 3
      transpike convert runs/train-20261121-110000 --scheme auto --goal same=99 --max-mean-latency 9
      transpike convert model.onnx --data folder --root my-images --loading.mean 0,0,0 --loading.std 1,1,1
      transpike convert timm/resnet18 --data folder --root imagenet --weights r18.safetensors --loading.outputs 1000

    Attributes:
        model: The folder of a `transpike train` run, the name of a network (resnet20, timm/<name>, torchvision/<name>),
            or a network's file: ONNX, or a program of torch.export.save (.pt2).
        data: The images: digits, mnist, fashion_mnist, cifar10, cifar100 or folder. The default is the data set of the
            training run.
        weights: The network's weights: .safetensors, a state dict, a Lightning checkpoint, or the folder of a training
            run.
        network: Arguments of the network, such as {"pool": "max"} for a VGG.
        root: The folder of the data set's files. The default is that of the training run. Without a run it is the
            folder `data`.
        download: Download the data set into root if it is missing.
        loading: Image size, normalisation and batches. The seed of the run replaces `loading.seed`.
        steps: T, the number of steps, or several to compare: 4,6,8,10,12. The default is 8. With --scheme auto,
            the command chooses T.
        scheme: The coding scheme with its neurons: css (canonic signed spikes), rate, fs (few spikes), and the others
            of docs/schemes.md. auto searches for the scheme that meets a goal.
        goal: Goal of a search, in percent: same=99.5 (equal predictions), error=2 (relative error of the outputs) or
            loss=0.2 (lost points of accuracy). For same and loss, the search keeps a safety margin by default: the goal
            must still be met if the deviation of every output from the original is multiplied by four. If the
            calibration images are new to the network, a margin of 1 is enough: same=99.5,margin=1.
        max_latency: Limit of a search: the most steps until the output is complete.
        payload_bits: Limit of a search: the most bits that a spike carries beside its address.
        max_energy: Limit of a search: the most microjoules for an image.
        max_mean_latency: Limit of a search whose goal is same or loss: the largest mean latency in steps, if each image
            stops as soon as its answer is sure.
        agreement: With max_mean_latency: the share of answers that must equal those after all steps. The default is
            0.99.
        settings: Settings of the scheme. css: {"beta": 2, "silent": "auto", "levels": [1], "span": 1, "signed": true,
            "amplitude": "channel", "percentile": 99.99, "adjustments": 0}; rate: {"start": 0.5, "percentile": 99.99};
            fs: {"percentile": 99.99}.
        spikes: Where to place neurons: only where spikes are needed (needed); also behind every residual block
            (blocks); or at every operator (operators), so that each neuron computes only one operator.
        until: The name of a module, or of an operation of an ONNX file. Its output becomes the network's output, and
            the rest of the network is left out.
        calibration: The number of training images that set the amplitudes.
        device: The device that simulates: cpu, cuda, cuda:1, ...
        seed: Seed of the validation split and of the choice of calibration images.
        resume: Continue the run in this folder. Numbers of steps that it has already measured are not measured again.
            All other options must be as before.
        out: The run's folder. The default is a new folder under runs/.
        json: Write a copy of results.json to this path.
    """

    model: str
    data: str | None = None
    _: KW_ONLY
    weights: Path | None = None
    network: Arguments | None = None
    root: Path | None = None
    download: bool = False
    loading: Loading = Loading()
    steps: list[int] | int | None = None
    scheme: str = "css"
    goal: str | None = None
    max_latency: int | None = None
    payload_bits: int | None = None
    max_energy: float | None = None
    max_mean_latency: float | None = None
    agreement: float | None = None
    settings: Arguments | None = None
    spikes: Spikes = "needed"
    until: str | None = None
    calibration: int = 512
    device: str = "cpu"
    seed: int = 0
    resume: Path | None = None
    out: Path | None = None
    json: Path | None = None


def convert(options: Convert) -> Conversion:
    """Convert a network at every number of steps, measure each, and write the run's folder.

    Returns:
        The content of results.json: the converted network, and a row for each number of steps.

    Raises:
        TranspikeError: The network has no spiking form, or an option, the weights or the images are wrong.
    """
    from transpike.measure.choosing import find
    from transpike.measure.sweep import Sweep

    sought, schemes = _sought(options), () if options.scheme == "auto" else _schemes(options)
    checked_device(options.device)
    whole("calibration", options.calibration)
    whole("seed", options.seed, least=0, most=2**63 - 1)
    source = Source(options.model, options.weights, options.network or {}, whole=options.until is None)
    loading, root = replace(options.loading, seed=options.seed), options.root or source.root
    ann, sets = load_inputs(source, Data(options.data, root, options.download, loading))
    # Resolved from the data set's name and the network's own preprocessing, so that `evaluate` does the same.
    resolved = {"network": source.network, "data": sets.name, "root": root, "loading": sets.loading}
    task = Sweep(source.model, ann, sets, schemes, options.calibration, options.device, options.spikes, options.until)
    if sought:  # before there is a folder, because none is written if nothing meets the goal
        ann, images, console = ann.to(options.device), sets.calibration(options.calibration), Console(stderr=True)
        task = replace(
            task,
            found=find(
                ann,
                images,
                *sought,
                images=options.calibration,
                spikes=options.spikes,
                until=options.until,
                console=console,
            ),
        )
    counts = [task.found.network.steps] if task.found else [len(scheme.weights) for scheme in schemes]
    recorded = record(options, settings=options.settings or {}, steps=counts, **resolved)
    rows = measured_rows(options.resume, "convert", recorded) if options.resume else ()
    if place := options.resume or options.out:
        check_outputs(place)
    begun = resume_run(options.resume) if options.resume else start_run("convert", recorded, out=options.out)
    with begun as run, resumable(run):
        results = run_sweep(task, run, rows=rows)
    copy_results(results, options.json)
    return results


def _schemes(options: Convert) -> Sequence[Scheme]:
    """Return one scheme for every number of steps."""
    steps = 8 if options.steps is None else options.steps
    counts = sorted({steps} if isinstance(steps, int) else set(steps))
    if not counts:
        raise ConfigError("steps: give at least one number of steps")
    settings = options.settings or {}
    if "steps" in settings:
        raise ConfigError("settings: the number of steps is given by --steps")
    return [create_scheme(options.scheme, {**settings, "steps": count}) for count in counts]


def _sought(options: Convert) -> tuple[Goal, Limits] | None:
    """Return the goal and the limits of a search, or None if the scheme is given."""
    from transpike.measure.goals import Goal

    limits = limits_of(
        options.max_latency, options.payload_bits, options.max_energy, options.max_mean_latency, options.agreement
    )
    if options.scheme != "auto":
        if given := next((name for name in _SEARCHED if getattr(options, name) is not None), None):
            raise ConfigError(f"{given}: only a search takes this option; give --scheme auto")
        return None
    if given := next((name for name in ("steps", "settings", "resume") if getattr(options, name) is not None), None):
        raise ConfigError(f"{given}: --scheme auto searches for steps and settings from the start; omit --{given}")
    if options.goal is None:
        raise ConfigError("goal: --scheme auto needs a goal; give --goal same=99.5, error=2 or loss=0.2")
    try:
        goal = {kind: float(value) for kind, _, value in (part.partition("=") for part in options.goal.split(","))}
    except ValueError as error:
        raise refuse("goal", options.goal, "same=99.5, error=2 or loss=0.2") from error
    return Goal.of(goal), limits


def limits_of(
    max_latency: int | None,
    payload_bits: int | None,
    max_energy: float | None,
    max_mean_latency: float | None = None,
    agreement: float | None = None,
) -> Limits:
    """Return the limits that a command's options set. None is no limit."""
    for name, value, least in (("max_latency", max_latency, 1), ("payload_bits", payload_bits, 0)):
        if value is not None:
            whole(name, value, least=least)
    for name, above in (("max_energy", max_energy), ("max_mean_latency", max_mean_latency)):
        if above is not None:
            number(name, above, above=0)
    limits = Limits(latency=max_latency, payload_bits=payload_bits, energy=max_energy, mean_latency=max_mean_latency)
    if agreement is None:
        return limits
    if max_mean_latency is None:
        raise ConfigError(f"agreement={agreement}: it sets when answers may stop; give --max-mean-latency, too.")
    return replace(limits, agreement=number("agreement", agreement, above=0, below=1))


def load_inputs(source: Source, data: Data) -> tuple[nn.Module, ImageSets]:
    """Load a network to convert, in evaluation mode, and images prepared as for its training.

    Raises:
        TranspikeError: The network, its weights or its images are not available.
    """
    described = source.checked("--weights", "convert").described
    if source.time is not None or source.model in SPIKING:
        raise ModelError(
            f"{source.name}: {source.model} is a spiking network already; convert takes an artificial one."
        )
    if described.get("encoder"):
        raise ModelError(
            f"{source.name}: a network of `transpike hybrid` takes encoded images; measure it by `transpike evaluate`."
        )
    name = data.name or described.get("data")
    if name in EVENT_SOURCES:
        raise DataError(f"{name} gives frames of events, and a converted network takes images.")
    sets = load_data([source], data)
    assert isinstance(sets, ImageSets)
    return load_model(source, sets).eval(), sets


def run_sweep(task: Sweep, run: RunFolder, *, rows: Sequence[Row] = (), beside: Sequence[Path] = ()) -> Conversion:
    """Convert and measure, and write and print the results. The page also shows those of the folders ``beside``."""
    from transpike.measure.sweep import sweep

    for results in sweep(task, run.folder, rows=rows):
        run.write(results)
        write_rows(results, run.folder / "rows.csv")
    results = read_conversion(run.folder, "convert")
    Console().print(conversion_table(results))
    page = write_report([run.folder, *beside], run.folder / "report.html")
    print(f"Networks and results: {run.folder}\nReport: {page}")
    return results


def read_conversion(folder: Path, verb: str) -> Conversion:
    """Return the results of an earlier run of a verb.

    Raises:
        ConfigError: The run belongs to another verb.
    """
    results = read_result(folder)
    if not isinstance(results, Conversion):
        raise ConfigError(f"{folder}: not a run of `transpike {verb}`, so it cannot be resumed")
    return results


def measured_rows(
    folder: Path, verb: str, options: Mapping[str, object], *, free: Sequence[str] = ("steps",)
) -> tuple[Row, ...]:
    """Return the rows of an interrupted run, if it was started with the same options.

    Args:
        folder: the run's folder.
        verb: the verb to which the run must belong.
        options: the options of the command that continues it.
        free: options that may differ, in addition to the place of images and the device.
    """
    run, began = read_run(folder), read_options(folder)
    if run is None or run.verb != verb:
        raise ConfigError(f"{folder}: not a run of `transpike {verb}`, so it cannot be resumed")
    before, now = (
        {name: plain(value) for name, value in each.items() if name not in (*free, "device", "root")}
        for each in (began, options)
    )
    changed = [name for name in now if not same(now[name], before.get(name))]
    if changed:
        raise begun_otherwise(folder, changed)
    return read_conversion(folder, verb).rows if os.path.isfile(folder / "results.json") else ()
