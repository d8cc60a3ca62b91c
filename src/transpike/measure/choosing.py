"""``transpike.convert``: conversion with a chosen scheme, or with the scheme that a search finds for a goal."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Literal

import torch
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import Tensor, nn
from torch.export import ExportedProgram

from transpike import conversion
from transpike.coding.scheme import Scheme
from transpike.conversion import SpikingNetwork, prepare
from transpike.conversion.calibrate import IMAGES, collect
from transpike.conversion.stopping import least_images
from transpike.errors import ConfigError, ConversionError, GoalError
from transpike.measure.goals import Goal, Held
from transpike.measure.search import SIMULATIONS, Search, search
from transpike.metrics.tasks import Metric
from transpike.results import Limits, Spikes, Try

__all__ = ["convert", "find", "tries_table"]

_HELD = 256
"""The largest number of images that judge a goal."""


def convert(
    ann: nn.Module | ExportedProgram,
    calibration: Iterable[object],
    *,
    scheme: Scheme | Literal["auto"] | None = None,
    spikes: Spikes = "needed",
    until: str | None = None,
    goal: Mapping[str, object] | Metric | None = None,
    limits: Mapping[str, float] | None = None,
    verbose: bool = False,
) -> SpikingNetwork:
    """Convert a trained network into a spiking one, without training.

    With ``scheme="auto"`` a search chooses the code, the steps and how long each layer listens. It finds the least
    latency that meets the goal within the limits. Half of the images, at most 256, judge the goal; the others set the
    amplitudes. The search takes at most 100 simulations of at most 64 images. The same images give the same network.

    Args:
        ann: any `torch.nn.Module`, exported program or TorchScript that takes one tensor [N, \\*] and returns a tensor,
            or a tuple, list or dictionary of tensors. It is read in evaluation mode, whatever its mode is, and is not
            changed. Hooks that only record are not part of it.
        calibration: batches of training images, preprocessed as for ``ann``: tensors, or pairs (x, y). The first 512
            images are used; fewer are allowed. The converted network takes images of their shape. It also takes other
            shapes if no part of it holds sizes.
        scheme: how values become spikes. The default is `transpike.coding.DEFAULT`; ``"auto"`` searches.
        spikes: where neurons stand. ``"needed"``: wherever spikes must enter a layer with weights or a product.
            ``"blocks"``: also behind every sum of a residual stream. ``"operators"``: at every function of ``ann``, for
            hardware whose neurons compute one function each.
        until: the path of the module of ``ann`` whose output becomes the output of the spiking network. The default is
            all of ``ann``. `transpike.conversion.Continued` runs the rest of ``ann``, which may be a recurrent cell,
            on this output.
        goal: the goal of a search, in percent. ``{"same": 99.5}`` is the least share of equal predictions (of the first
            output). ``{"error": 2}`` is the largest relative error of the outputs minus their mean. ``{"loss": 0.2}``
            is the most percentage points of accuracy lost, and needs labels. A prediction must hold even with four
            times the deviation of the outputs, because a network is surer of images that it was trained on.
            ``"margin": 1`` beside the goal takes the deviation itself, for images that are new to the network. Goals
            other than classes are ``{"iou": 97}``, ``{"boxes": 97}`` and ``{"correlation": 99}``, the least mean of a
            measure of `transpike.metrics.tasks.METRICS` against the outputs of ``ann``; or ``{"metric": score,
            "least": 97}`` with a function of outputs and targets that returns at most 1, or one number for each image.
            A function alone must return 1 for every image. ``"margin": 4`` beside such a goal gives the measure outputs
            with four times their deviation, too; without it, few images that judge are met just so, and new ones less.
        limits: the limits of a search: ``latency`` in steps, ``payload_bits`` of a spike, ``energy`` in microjoules for
            an image. A goal of predictions also takes ``mean_latency`` in steps: images stop as soon as their answers
            are sure, so that a share ``agreement`` of the answers (0.99 by default) equals those after all steps. The
            network then has a stop rule from the images that judge. If it was trained on them, its mean latency on new
            images is longer, and only `SpikingNetwork.calibrate_stop` on new images guarantees their agreement.
        verbose: show the progress of a search, and the networks that it tried.

    Returns:
        The spiking network. ``snn(x)`` gives decoded outputs. After a search ``snn.search`` holds the tried networks.

    Raises:
        ConversionError: ``ann`` has no spiking form, and the message lists every place; or the calibration images are
            wrong.
        GoalError: A search found nothing that meets the goal within the limits. The message names the closest network
            and the limit that binds; ``tries`` holds the tried networks.
        ConfigError: The goal, the limits or ``spikes`` are not valid, or there is a goal or limit without a search.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import transpike
        >>> _ = torch.manual_seed(0)
        >>> ann = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
        >>> images = torch.rand(64, 4)
        >>> snn = transpike.convert(ann, images, scheme=transpike.CSS(steps=12, beta=2.0, silent=1))
        >>> snn.latency, (snn(images) - ann(images)).abs().max().item() < 0.01
        (14, True)
        >>> limits = {"latency": 12, "payload_bits": 1}
        >>> snn = transpike.convert(ann, images, scheme="auto", goal={"error": 5}, limits=limits)
        >>> snn.latency <= 12, snn.scheme.levels
        (True, (1,))
    """
    if isinstance(scheme, str) and scheme == "auto":
        console = Console(stderr=True, quiet=not verbose)
        goal_and_limits = Goal.of(goal), Limits.of(limits or {})
        return find(ann, calibration, *goal_and_limits, spikes=spikes, until=until, console=console).network
    for name, value in (("goal", goal), ("limits", limits)):
        if value is not None:
            raise ConfigError(f'{name}: only a search takes this; give scheme="auto" to search for one')
    return conversion.convert(ann, calibration, scheme=scheme, spikes=spikes, until=until)


def find(
    ann: nn.Module | ExportedProgram,
    calibration: Iterable[object],
    goal: Goal,
    limits: Limits,
    *,
    images: int = IMAGES,
    spikes: Spikes = "needed",
    until: str | None = None,
    console: Console,
) -> Search:
    """Split the images into those that set the amplitudes and those that judge the goal, and search.

    Args:
        ann: As for `convert`.
        calibration: As for `convert`.
        goal: the goal to meet.
        limits: the limits to keep.
        images: the number of images to use.
        spikes: As for `convert`.
        until: As for `convert`.
        console: shows progress and the networks that were tried.

    Raises:
        TranspikeError: As for `convert`.
    """
    plain = isinstance(calibration, (Tensor, Mapping)) or not isinstance(calibration, Iterable)
    batches = None if plain else _Labelled(calibration)
    every = collect(batches or calibration, images)
    labels = batches.labels(len(every)) if batches else None
    if goal.kind == "loss" and labels is None:
        raise ConfigError(
            "goal: a loss of accuracy needs labels; pass batches (images, labels), or a goal of equal predictions, "
            'such as {"same": 99.5}'
        )
    if len(every) < 2:
        raise ConversionError("calibration: the goal needs images of its own; pass at least two, better 512")
    count = min(len(every) // 2, _HELD)
    if limits.mean_latency is not None:
        _check_stops(goal, limits.agreement, count)
    at = (torch.arange(count) * len(every) + len(every) // 2).div(count, rounding_mode="floor")  # of all parts alike
    judging = torch.zeros(len(every), dtype=torch.bool)
    judging[at] = True
    if count < goal.images:
        warnings.warn(
            f"goal: {count} of {len(every)} calibration images judge it, but showing {goal} takes {goal.images}. With "
            "so few, all must be right. Pass more images",
            stacklevel=3,
        )
    with console.status("tracing and calibrating"):
        prepared = prepare(ann, every[~judging.to(every.device)], images=len(every), spikes=spikes, until=until)
        held = Held(prepared, every[judging.to(every.device)], None if labels is None else labels[judging], goal)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console, disable=console.quiet, transient=True) as progress:
            bar = progress.add_task("searching", total=SIMULATIONS)
            result = search(prepared, held, limits, progress=partial(_show, progress, bar))
    except GoalError as error:
        console.print(tries_table(error.tries, goal))
        raise
    console.print(tries_table(result.tries, goal))
    return result


def _check_stops(goal: Goal, agreement: float, images: int) -> None:
    """Check that so many images can determine when answers may stop."""
    if goal.kind not in ("same", "loss"):
        raise ConfigError(
            f"limits: mean_latency stops an image when its prediction is sure, but the goal {goal.kind} is not about "
            "predictions; give a goal of same or loss, or a limit of latency"
        )
    if images < (needed := least_images(agreement)):
        raise ConfigError(
            f"limits: agreement={agreement} needs {needed} judging images; half of the calibration images judge, at "
            f"most {_HELD}. Here {images} judge, enough for {images / (images + 1):.4g}"
        )


def _show(progress: Progress, bar: TaskID, what: str, simulations: int) -> None:
    progress.update(bar, description=what, completed=simulations)


class _Labelled:
    """Passes batches on unchanged, and keeps their labels as long as all batches have them."""

    def __init__(self, batches: Iterable[object]) -> None:
        self._batches, self._found = batches, list[Tensor | None]()

    def __iter__(self) -> Iterator[object]:
        for batch in self._batches:
            pair = batch if isinstance(batch, (list, tuple)) and len(batch) > 1 else (batch, None)
            x, y = pair[0], pair[1]
            fits = isinstance(x, Tensor) and isinstance(y, Tensor) and y.shape == x.shape[:1]
            self._found.append(y.cpu() if fits and not y.is_floating_point() else None)
            yield batch

    def labels(self, count: int) -> Tensor | None:
        """Return the labels of the first ``count`` images, or None if a batch had none."""
        known = [y for y in self._found if y is not None]
        return torch.cat(known)[:count] if known and len(known) == len(self._found) else None


def tries_table(tries: Sequence[Try], goal: Goal) -> Table:
    """Return a table of the networks that a search tried; ">" marks the one that it chose."""
    table = Table(title=f"{goal}: what was tried", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
    table.caption_justify, table.pad_edge = "left", False
    table.caption = f">: taken; *: beyond a limit; kept: predictions that hold with {goal.margin:g} times the deviation"
    table.add_column("", min_width=1)
    table.add_column("code", no_wrap=True)
    last = f"{goal.kind[:8]}\n%" if goal.measure else "loss\npp"
    stops = ("mean\nsteps", "mean\nlat.") if any(one.mean_steps is not None for one in tries) else ()
    for heading in ("T", "lat-\nency", "bits", "im-\nages", "same\n%", "kept\n%", "error\n%", last, *stops, "µJ"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in tries:
        judged = (one.measure, 100) if goal.measure else (one.loss_pp, 1)
        early = ((one.mean_steps, 1), (one.mean_latency, 1)) if stops else ()
        numbers = ((one.same, 100), (one.kept, 100), (one.error, 100), judged, *early, (one.energy_uj, 1))
        cells = ["" if value is None else f"{value * factor:.4g}" for value, factor in numbers]
        counts = (one.steps, one.latency, one.payload_bits, one.images or "")
        mark = ">" if one.chosen else "" if one.fits else "*"
        table.add_row(mark, one.code, *map(str, counts), *cells, style="" if one.met else "dim")
    return table
