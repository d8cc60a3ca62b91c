"""Fine-tuning on the page and in the terminal: silent steps of each layer before and after, and the judged choices."""

from __future__ import annotations

from collections.abc import Sequence

from transpike.report.parts import Group
from transpike.report.wording import percent
from transpike.results import Finetuning, Schedule

__all__ = ["HOW", "describe_finetuning", "finetuning_words", "schedule_rows"]

HOW = (
    "At the limit: no layer has more silent steps than --silent. Price: silent steps are chosen layer by layer, and "
    "each one counts as an error of this price. A higher price leaves fewer silent steps."
)
"""The meanings of the choices' names."""


def finetuning_words(tuned: Finetuning) -> str:
    """Summarise the result in a sentence or two.

    Example:
        >>> from transpike.results import Timed
        >>> timed = [Timed(latency=8 + wait, interval=8 + wait, waits={"relu": wait}) for wait in (1, 0)]
        >>> schedule = Schedule(weights="tuned", waits="at the limit", latency=8, silent=0, accuracy=0.5, agreement=0.5)
        >>> names = dict(label="ternary", network="T8", images=64)
        >>> finetuning_words(Finetuning(steps=8, before=timed[0], after=timed[1], schedules=(schedule,), **names))
        '1 of 1 silent steps removed: latency 9 before, 8 after, 9 with fewer silent steps and the converted weights.'
    """
    before, after = tuned.before, tuned.after
    alone = untrained(tuned)
    sentence = (
        f"{before.silent - after.silent} of {before.silent} silent steps removed: latency {before.latency} before, "
    )
    return f"{sentence}{after.latency} after, {alone} with fewer silent steps and the converted weights."


def untrained(tuned: Finetuning) -> int:
    """Return the least latency at which the converted weights are about as accurate as with all silent steps."""
    rows = [row for row in tuned.schedules if row.weights == "converted"]
    least = rows[0].accuracy - tuned.tolerance / 100 if rows else 0.0
    return min((row.latency for row in rows if row.accuracy >= least), default=tuned.before.latency)


def schedule_rows(tuned: Finetuning) -> list[tuple[str, ...]]:
    """Return a row for each judged choice of silent steps, with the chosen one marked."""
    return [
        (_name(row), str(row.latency), str(row.silent), percent(row.accuracy), percent(row.agreement))
        for row in tuned.schedules
    ]


def describe_finetuning(tuned: Finetuning) -> list[Group]:
    """Return the tables of the page."""
    before, after = tuned.before, tuned.after
    layers: Sequence[tuple[str, ...]] = [
        (name, str(wait), str(after.waits.get(name, 0))) for name, wait in before.waits.items()
    ]
    whole = [
        ("all", str(before.silent), str(after.silent)),
        ("latency", str(before.latency), str(after.latency)),
        ("interval", str(before.interval), str(after.interval)),
        ("test accuracy", percent(before.accuracy), percent(after.accuracy)),
        ("same predictions as the ANN, test", percent(before.agreement), percent(after.agreement)),
    ]
    return [
        Group(
            "Silent steps",
            finetuning_words(tuned),
            about=f"{tuned.label}, T = {tuned.steps}: silent steps of each layer",
            columns=("layer", "before", "after"),
            rows=[*layers, *whole],
        ),
        Group(
            "What was judged",
            f"Choices of silent steps, measured on {tuned.images} validation images. They begin with the least latency "
            f"and end with the first that is as accurate as the converted network was. {HOW}",
            about="weights and how their silent steps were chosen",
            columns=("weights", "latency", "silent steps", "validation accuracy", "same predictions"),
            rows=schedule_rows(tuned),
        ),
    ]


def _name(row: Schedule) -> str:
    return f"{'> ' if row.chosen else ''}{row.weights}, {row.waits}"
