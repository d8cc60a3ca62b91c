"""Chooses the modules to tap by default, and which of the teacher's taps each of the student's learns from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log2
from typing import TypeVar

from torch import nn

from transpike.distill.taps import Stage, Tap, listed, named_modules
from transpike.errors import ModelError

__all__ = ["default_taps", "match_taps", "pair_taps"]

POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)

T = TypeVar("T")


def default_taps(model: nn.Module) -> list[str]:
    """Return the default taps of a known network: after each stage, in order of depth.

    Known are our own networks, networks with `layer1` or `stage1` and so on (ResNets of any library), and networks with
    stages in timm's `feature_info` (nearly all of timm's; transformers list every block). Also known are networks with
    `features` (VGG, MobileNet), `blocks`, `stages` or `layers`. Of these the taps are the last modules before each
    change of resolution, or four of them if the resolution never changes (transformers).

    Raises:
        ModelError: The network has another layout. The message lists its modules.

    Example:
        >>> from torchvision.models import resnet18
        >>> default_taps(resnet18())
        ['layer1', 'layer2', 'layer3', 'layer4']
    """
    names = named_modules(model)
    for stem in ("layer", "stage"):
        if numbered := [f"{stem}{number}" for number in range(1, 10) if f"{stem}{number}" in names]:
            return numbered
    info = getattr(model, "feature_info", None)
    if isinstance(info, list) and info and all(entry.get("module") in names for entry in info):
        return [entry["module"] for entry in info]
    for container in ("layers", "blocks", "stages", "features"):
        if container in names and (children := dict(names[container].named_children())):
            return [f"{container}.{child}" for child in _stage_ends(children)]
    raise ModelError(
        f"no default taps are known for {type(model).__name__}: name the modules to tap. "
        f"{listed([name for name in names if name.count('.') < 2])}"
    )


def match_taps(student: Mapping[str, Tap], teacher: Mapping[str, Tap]) -> list[tuple[str, str]]:
    """Return the teacher's tap for each tap of the student: the nearest size, then the nearest relative depth.

    If all of the student's taps have one size (ViT, MLP-Mixer), the size does not distinguish stages. Then four evenly
    spaced taps learn, each from the teacher's tap of the nearest relative depth. Both mappings are in order of depth.

    Example:
        >>> def tap(name, side): return Tap(name, channels=4, size=(side, side), layout="chw")
        >>> student = {name: tap(name, side) for name, side in (("low", 8), ("high", 4))}
        >>> teacher = {name: tap(name, side) for name, side in (("a", 16), ("b", 8), ("c", 4), ("d", 4))}
        >>> match_taps(student, teacher)
        [('low', 'b'), ('high', 'd')]
    """
    alike = len(student) > 1 and len({tap.size for tap in student.values()}) == 1
    learning = _four(list(student.values())) if alike else list(student.values())
    pairs = []
    for index, own in enumerate(learning, 1):

        def distance(place: tuple[int, Tap], own: Tap = own, index: int = index) -> tuple[float, float]:
            depth, other = place
            ratio = own.size[0] * own.size[1] / (other.size[0] * other.size[1])
            return 0 if alike else abs(log2(ratio)), abs(depth * len(learning) - index * len(teacher))

        pairs.append((own.name, min(enumerate(teacher.values(), 1), key=distance)[1].name))
    return pairs


def pair_taps(
    student: Mapping[str, Tap], teacher: Mapping[str, Tap], pairs: Sequence[tuple[str, str]]
) -> tuple[Stage, ...]:
    """Return the stages for pairs of names."""
    return tuple(
        Stage(a, b, student[a].channels, teacher[b].channels, student[a].size, teacher[b].size) for a, b in pairs
    )


def _stage_ends(children: Mapping[str, nn.Module]) -> list[str]:
    """Return the last child before each change of resolution and the last but a pooling; four if none changes."""
    names = [name for name, child in children.items() if not isinstance(child, nn.Identity)]
    if isinstance(children[names[-1]], POOLS):
        names.pop()
    halving = [any(_halves(module) for module in child.modules()) for child in children.values()]
    follows = dict(zip(list(children)[:-1], halving[1:], strict=True))
    ends = [name for name in names if name == names[-1] or follows[name]]
    return _four(names) if len(ends) == 1 else ends


def _four(values: Sequence[T]) -> list[T]:
    """Return four of the values, or all if there are fewer, evenly spaced and including the last one."""
    count = min(len(values), 4)
    return [values[round((index + 1) * len(values) / count) - 1] for index in range(count)]


def _halves(module: nn.Module) -> bool:
    stride = module.stride if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) else 1
    return (max(stride) if isinstance(stride, tuple) else stride) > 1
