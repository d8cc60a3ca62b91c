"""Why a network cannot be converted, and what to use instead: one message, however many places stand in the way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Problem", "refusal", "why"]

SUPPORTED = (
    "Supported: convolutions (also transposed, grouped), linear, BatchNorm, ReLU, LeakyReLU, PReLU, ReLU6, Hardtanh, "
    "max and average pooling, +, -, constants, cat, stack, slices, reshape, permute, padding, interpolation, dropout. "
    "After the last weighted layer also softmax, sigmoid and other functions of the decoded output"
)
_LINES = 12  # reasons in one message, each with its places
_PLACES = 4

_NORM = "divides by a statistic of each sample; use BatchNorm, whose statistics are constants"
_CONVOLUTIONAL = "use a network of convolutions, BatchNorm and ReLU, without attention"
_ATTENTION = f"a product of two activations (attention) has no spiking form here; {_CONVOLUTIONAL}"
_UNGATED = "use a variant without squeeze-excitation and gating"
_SORT = "sorting has no spiking form; apply it to the network's output"
_PIECEWISE = "train with ReLU, LeakyReLU, PReLU or ReLU6 in place of"
_CURVED = ("gelu", "silu", "mish", "elu", "selu", "celu", "softplus", "sigmoid", "tanh", "hardswish", "exp")
_REASONS = {
    "mul": f"a product of two activations (squeeze-excitation, gating) has no spiking form; {_UNGATED}",
    "div": "division by an activation has no spiking form; use a variant without it",
    "matmul": _ATTENTION,
    "bmm": _ATTENTION,
    "scaled_dot_product_attention": _ATTENTION,
    "softmax": "softmax has no spiking form before the last layer; apply it to the network's output",
    "layer_norm": f"LayerNorm {_NORM}",
    "group_norm": f"GroupNorm {_NORM}",
    "instance_norm": f"InstanceNorm {_NORM}",
    "sort": _SORT,
    "topk": _SORT,
    "argmax": "an index of the maximum has no spiking form before the last layer; apply it to the network's output",
    "dropout": "this dropout stays on in evaluation mode; pass training=self.training to it",
    "expand": "copies of an activation along an axis have no spiking form; let it broadcast in a sum instead",
    "hardsigmoid": "hardsigmoid is not supported by this name; write (x / 6 + 0.5).clamp(0, 1)",
    **{name: f"{name} is not piecewise linear; {_PIECEWISE} {name}" for name in _CURVED},
}


@dataclass(frozen=True)
class Problem:
    """A place without a spiking form: where in the model, and ``reason; remedy`` in words."""

    place: str
    reason: str


def why(base: str, *, gates: bool = False) -> str:
    """The reason and the remedy for the operator ``base``; with ``gates``, its result only multiplies activations.

    >>> why("fft_rfft2")
    'fft_rfft2 has no spiking form; replace it by supported operations'
    >>> why("sigmoid", gates=True)
    'sigmoid gates a product of two activations; use a variant without squeeze-excitation and gating'
    """
    if gates:
        return f"{base} gates a product of two activations; {_UNGATED}"
    return _REASONS.get(base, f"{base} has no spiking form; replace it by supported operations")


def refusal(name: str, problems: Iterable[Problem]) -> str:
    """One message for all places of the model ``name``: equal reasons once, and remedies that hold for all together.

    >>> print(refusal("Net", [Problem("a", why("silu")), Problem("b", why("silu"))]).partition("Supported")[0])
    Net cannot be converted:
      - a, b: silu is not piecewise linear
    What helps: train with ReLU, LeakyReLU, PReLU or ReLU6 in place of silu.
    <BLANKLINE>
    """
    places: dict[str, list[str]] = {}
    for problem in problems:
        found = places.setdefault(problem.reason, [])
        if problem.place not in found:
            found.append(problem.place)
    lines = [f"  - {_listed(found)}: {reason.partition('; ')[0]}" for reason, found in places.items()]
    if len(lines) > _LINES:
        lines[_LINES:] = [f"  - and {len(lines) - _LINES} more reasons"]
    remedies = dict.fromkeys(remedy for reason in places if (remedy := reason.partition("; ")[2]))
    helps = [f"What helps: {'; '.join(_joint(list(remedies)))}."] if remedies else []
    return "\n".join([f"{name} cannot be converted:", *lines, *helps, f"{SUPPORTED}."])


def _listed(places: list[str]) -> str:
    if len(places) <= _PLACES + 1:
        return ", ".join(places)
    return f"{', '.join(places[:_PLACES])} and {len(places) - _PLACES} more"


def _joint(remedies: list[str]) -> list[str]:
    """Where attention stands in the way, nothing that keeps it helps; other functions to train with are one remedy."""
    if _CONVOLUTIONAL in remedies:
        return [_CONVOLUTIONAL]
    curved = [remedy.removeprefix(_PIECEWISE) for remedy in remedies if remedy.startswith(_PIECEWISE)]
    others = [remedy for remedy in remedies if not remedy.startswith(_PIECEWISE)]
    return [*others, *([f"{_PIECEWISE}{' and'.join(curved)}"] if curved else [])]
