"""Distillation: losses that serve in anyone's loop, methods that the trainer takes, taps for features.

A method is a module made of stages, pairs of taps, and called once a batch:

    method(student_logits, teacher_logits, student_features, teacher_features, target) -> {name: weighted scalar}

with logits [T, N, classes] or [N, classes] of the student and [N, classes] of the teacher; features by tap, the
student's [T, N, C, H, W] or [N, C, H, W] and the teacher's [N, C', H', W']; class indices [N] or probabilities
[N, classes]. One that brings maps of both networks to one form also says what it compares, `pairs(student_features,
teacher_features) -> {stage: (student maps, teacher maps)}`, which `transpike analyze` looks at.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from transpike.distill.bsd import (
    BiSpectrumDistillation,
    SpectralResidual,
    SpectralResidualDistillation,
    SpectralSemanticDistillation,
    spectral_residual,
    spectral_semantic,
)
from transpike.distill.decoupled import DISTDistillation, DKDDistillation
from transpike.distill.features import BKDSNNDistillation, KDSNNDistillation, LaSNNDistillation, SAKDDistillation
from transpike.distill.hints import ATDistillation, FitNetDistillation, OFDDistillation
from transpike.distill.logits import LogitsDistillation, TKSDistillation, TLDDistillation, knowledge_distillation
from transpike.distill.map_losses import focal_frequency_loss, gaussian_frequency_loss, info_nce
from transpike.distill.matching import default_taps, match_taps, pair_taps
from transpike.distill.ofa import OFADistillation
from transpike.distill.refinement import DualStreamRefinement, WaveletRefinement
from transpike.distill.relations import CCDistillation, CRDDistillation, RKDDistillation
from transpike.distill.review import ReviewKDDistillation
from transpike.distill.settings import check_kinds
from transpike.distill.sfkd import SFKDDistillation, SpatialFrequencyDistillation
from transpike.distill.taps import Stage, Tap, Taps, find_taps
from transpike.errors import ConfigError

__all__ = [
    "METHODS",
    "ATDistillation",
    "BKDSNNDistillation",
    "BiSpectrumDistillation",
    "CCDistillation",
    "CRDDistillation",
    "DISTDistillation",
    "DKDDistillation",
    "DualStreamRefinement",
    "FitNetDistillation",
    "KDSNNDistillation",
    "LaSNNDistillation",
    "LogitsDistillation",
    "OFADistillation",
    "OFDDistillation",
    "RKDDistillation",
    "ReviewKDDistillation",
    "SAKDDistillation",
    "SFKDDistillation",
    "SpatialFrequencyDistillation",
    "SpectralResidual",
    "SpectralResidualDistillation",
    "SpectralSemanticDistillation",
    "Stage",
    "TKSDistillation",
    "TLDDistillation",
    "Tap",
    "Taps",
    "WaveletRefinement",
    "check_method",
    "create_method",
    "default_taps",
    "find_taps",
    "focal_frequency_loss",
    "gaussian_frequency_loss",
    "info_nce",
    "knowledge_distillation",
    "match_taps",
    "needs_time",
    "pair_taps",
    "spectral_residual",
    "spectral_semantic",
    "uses_features",
]

METHODS: dict[str, Callable[..., nn.Module]] = {
    "kd": LogitsDistillation,
    "bsd": BiSpectrumDistillation,
    "ssd": partial(BiSpectrumDistillation, beta=0.0),
    "srd": partial(BiSpectrumDistillation, gamma=0.0),
    "kdsnn": KDSNNDistillation,
    "lasnn": LaSNNDistillation,
    "bkdsnn": BKDSNNDistillation,
    "sakd": SAKDDistillation,
    "tks": TKSDistillation,
    "tld": TLDDistillation,
    "sfkd": SFKDDistillation,
    "fitnet": FitNetDistillation,
    "at": ATDistillation,
    "rkd": RKDDistillation,
    "cc": CCDistillation,
    "crd": CRDDistillation,
    "ofd": OFDDistillation,
    "reviewkd": ReviewKDDistillation,
    "dkd": DKDDistillation,
    "dist": DISTDistillation,
    "ofa": OFADistillation,
}
"""By name: what makes a method of stages and settings. `ssd` and `srd` are logits KD with one half of BSD."""

COUNT_CLASSES = ("ofa",)
OVER_TIME = ("tks", "tld")
LOGITS_ALONE = ("kd", "ssd", "tks", "tld", "dkd", "dist")


def uses_features(method: str) -> bool:
    """Whether a method compares features, and so needs stages."""
    return method not in LOGITS_ALONE


STAND_IN = Stage("student", "teacher", 8, 8, (2**10, 2**10), (2**10, 2**10))
"""A stage on which settings are tried out before there are networks; large enough for any grid."""


def needs_time(method: str) -> bool:
    """Whether a method compares time steps, and so needs a student that has them."""
    return method in OVER_TIME


def create_method(
    method: str | Callable[[Sequence[Stage]], nn.Module],
    stages: Sequence[Stage],
    settings: Mapping[str, Any],
    *,
    classes: int | None = None,
) -> nn.Module:
    """Make a method.

    Args:
        method: a name of `METHODS`, or what makes a module of stages.
        stages: pairs of taps.
        settings: keyword arguments of the method, such as `alpha` and `temperature`.
        classes: how many there are, for methods whose adapters answer; settings go first.

    Raises:
        ConfigError: for an unknown name (near matches are listed), and settings that the method does not have or that
            are of another type or out of range.

    >>> create_method("kd", (), {"alpha": 1.0})
    LogitsDistillation(...)
    >>> create_method("bsb", (), {})
    Traceback (most recent call last):
    ...
    transpike.errors.ConfigError: no method of distillation 'bsb'. Did you mean bsd? Known: kd, bsd, ...
    """
    if not isinstance(method, str):
        try:
            return method(stages, **settings)
        except TypeError as error:
            raise ConfigError(f"method {method!r} cannot be made with these settings: {error}.") from error
    if method not in METHODS:
        near = difflib.get_close_matches(method, METHODS, n=2)
        guess = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ConfigError(f"no method of distillation {method!r}.{guess} Known: {', '.join(METHODS)}.")
    check_kinds(method, METHODS[method], settings)
    if classes is not None and method in COUNT_CLASSES:
        settings = {"classes": classes, **settings}
        if settings["classes"] < classes:
            raise ConfigError(f"classes={settings['classes']}: the networks have {classes}; leave it out.")
    return METHODS[method](stages, **settings)


def check_method(method: str, settings: Mapping[str, Any]) -> None:
    """Refuse a method's name or settings before there are networks to tap.

    Raises:
        ConfigError: as `create_method`.

    >>> check_method("rkd", {"distance": -1.0})
    Traceback (most recent call last):
    ...
    transpike.errors.ConfigError: distance=-1.0: a weight is 0 or more, and finite.
    """
    with torch.device("meta"):
        create_method(method, [STAND_IN] if uses_features(method) else (), settings)
