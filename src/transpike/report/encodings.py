"""The page's section of several runs with an input encoder: accuracy by T, by steps shown and by epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from markupsafe import Markup

from transpike.report import plots
from transpike.report.encoding import after_line, compared
from transpike.report.labels import label_schemes
from transpike.report.parts import Group, Plot, Section, line_legend, spoken
from transpike.report.wording import count, fixed, known, percent, ratio
from transpike.results import Encoding, Epoch, Evaluation, Finished, Spiking, Training

__all__ = ["Encoded", "compare_encodings", "encoded_runs"]


@dataclass(frozen=True)
class Encoded:
    """A run with an encoder, for the comparison with others.

    Attributes:
        result: its results.
        encoding: its encoder.
        spiking: its firing.
        folder: its folder.
    """

    result: Evaluation
    encoding: Encoding
    spiking: Spiking
    folder: str

    @property
    def place(self) -> str:
        return f"{self.result.model} on {self.result.dataset}"

    @property
    def scheme(self) -> Mapping[str, object]:
        """The settings of its encoder, and whether its network was trained over time."""
        return {**self.encoding.scheme, "tuned": bool(self.epochs)}

    @property
    def words(self) -> Mapping[str, str]:
        return {**self.encoding.words, "tuned": "tuned" if self.epochs else "not tuned"}

    @property
    def epochs(self) -> Sequence[Epoch]:
        return self.result.epochs if isinstance(self.result, Training) else ()


def encoded_runs(runs: Iterable[Finished]) -> list[Encoded]:
    """Return those of the runs that have an input encoder."""
    return [
        Encoded(run.result, run.result.encoding, run.result.spiking, run.folder)
        for run in runs
        if isinstance(run.result, Evaluation) and run.result.encoding and run.result.spiking
    ]


def compare_encodings(runs: Sequence[Encoded]) -> Section:
    """Compare several runs with an encoder: accuracy by T and by epoch, with a curve for each, and a table."""
    alike = label_schemes([run.scheme for run in runs], [run.words for run in runs], [run.place for run in runs])
    labels = [
        label + f" ({run.folder or f'result {number}'})" * (alike.count(label) > 1)
        for number, (label, run) in enumerate(zip(alike, runs, strict=True), 1)
    ]
    return Section(
        headline=f"{len(runs)} runs with an input encoder, side by side.",
        groups=[*_by_steps(runs), _run_by_run(runs, labels)],
    )


def _by_steps(runs: Sequence[Encoded]) -> list[Group]:
    """Plot accuracy against T for codings that were run at several T."""
    timeless = [{name: value for name, value in run.scheme.items() if name != "steps"} for run in runs]
    labels = label_schemes(timeless, [run.words for run in runs], [run.place for run in runs])
    curves: dict[str, dict[int, list[float]]] = {}
    for label, run in zip(labels, runs, strict=True):
        if known(run.result.accuracy):
            points = curves.setdefault(label, {})
            points.setdefault(run.encoding.steps[-1], []).append(100 * run.result.accuracy)
    if all(len(points) == 1 for points in curves.values()):
        return []
    lines = [
        plots.curve(label, index, ((steps, mean(found)) for steps, found in sorted(points.items())))
        for index, (label, points) in enumerate(curves.items())
    ]
    alt = f"Accuracy (%) against T. {spoken(lines, 'T')}"
    svg = plots.draw_lines(lines, "encodings-steps", alt, titles=("T (steps)", "accuracy (%)"))
    return [
        Group(
            "Accuracy against T",
            "Accuracy on test images. Each network was made for its T; several runs of one T are averaged. An encoder "
            "codes the image alone: its spikes or values enter networks whose own neurons do not depend on it.",
            legend=line_legend(lines, "encodings-steps"),
            plots=[Plot(Markup(svg), "A curve for each encoder and its settings")],
        )
    ]


def _run_by_run(runs: Sequence[Encoded], labels: Sequence[str]) -> Group:
    named = list(enumerate(zip(labels, runs, strict=True)))
    after = [after_line(label, index, run.result) for index, (label, run) in named]
    training = [_epochs(label, index, run, lambda epoch: epoch.train_accuracy) for index, (label, run) in named]
    held_out = [_epochs(label, index, run, lambda epoch: epoch.validation_accuracy) for index, (label, run) in named]
    drawings = []
    for every, name, caption, x in (
        (after, "after", "Accuracy by steps shown", "steps shown"),
        (training, "train", "Training accuracy by epoch", "epoch"),
        (held_out, "validation", "Validation accuracy by epoch", "epoch"),
    ):
        if lines := [line for line in every if line.points]:
            alt = f"{caption} (%). {spoken(lines, x)}"
            svg = plots.draw_lines(lines, f"encodings-{name}", alt, titles=(x, "accuracy (%)"))
            note = "Test images. Each network is read out before its last step." if every is after else ""
            drawings.append(Plot(Markup(svg), caption, note))
    return Group(
        "Run by run",
        legend=line_legend(after, "encodings"),
        plots=drawings,
        columns=("run", "T", "accuracy", "artificial network", "thresholds balanced", "spikes per neuron", "SynOps",
                 "energy (µJ)", "× artificial, image as it is"),
        rows=[_run_row(label, run) for _, (label, run) in named],
    )  # fmt: skip


def _epochs(label: str, index: int, run: Encoded, value: Callable[[Epoch], float | None]) -> plots.Line:
    shares = ((epoch.epoch, value(epoch)) for epoch in run.epochs)
    return plots.curve(label, index, ((epoch, None if share is None else 100 * share) for epoch, share in shares))


def _run_row(label: str, run: Encoded) -> tuple[str, ...]:
    stages, energies = run.result.stages, _energies(run)
    return (
        label,
        str(run.spiking.steps),
        percent(run.result.accuracy),
        *(percent(stages[name].accuracy if name in stages else None) for name in ("ann", "balanced")),
        fixed(run.spiking.spikes_per_neuron),
        count(run.spiking.synops),
        fixed(energies[0], 3),
        ratio(*energies),
    )


def _energies(run: Encoded) -> tuple[float, float | None]:
    """Return the energy of the spiking network, and of the artificial one for the original image (None if missing)."""
    work = run.result.operations
    if work is None or "spiking" not in work.by_part:
        return run.spiking.energy_uj, run.spiking.ann_energy_uj
    own, size = compared(work)
    return work.by_part["spiking"].energy_uj, own if size == work.image else None
