"""The message for a network that cannot be converted: one message for all places, with reasons and remedies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Problem", "listed", "refusal", "why"]

SUPPORTED = (
    "Supported: convolutions, linear layers, products of activations (attention), and between them any function that "
    "treats each sample alike: activations, gates, norms, softmax, pooling, arithmetic, moves of values. After the "
    "last weighted layer also decisions of the decoded output"
)
_LINES = 12  # reasons in one message, each with its places
_PLACES = 4

_SORT = "sorting has no spiking form; apply it to the network's output"
_REASONS = {
    "sort": _SORT,
    "topk": _SORT,
    "argmax": "an index of the maximum has no spiking form before the last layer; apply it to the network's output",
    "dropout": "this dropout stays on in evaluation mode; pass training=self.training to it",
}


@dataclass(frozen=True)
class Problem:
    """A place without a spiking form: its location in the model, and ``reason; remedy`` in words."""

    place: str
    reason: str


def why(base: str) -> str:
    """Return the reason and the remedy for the operator ``base``.

    Example:
        >>> why("fft_rfft2")
        'fft_rfft2 has no spiking form; replace it by supported operations'
    """
    return _REASONS.get(base, f"{base} has no spiking form; replace it by supported operations")


def refusal(name: str, problems: Iterable[Problem]) -> str:
    """Return one message for all places of the model ``name``: equal reasons once, then remedies that apply to all.

    Example:
        >>> print(refusal("Net", [Problem("a", why("sort")), Problem("b", why("topk"))]).partition("Supported")[0])
        Net cannot be converted:
          - a, b: sorting has no spiking form
        What helps: apply it to the network's output.
        <BLANKLINE>
    """
    places: dict[str, list[str]] = {}
    for problem in problems:
        names = places.setdefault(problem.reason, [])
        if problem.place not in names:
            names.append(problem.place)
    lines = [f"  - {listed(names)}: {reason.partition('; ')[0]}" for reason, names in places.items()]
    if len(lines) > _LINES:
        lines[_LINES:] = [f"  - and {len(lines) - _LINES} more reasons"]
    remedies = dict.fromkeys(remedy for reason in places if (remedy := reason.partition("; ")[2]))
    helps = [f"What helps: {'; '.join(remedies)}."] if remedies else []
    return "\n".join([f"{name} cannot be converted:", *lines, *helps, f"{SUPPORTED}."])


def listed(places: list[str]) -> str:
    """List places in one line; of many places, only the first.

    Example:
        >>> listed(["a", "b"]), listed(list("abcdefg"))
        ('a, b', 'a, b, c, d and 3 more')
    """
    if len(places) <= _PLACES + 1:
        return ", ".join(places)
    return f"{', '.join(places[:_PLACES])} and {len(places) - _PLACES} more"
