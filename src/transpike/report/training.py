"""The page's section of trained networks: curves by epoch, accuracy by steps, firing and energy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup

from transpike.report import plots
from transpike.report.encoding import compared, describe_encoding
from transpike.report.finetuning import describe_finetuning
from transpike.report.layers import FEW, rate_plot
from transpike.report.parts import Group, Plot, Section, line_legend, spoken
from transpike.report.wording import count, fixed, known, percent, ratio
from transpike.results import Epoch, Evaluation, Operations, Spiking, Training

__all__ = ["describe_training"]


def describe_training(result: Evaluation, key: str) -> Section:
    """Return the section of a network that was trained, or only tested. `key` must be unique on the page.

    Raises:
        DataError: A picture is damaged.
    """
    place = f"{result.model} on {result.dataset}"
    epochs, distilled = (result.epochs, result.distillation) if isinstance(result, Training) else ((), None)
    tuned = result.finetuning if isinstance(result, Training) else None
    if distilled:
        place += f", taught by {distilled.teacher} ({distilled.method})"
    spiking = result.spiking
    accuracy = [
        _line("training", 0, epochs, lambda epoch: 100 * epoch.train_accuracy),
        _line("validation", 1, epochs, lambda epoch: _percentage(epoch.validation_accuracy)),
    ]
    loss = [_line("training", 0, epochs, lambda epoch: epoch.loss)]
    drawn = [
        *_by_epoch(accuracy, key, place, "accuracy", " (%)"),
        *_by_epoch(loss, key, place, "loss", "", scale="log"),
    ]
    if spiking and result.encoding is None:
        drawn.append(_by_steps(result, spiking, key, place))
    names = distilled.first_terms if distilled else epochs[0].terms if tuned and epochs else ()
    terms = [_term(name, index, epochs) for index, name in enumerate(names)]
    seconds = sum(epoch.seconds for epoch in epochs if known(epoch.seconds))
    took = f" in {count(seconds)} s" if seconds else ""
    tested, held_out = result.accuracy, result.validation_accuracy if isinstance(result, Training) else None
    shown = (tested, "test") if known(tested) else (held_out, "validation")
    facts = [f"{percent(shown[0])} of the {shown[1]} images right"] if known(shown[0]) else []
    facts += [f"{len(epochs)} epoch{'s' * (len(epochs) > 1)}{took}"] if epochs else []
    firing = rate_plot(spiking.layers, key, f"T = {spiking.steps}") if spiking else []
    few = spiking is not None and len(spiking.layers) <= FEW
    return Section(
        headline=f"{place}: {', '.join(facts)}.",
        groups=[
            *(describe_finetuning(tuned) if tuned else ()),
            *describe_encoding(result, key),
            *_terms(terms, place, key, tuned=tuned is not None),
            *([_steps_table(result, spiking)] if spiking and result.encoding is None else []),
        ],
        legend=line_legend([line for line in accuracy if line.points], key),
        plots=[*drawn, *(firing if few else ())],
        tiles=_spiking_tiles(spiking, result.operations) if spiking else (),
        wide=[] if few else firing,
    )


def _line(label: str, index: int, epochs: Sequence[Epoch], value: Callable[[Epoch], float | None]) -> plots.Line:
    return plots.curve(label, index, ((epoch.epoch, value(epoch)) for epoch in epochs))


def _term(name: str, index: int, epochs: Sequence[Epoch]) -> plots.Line:
    return _line(name, index, epochs, lambda epoch: epoch.terms.get(name))


def _percentage(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _by_epoch(
    lines: Sequence[plots.Line], key: str, place: str, name: str, unit: str, scale: str = "linear"
) -> list[Plot]:
    if not any(line.points for line in lines):
        return []
    alt = f"{place}: {name}{unit} by epoch. {spoken(lines, 'epoch')}"
    svg = plots.draw_lines(lines, f"{key}-{name}", alt, titles=("epoch", name + unit), scale=scale)
    return [Plot(Markup(svg), f"{name.capitalize()} by epoch")]


def _by_steps(result: Evaluation, spiking: Spiking, key: str, place: str) -> Plot:
    lines = [plots.curve("test", 2, ((row.steps, 100 * row.accuracy) for row in result.by_steps))]
    alt = f"{place}: accuracy (%) by T. {spoken(lines, 'T')}"
    svg = plots.draw_lines(lines, f"{key}-by-steps", alt, titles=("T (steps)", "accuracy (%)"))
    return Plot(Markup(svg), "Accuracy by T", f"Trained at T = {spiking.steps}.")


def _steps_table(result: Evaluation, spiking: Spiking) -> Group:
    note = f"The network was trained once, at T = {spiking.steps}, and tested at each T."
    rows = [(str(row.steps), percent(row.accuracy), fixed(row.loss)) for row in result.by_steps]
    return Group("Accuracy by T, in numbers", note, columns=("T", "test accuracy", "loss"), rows=rows)


def _terms(lines: Sequence[plots.Line], place: str, key: str, *, tuned: bool) -> list[Group]:
    if not any(line.points for line in lines):
        return []
    alt = f"{place}: weighted terms of the loss by epoch. {spoken(lines, 'epoch')}"
    svg = plots.draw_lines(lines, f"{key}-terms", alt, titles=("epoch", "mean over the epoch"), scale="log")
    adds = "the weighted excess over the bound" if tuned else "the teacher’s terms with their weights"
    note = f"The loss is the sum of the labels’ cross-entropy and {adds}."
    entries = line_legend(lines, f"{key}-terms")
    return [Group("Weighted terms of the loss", note, legend=entries, plots=[Plot(Markup(svg), "By epoch")])]


def _spiking_tiles(spiking: Spiking, operations: Operations | None) -> list[tuple[str, str, str]]:
    energy, ann, beside = spiking.energy_uj, spiking.ann_energy_uj, "the ANN’s"
    if operations is not None and "spiking" in operations.by_part:
        energy = operations.by_part["spiking"].energy_uj
        ann, (_, *size) = compared(operations)
        beside = f"that of an ANN at {size[0]} × {size[1]}"
    return [
        ("spikes per neuron", fixed(spiking.spikes_per_neuron), f"{percent(spiking.rate)} of the steps"),
        ("SynOps", count(spiking.synops), f"and {count(spiking.macs)} MACs; as an ANN {count(spiking.ann_macs)}"),
        ("energy (model)", f"{fixed(energy)} µJ", f"{ratio(energy, ann)} {beside}"),
    ]
