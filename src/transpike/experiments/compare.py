"""``transpike compare``: one network under many coding schemes, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from transpike.checks import number, refuse, whole
from transpike.coding import SCHEMES, Scheme, create_scheme
from transpike.coding.operations import Memory, Node, Technology
from transpike.data import Loading
from transpike.errors import ConfigError
from transpike.experiments.convert import limits_of, load_inputs, measured_rows, read_conversion
from transpike.experiments.options import Paths, record
from transpike.experiments.source import Data, Source
from transpike.report import check_outputs, write_report, write_rows
from transpike.report.terminal import conversion_table, least_table, stops_tables
from transpike.results import (
    Conversion,
    Row,
    Spikes,
    copy_results,
    resumable,
    resume_run,
    start_run,
)
from transpike.train.options import Arguments
from transpike.train.processes import checked_device, first_process, join_processes

if TYPE_CHECKING:
    from transpike.measure.sweep import Sweep

__all__ = ["Compare", "compare"]


@dataclass(frozen=True)
class Compare(Paths):
    """Compare coding schemes on one trained network: convert it by each scheme at several numbers of steps, and measure
    it.

    All rows use the same network and the same images, and count operations in the same way. The report shows the lost
    accuracy and the share of same predictions against T, latency, T x bits and energy. Here `bits` is log2 of the
    number of digits, with 0 as a digit. The column `zero-delay` is T plus the waits of the firing layers on the
    longest path. If all layers have the same fixed wait, `latency` also counts a wait of the readout (docs/css.md).

    The run's folder receives results.json, rows.csv and report.html. It does not contain the networks. To save a
    network, use `transpike convert`.

    Examples:
      transpike compare runs/train-20261121-110000
      transpike compare runs/train-20261121-110000 --schemes css,rate,fs --target-loss 0.1
      transpike compare resnet20 --data cifar10 --weights resnet20.safetensors --loading.test-images 1000
      transpike compare RUN --schemes '[css, {name: css, levels: [1, 2, 4, 8], steps: [2, 4, 8]}, {name: rate}]'
      transpike compare RUN --max-latency 32 --payload-bits 1
      transpike compare detector.onnx --data folder --root my-images --metric boxes
      transpike compare RUN --schemes '[css, {name: rate, steps: [32, 64]}]' --agreement 0.995
      torchrun --nproc-per-node 4 --no-python transpike compare RUN --out runs/comparison

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
        schemes: Names of schemes, or objects with a name, settings and steps (one number or a list): {name: css,
            levels: [1, 2, 4, 8], steps: [4, 8]}. The default is every scheme, each at its own numbers of steps.
        target_loss: A loss in percentage points of accuracy. For each scheme, find the fewest steps that lose at most
            this much. For this the command also measures numbers of steps between the planned ones.
        agreement: Measure each scheme a second time, with early stops: every image stops as soon as its answer is sure.
            This share of the answers, such as 0.995, must equal those after all steps.
        held_out: With agreement: the number of test images that set the threshold of the early stop. They are the first
            ones. The other test images measure the result. The default is 512, or half of the test images if there are
            fewer than 1,024. A high agreement can make this default larger.
        max_latency: A limit: the most steps until the output is complete. Of the rows within all limits (max_latency,
            payload_bits, max_energy), the command picks the row with the largest share of same predictions.
        payload_bits: A limit: the most bits that a spike carries beside its address. They are 0 if all spikes are
            alike, and 1 for a sign.
        max_energy: A limit: the most microjoules for an image.
        technology: The chip technology of the energies: 45nm (Horowitz 2014) or 7nm (Jouppi et al. 2021).
        memory: The SRAM that holds weights and states: none, 8KB, 32KB or 1MB. The energy then includes its reads and
            writes.
        metric: Another measure of the outputs, beside the classes: same, iou, boxes, correlation, or module:function.
            Your own function has two arguments, outputs and targets, and returns one number or one for each image. The
            outputs are those of the spiking network, and the targets are the outputs of the original network. If the
            function accepts class labels as targets, it also measures the outputs of both networks against the labels.
        spikes: Where to place neurons: only where spikes are needed (needed); also behind every residual block
            (blocks); or at every operator (operators), so that each neuron computes only one operator.
        calibration: The number of training images that set the amplitudes.
        device: The device that simulates: cpu, cuda, cuda:1, ...
        seed: Seed of the validation split and of the choice of calibration images.
        resume: Continue the run in this folder. Rows that it has already measured are not measured again. You may add
            schemes.
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
    schemes: list[str | dict[str, Any]] | dict[str, Any] | str | None = None
    target_loss: float | None = None
    agreement: float | None = None
    held_out: int | None = None
    max_latency: int | None = None
    payload_bits: int | None = None
    max_energy: float | None = None
    technology: Node = "45nm"
    memory: Memory = "none"
    metric: str | None = None
    spikes: Spikes = "needed"
    calibration: int = 512
    device: str = "cpu"
    seed: int = 0
    resume: Path | None = None
    out: Path | None = None
    json: Path | None = None


def compare(options: Compare) -> Conversion:
    """Convert a network under every scheme, measure each, and write the run's folder.

    Returns:
        The content of results.json: the converted network, and a row for each scheme and number of steps.

    Raises:
        TranspikeError: No scheme has neurons for the network, or an option, the weights or the images are wrong.
    """
    from transpike.measure.outputs import find_metric
    from transpike.measure.stopping import held_out_images
    from transpike.measure.sweep import Sweep

    metric = find_metric(options.metric)
    schemes = _schemes([*SCHEMES] if options.schemes is None else options.schemes)
    limits = limits_of(options.max_latency, options.payload_bits, options.max_energy)
    if options.target_loss is not None:
        number("target_loss", options.target_loss, least=0, most=100)
    if options.held_out is not None:
        whole("held_out", options.held_out)
    if options.held_out is not None and options.agreement is None:
        raise ConfigError(f"held_out={options.held_out}: it sets the threshold of an agreement; give --agreement, too.")
    if options.agreement is not None and (options.technology, options.memory) != ("45nm", "none"):
        raise ConfigError("agreement: the energy of early answers is that of 45nm alone; omit technology and memory")
    checked_device(options.device)
    whole("calibration", options.calibration)
    whole("seed", options.seed, least=0, most=2**63 - 1)
    source = Source(options.model, options.weights, options.network or {})
    loading, root = replace(options.loading, seed=options.seed), options.root or source.root
    total = join_processes(options.device)
    ann, sets = load_inputs(source, Data(options.data, root, options.download, loading))
    held_out = 0
    if options.agreement is not None:
        held_out = held_out_images(options.agreement, options.held_out, len(sets.test.dataset))  # type: ignore[arg-type]
    task = Sweep(
        source.model, ann, sets, schemes, options.calibration, options.device, options.spikes,
        target=options.target_loss, limits=limits if str(limits) else None,
        agreement=options.agreement, held_out=held_out, metric=metric,
        technology=Technology.of(options.technology, options.memory), total=total,
    )  # fmt: skip
    resolved = {"network": source.network, "data": sets.name, "root": root, "loading": sets.loading}
    recorded = record(options, **resolved)
    free = ("schemes", "target_loss", "max_latency", "payload_bits", "max_energy")
    rows = measured_rows(options.resume, "compare", recorded, free=free) if options.resume else ()
    if not first_process():
        return _measured(task, options.resume, rows)
    if place := options.resume or options.out:
        check_outputs(place)
    begun = resume_run(options.resume) if options.resume else start_run("compare", recorded, out=options.out)
    with begun as run, resumable(run):

        def write(results: Conversion) -> None:
            run.write(results)
            write_rows(results, run.folder / "rows.csv")

        results = _measured(task, run.folder, rows, write)
        _tell(results, run.folder)
    copy_results(results, options.json)
    return results


def _measured(
    task: Sweep, folder: Path | None, rows: Sequence[Row], write: Callable[[Conversion], object] = id
) -> Conversion:
    """Return all rows, written one by one, or those of the folder if nothing was left to measure."""
    from transpike.measure.sweep import sweep

    results = None
    for results in sweep(task, None, rows=rows):
        write(results)
    if results is None:
        results = replace(read_conversion(folder or Path(), "compare"), target_loss=task.target, limits=task.limits)
        write(results)
    return results


def _tell(results: Conversion, folder: Path) -> None:
    """Print the tables, and write those for other programs."""
    console = Console()
    console.print(conversion_table(results))
    if results.target_loss is not None:
        console.print(least_table(results))
    for table in stops_tables(results):
        console.print(table)
    for reason in dict.fromkeys(row.unstreamed for row in results.rows if row.unstreamed):
        console.print(f"No early answers: {escape(reason)}.", highlight=False)
    for label, reason in results.refused.items():
        console.print(f"[bold]{escape(label)}[/] is left out. {escape(reason)}", highlight=False)
    page = write_report([folder], folder / "report.html")
    print(f"Results: {folder / 'results.json'}, {folder / 'rows.csv'}\nReport: {page}")


def _schemes(given: Sequence[str | Mapping[str, Any]] | Mapping[str, Any] | str) -> list[Scheme]:
    """Return one scheme for every code and number of steps.

    Example:
        >>> [len(scheme.weights) for scheme in _schemes(["fs", {"name": "rate", "steps": [16, 8]}])]
        [6, 8, 10, 12, 16, 16, 8]
    """
    schemes: list[Scheme] = []
    for one in [given] if isinstance(given, str | Mapping) else given:
        settings = {"name": one} if isinstance(one, str) else dict(one)
        name = settings.pop("name", None)
        if not isinstance(name, str):
            raise refuse("schemes", one, "a name, or an object with one, such as {name: css, levels: [1, 2, 4, 8]}")
        try:
            schemes += _at_steps(name, settings)
        except ConfigError as error:
            if name not in SCHEMES:
                raise
            raise ConfigError(f"schemes: {name}: {error}") from error  # names the scheme
    if not schemes:
        raise ConfigError(f"schemes: give at least one of {', '.join(SCHEMES)}")
    return list(dict.fromkeys(schemes))


def _at_steps(name: str, settings: dict[str, Any]) -> list[Scheme]:
    """Return a code at the numbers of steps in its settings, or at its own."""
    steps = settings.pop("steps", None)
    one = create_scheme(name, settings)
    if not any(field.name == "steps" for field in fields(one)):  # type: ignore[arg-type]
        if steps is not None:
            raise ConfigError("it has no number of steps to set")
        return [one]
    counts = one.compared if steps is None else steps if isinstance(steps, list | tuple) else [steps]
    if not counts:
        raise ConfigError("steps=[]: give at least one number of steps, or leave steps out")
    return [create_scheme(name, {**settings, "steps": count}) for count in counts]
